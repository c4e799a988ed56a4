"""Released models by their public names: where the file of each is to be put, and its SHA-256.

None is released yet. Nothing is downloaded: who has the file puts it into the cache folder.
"""

from pathlib import Path

from msa_flax.exporting.package import PackageError
from msa_flax.files import cache_dir, sha256

# name -> (file, SHA-256 of its bytes, where it can be had)
RELEASED: dict[str, tuple[str, str, str]] = {}


def find(name: str) -> Path:
    """Returns the path of a model that is given by its path, or by its public name.

    Raises:
        PackageError: neither is there, or the file of the name has other bytes.
    """
    if Path(name).exists():
        return Path(name)
    if name not in RELEASED:
        known = ", ".join(sorted(RELEASED)) or "(none is released yet)"
        raise PackageError(
            f"--model: expected a folder or file of msa_flax.export, or a name, {known}; got "
            f"{name!r}, where nothing is"
        )
    file, digest, origin = RELEASED[name]
    path = cache_dir() / "models" / file
    if sha256(path) != digest:
        found = "a file with other bytes" if path.exists() else "nothing"
        raise PackageError(
            f"--model: {name} is expected at {path}, where {found} is; put there {file} from "
            f"{origin} (SHA-256 {digest})"
        )
    return path
