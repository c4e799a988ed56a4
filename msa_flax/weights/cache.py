"""The published ImageNet weights: where they are kept, fetched once, known by what they hold.

A file is accepted for the hash of its tensors where that is known, so that a re-saved copy is as
good as the download; else for the hash of the file, where Keras publishes one. For MobileNetV2
there is neither: any Keras weights file of the right name is accepted, and loading, which is
strict, says whether it fits.
"""

import functools
import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

from msa_flax.files import cache_dir
from msa_flax.weights.keras_file import WeightsError, read, tensors_hash

URL = "https://storage.googleapis.com/"  # Keras' own
TIMEOUT = 60  # seconds without an answer


class Published(NamedTuple):
    """A file that Keras publishes, and how it is recognised.

    Attributes:
        remote: its path below ``URL``.
        tensors: ``tensors_hash`` of what it holds; "" if it is not known.
        file: MD5 or SHA-256 of its bytes, as Keras's source has it; "" if Keras gives none. Needed
            only where ``tensors`` is not known.
    """

    remote: str
    tensors: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """The file's name, here and there."""
        return self.remote.rpartition("/")[-1]

    @property
    def known_by(self) -> str:
        """What is compared: "bytes" or "tensors"."""
        return "bytes" if self.file and not self.tensors else "tensors"

    def is_at(self, path: Path) -> bool:
        """Whether a file is the published one, as far as that is known.

        Raises:
            WeightsError: it cannot be read, or is no Keras weights file.
        """
        if self.known_by == "tensors":
            found = tensors_hash(read(path))
            return found == (self.tensors or found)
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, _md5 if len(self.file) == 32 else "sha256")
        except OSError as error:
            raise WeightsError(f"{path}: the file cannot be read ({error})") from error
        return digest.hexdigest() == self.file


# Keras guards against accidents with it, nothing more.
_md5 = functools.partial(hashlib.md5, usedforsecurity=False)

_KERAS = "tensorflow/keras-applications"

# (backbone, width multiplier, with the 1000-class layer)
KNOWN: dict[tuple[str, float, bool], Published] = {
    ("mobilenet_v1", 1.0, False): Published(
        f"{_KERAS}/mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        tensors="5ce2dffbe3268af3673750bbc23bf38e6574be0b839491969c4843741d040344",
    ),
    ("mobilenet_v1", 1.0, True): Published(
        f"{_KERAS}/mobilenet/mobilenet_1_0_224_tf.h5",
        tensors="8fdb947688f6664755b04db0c341dcaa9b88aa1244b84d928fff849fe91e2ac3",
    ),
    ("mobilenet_v2", 1.0, False): Published(
        f"{_KERAS}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    ),
    ("resnet50", 1.0, False): Published(
        f"{_KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        file="4d473c1dd8becc155b73f8504c6f6626",
    ),
    ("efficientnet_b0", 1.0, False): Published(
        "keras-applications/efficientnetb0_notop.h5",
        file="50bc09e76180e00e4465e1a485ddc09d",
    ),
    ("convnext_tiny", 1.0, False): Published(
        f"{_KERAS}/convnext/convnext_tiny_notop.h5",
        file="d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    ),
}


def imagenet_path(backbone: str, *, alpha: float, include_top: bool = False) -> Path:
    """Returns the file of a backbone's published ImageNet weights, downloading it if it is absent.

    Args:
        backbone: a name in ``msa_flax.models.MODELS``.
        alpha: width multiplier.
        include_top: with the 1000-class layer.

    Raises:
        WeightsError: no known weights, no connection, or a file that is not the published one;
            one sentence. A file that is already there is never changed.
    """
    try:
        published = KNOWN[backbone, alpha, include_top]
    except KeyError:
        raise WeightsError(
            f"no published ImageNet weights are known for {backbone} with alpha {alpha:g}"
            f"{' and its top' if include_top else ''}; give the path of a Keras weights file, or "
            "'none' to start from random values"
        ) from None
    path = cache_dir() / published.name
    if not path.exists():
        _download(published, path)
    elif not published.is_at(path):
        raise WeightsError(
            f"{path}: these are not the {published.known_by} of Keras' {path.name}; move the file "
            "away to download it again, or give its path to use it as it is"
        )
    return path


def _download(published: Published, path: Path) -> None:
    url, partial = URL + published.remote, None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            partial = Path(file.name)
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                shutil.copyfileobj(response, file)
        if not published.is_at(partial):
            raise WeightsError(
                f"{url} did not deliver the published {published.known_by}; nothing was kept"
            )
        os.replace(partial, path)
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"could not put {url} at {path} ({error}); download it elsewhere and put it there, "
            "or give the path of a Keras weights file"
        ) from error
    finally:
        if partial:
            partial.unlink(missing_ok=True)
