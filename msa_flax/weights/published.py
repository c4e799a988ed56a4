"""The ImageNet weights that Keras publishes: downloaded once, checked, kept in the cache folder.

A file is recognised by the hash of its tensors where that is known, so that a copy that was saved
again is as good as the download; otherwise by the hash of the file, where Keras states one. For
MobileNetV2 there is neither: any Keras weights file with the right name is accepted, and loading,
which is strict, shows whether it fits.
"""

import functools
import hashlib
import http.client
import shutil
import urllib.request
from pathlib import Path
from typing import NamedTuple

from msa_flax.files import cache_dir, written_whole
from msa_flax.weights.keras_file import WeightsError, read, tensors_hash
from msa_flax.weights.load import WeightsReport

URL = "https://storage.googleapis.com/"  # where Keras keeps them
TIMEOUT = 60  # seconds without an answer


class PublishedFile(NamedTuple):
    """A file that Keras publishes, and how to recognise it.

    Attributes:
        remote: its path below ``URL``.
        tensors: ``tensors_hash`` of its content; "" if that is not known.
        file: MD5 or SHA-256 of its bytes as the source code of Keras states it; "" if it states
            none. Needed only where ``tensors`` is not known.
    """

    remote: str
    tensors: str = ""
    file: str = ""

    @property
    def name(self) -> str:
        """The name of the file, on the server and in the cache folder."""
        return self.remote.rpartition("/")[-1]

    @property
    def known_by(self) -> str:
        """What is compared: "bytes" or "tensors"."""
        return "bytes" if self.file and not self.tensors else "tensors"

    def is_at(self, path: Path) -> bool:
        """Returns whether a file is the published one, as far as that is known.

        Raises:
            WeightsError: it cannot be read, or is not a Keras weights file.
        """
        if self.known_by == "tensors":
            found = tensors_hash(read(path))
            return found == (self.tensors or found)
        md5 = functools.partial(hashlib.md5, usedforsecurity=False)  # Keras means accidents
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, md5 if len(self.file) == 32 else "sha256")
        except OSError as error:
            raise WeightsError(f"{path}: the file cannot be read ({error})") from error
        return digest.hexdigest() == self.file


_KERAS = "tensorflow/keras-applications"

# backbone -> its file without the 1,000-class top, at width multiplier 1
PUBLISHED = {
    "mobilenet_v1": PublishedFile(
        f"{_KERAS}/mobilenet/mobilenet_1_0_224_tf_no_top.h5",
        tensors="5ce2dffbe3268af3673750bbc23bf38e6574be0b839491969c4843741d040344",
    ),
    "mobilenet_v2": PublishedFile(
        f"{_KERAS}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    ),
    "resnet50": PublishedFile(
        f"{_KERAS}/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        file="4d473c1dd8becc155b73f8504c6f6626",
    ),
    "efficientnet_b0": PublishedFile(
        "keras-applications/efficientnetb0_notop.h5",
        file="50bc09e76180e00e4465e1a485ddc09d",
    ),
    "convnext_tiny": PublishedFile(
        f"{_KERAS}/convnext/convnext_tiny_notop.h5",
        file="d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    ),
}


def imagenet_path(backbone: str, *, alpha: float) -> Path:
    """Returns the file with the published ImageNet weights; downloads it if it is not there.

    Args:
        backbone: a name in ``msa_flax.models.MODELS``.
        alpha: width multiplier.

    Raises:
        WeightsError: there are no known weights, there is no connection, or a file is not the
            published one. A file that is already there is never changed.
    """
    if backbone not in PUBLISHED or alpha != 1:
        raise WeightsError(
            f"no published ImageNet weights are known for {backbone} with alpha {alpha:g}; give "
            "the path of a Keras weights file, or 'none' to start from random values"
        )
    published = PUBLISHED[backbone]
    path = cache_dir() / published.name
    if not path.exists():
        _download(published, path)
    elif not published.is_at(path):
        raise WeightsError(
            f"{path}: these are not the {published.known_by} of Keras' {path.name}; move the file "
            "away to download it again, or give its path to use it as it is"
        )
    return path


def not_as_published(path: Path, report: WeightsReport, backbone: str, *, alpha: float) -> str:
    """Says that a file is not the published one, whose tensors it has by name and shape.

    Args:
        path: a file that was named, and whose tensors were loaded.
        report: of loading it.
        backbone: a name in ``msa_flax.models.MODELS``.
        alpha: width multiplier.

    Returns:
        "" where it is the published one, or where that cannot be told.
    """
    published = PUBLISHED.get(backbone) if alpha == 1 else None
    if published is None:
        return ""
    if published.tensors:
        same, how = report.loaded_hash == published.tensors, "its numbers are others"
    elif published.file and not report.ignored:
        same, how = published.is_at(path), "it was saved again, or its numbers are others"
    else:
        return ""
    if same:
        return ""
    return (
        f"{path.name} has the tensors of Keras' {published.name} but is not that published file: "
        f"{how}; sha256 of its tensors {report.loaded_hash}"
    )


def _download(published: PublishedFile, path: Path) -> None:
    url = URL + published.remote
    try:
        with written_whole(path) as partial:
            with (
                urllib.request.urlopen(url, timeout=TIMEOUT) as response,
                partial.open("wb") as file,
            ):
                shutil.copyfileobj(response, file)
            if not published.is_at(partial):
                raise WeightsError(
                    f"{url} did not deliver the published {published.known_by}; nothing was kept"
                )
    except (OSError, http.client.HTTPException) as error:
        raise WeightsError(
            f"could not put {url} at {path} ({error}); download it elsewhere and put it there, "
            "or give the path of a Keras weights file"
        ) from error
