"""The published ImageNet weights: where they are kept, fetched once, known by their tensors.

A file is accepted for the hash of its tensors, so a re-saved copy is as good as the download.
"""

import http.client
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path

from msa_flax.weights.keras_file import WeightsError, read, tensors_hash

URL = "https://storage.googleapis.com/tensorflow/keras-applications/"  # Keras' own
TIMEOUT = 60  # seconds without an answer

# (backbone, width multiplier, with the 1000-class layer): (path below URL, tensors_hash).
KNOWN: dict[tuple[str, float, bool], tuple[str, str]] = {
    ("mobilenet_v1", 1.0, False): (
        "mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        "5ce2dffbe3268af3673750bbc23bf38e6574be0b839491969c4843741d040344",
    ),
    ("mobilenet_v1", 1.0, True): (
        "mobilenet/mobilenet_1_0_224_tf.h5",
        "8fdb947688f6664755b04db0c341dcaa9b88aa1244b84d928fff849fe91e2ac3",
    ),
}


def cache_dir() -> Path:
    """Returns the folder of downloaded weights; it need not exist.

    ``MSA_FLAX_CACHE``, or else ``msa_flax`` in ``XDG_CACHE_HOME``, or else ``~/.cache/msa_flax``.
    """
    own = os.environ.get("MSA_FLAX_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification: a relative path is invalid and to be ignored.
    base = Path(shared) if shared and Path(shared).is_absolute() else Path.home() / ".cache"
    return base / "msa_flax"


def imagenet_path(backbone: str, *, alpha: float, include_top: bool = False) -> Path:
    """Returns the file of a backbone's published ImageNet weights, downloading it if it is absent.

    Args:
        backbone: a name in ``msa_flax.models.BACKBONES``.
        alpha: width multiplier.
        include_top: with the 1000-class layer.

    Raises:
        WeightsError: no known weights, no connection, or tensors that are not the published ones;
            one sentence. A file that is already there is never changed.
    """
    try:
        remote, expected = KNOWN[backbone, alpha, include_top]
    except KeyError:
        raise WeightsError(
            f"no published ImageNet weights are known for {backbone} with alpha {alpha:g}; give "
            "the path of a Keras weights file, or 'none' to start from random values"
        ) from None
    path = cache_dir() / Path(remote).name
    if not path.exists():
        _download(URL + remote, path, expected)
    elif tensors_hash(read(path)) != expected:
        raise WeightsError(
            f"{path}: these are not the tensors of Keras' {path.name}; move the file away "
            "to download it again, or give its path to use it as it is"
        )
    return path


def _download(url: str, path: Path, expected: str) -> None:
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            partial = Path(file.name)
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                shutil.copyfileobj(response, file)
        if tensors_hash(read(partial)) != expected:
            raise WeightsError(f"{url} did not deliver the published tensors; nothing was kept")
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"could not put {url} at {path} ({error}); download it elsewhere and put it there, "
            "or give the path of a Keras weights file"
        ) from error
    finally:
        if partial:
            partial.unlink(missing_ok=True)
