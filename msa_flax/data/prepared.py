"""What is kept of a data set between two starts, so that the second one waits for nothing.

The first start copies the files (:mod:`msa_flax.data.copies`, with TFDS). Beside that copy every
image size and equalisation that was asked for has a file of images, see
:mod:`msa_flax.data.stored`, and a table of what is known of them. Later starts read these two and
do without TensorFlow, which takes seconds to import. A prepared folder, which a user has made with
``python -m msa_flax.prepare``, is such a copy; its images and tables alone are kept in the cache.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data import list_images
from msa_flax.data.examples import DataError, Examples
from msa_flax.data.facts import SIZE
from msa_flax.data.folder import Listing
from msa_flax.data.headers import ImageError
from msa_flax.data.images import read_bytes
from msa_flax.data.shards import VERSION, check_prepared, read_record
from msa_flax.data.stored import read_images
from msa_flax.files import cache_dir, written_whole

log = logging.getLogger("msa_flax")

KNOWN = ("label", "example_id", "group", "study", "family", "slice_index")  # before a file is read
_COLUMNS = ("example_id", "label", "group", "family", "slice_index", "part", "height", "width")


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """Where the images of one size and equalisation are kept, and the table of what is known."""

    folder: Path  # of the copy, or in the cache where the copy is a prepared folder
    kind: str  # "<size>-<equalize>", or "search" for images as they are compared with one another
    size: int  # pixels a side

    @property
    def images(self) -> Path:
        """The file of the images."""
        return self.folder / f"{self.kind}.npy"

    @property
    def masks(self) -> Path:
        """The file of the masks, which only a phantom has."""
        return self.folder / f"{self.kind}-masks.npy"

    @property
    def table(self) -> Path:
        """The file of everything else, written last."""
        return self.folder / f"{self.kind}.npz"

    def read(self, config: DataConfig) -> Examples | None:
        """Returns what was written, or None where nothing is, or something else."""
        if not self.images.exists():
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            with self.table.open("rb") as opened, np.load(opened) as file:
                table = dict(file)  # each column has its checksum
            shape = (len(table["label"]), self.size, self.size)
            examples = Examples(
                **{name: table[name] for name in _COLUMNS},
                study=table.get("study"),
                masks=read_images(self.masks, shape) if table["masked"] else None,
                images=read_images(self.images, shape),
                bad_files=tuple((name, reason) for name, reason in table["bad_files"].tolist()),
                classes=tuple(config.classes),
            )
            if examples.fingerprint == str(table["fingerprint"]):
                return examples
        log.warning(
            "%s is not what this version of msa_flax has written, and is written again", self.images
        )
        for path in (self.images, self.masks, self.table):
            path.unlink(missing_ok=True)
        return None

    def write(self, examples: Examples) -> None:
        """Writes the table of images that are kept."""
        columns = {name: getattr(examples, name) for name in _COLUMNS}
        columns |= {} if examples.study is None else {"study": examples.study}
        with written_whole(self.table) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file,
                **columns,
                bad_files=np.array(examples.bad_files, np.str_).reshape(-1, 2),
                masked=np.array(examples.masks is not None),
                fingerprint=np.array(examples.fingerprint),
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """The data set of a configuration as it is now, and the folder where it is kept.

    Attributes:
        folder: its parent is named ``<hash of the path>-<hash of the content>``, or after the
            phantom, so where a file was added, removed, renamed or changed, or a row, all is
            prepared anew.
        listing: the files, where they are a folder's or a table's.
    """

    folder: Path
    listing: Listing | None = None


def kept_of(config: DataConfig, source: Source, *, for_search: bool = False) -> Kept:
    """Returns where images are kept in the size and equalisation of a configuration."""
    if for_search:
        return Kept(source.folder, "search", SIZE)
    return Kept(source.folder, f"{config.image_size}-{config.equalize}", config.image_size)


def find_source(config: DataConfig) -> Source:
    """Returns the data set of a configuration, of which nothing but names and hashes are read.

    Args:
        config: where it is, and how its files are read.

    Raises:
        DataError: the folder, table or prepared folder is not as expected.
    """
    data_dir = cache_dir() / "datasets"
    if config.source == "phantom":
        return Source(data_dir / "phantom" / phantom_name(config) / VERSION)
    root = Path(config.manifest or config.root).expanduser().absolute()
    if config.source == "rsna2022" and read_record(config.root):
        return Source(data_dir / "arrays" / _name(root, check_prepared(config)))
    listing = list_images(config)
    return Source(data_dir / "folder" / _name(root, _state(listing)) / VERSION, listing)


def phantom_name(config: DataConfig) -> str:
    """Returns a name that says all that a phantom is drawn from."""
    return f"p{config.phantom_patients}_s{config.phantom_seed}"


def _name(root: Path, state: str) -> str:
    return f"{_sha256(str(root))[:8]}-{state[:16]}"


def _state(listing: Listing) -> str:
    """Returns a hash, in hex, of files, of what is known of them, and of how they are read."""
    with ThreadPoolExecutor() as pool:  # 4,200 slices, 130 MB: a third of a second
        hashes = pool.map(_hash_of_file, [file.path for file in listing.files])
        files = [
            (file.part, *(getattr(file, name) for name in KNOWN), one)
            for file, one in zip(listing.files, hashes, strict=True)
        ]
    config = listing.config
    window = config.window_centre, config.window_width, config.max_tilt
    return _sha256(json.dumps([files, listing.bad_files, config.classes, window]))


def _hash_of_file(path: Path) -> str:
    """Returns a hash of what is in a file: a size and a time are kept by some copying programs."""
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except ImageError as error:  # said again when the file is read
        return str(error)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Lets one process at a time prepare, remove and read copies; a killed one lets go."""
    folder = cache_dir() / "datasets"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise DataError(
            f"cannot write to {folder}: {error.strerror}; name another cache in MSA_FLAX_CACHE"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
