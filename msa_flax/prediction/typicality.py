"""What the training images of a run look like, and whether another image looks like them.

An image is described by what the network makes of it, the means of its feature maps, and by two
things that the network may ignore: the layout of its grey values, which a slice upside down does
not share, and how frequent they are. Each of the three is standardised and reduced to its principal
components on the training images; the distance from their mean is Mahalanobis's, with the
covariance of Ledoit and Wolf (2004). Nothing of a single training image is kept.

Descriptors, numbers of components and the limit were chosen on the quickstart's phantom (2,880
slices, split by patient, seed 0, 2026-11-29) while looking at the rates that follow, which are
therefore optimistic: 1.2 % of the test slices lie beyond the limit, and of 28 natural photographs,
noise, and inverted slices all do, of slices upside down 149 in 150. With the feature maps alone it
was 32 % of the photographs and 3 % of the slices upside down; with the five nearest neighbours
instead of the covariance the flagged share was the same, and every training image would have to be
kept.
"""

import dataclasses
import hashlib
import io
import logging
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from msa_flax.data.examples import Examples
from msa_flax.files import UserError, write_atomically

log = logging.getLogger("msa_flax")

_CELLS = 8  # a side, of the layout of grey values
_LEVELS = 16  # ranges of grey values whose frequencies are counted
_COMPONENTS = (16, 48, 12)  # of features, layout and frequencies; chosen by the measurement above
_MOST = 4000  # images of a split that are looked at, evenly spaced
TYPICAL = 0.99  # share of the validation images within the limit, every group counting the same

Describe = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class TypicalityError(UserError):
    """What the training images look like is not known for this checkpoint."""


def look(image: np.ndarray) -> np.ndarray:
    """Returns layout and frequencies of grey values, float32 [80].

    The layout is that of the image after histogram equalisation: so it is the same in any window.

    Args:
        image: uint8 [s, s], as the network is given it.
    """
    even = cv2.resize(cv2.equalizeHist(image), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    count = cv2.calcHist([image], [0], None, [_LEVELS], [0, 256]).ravel().astype(np.float64)
    return np.concatenate([even.ravel() / 255, np.sqrt(count / image.size)]).astype(np.float32)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Typicality:
    """The training images of a checkpoint as a distribution, and how far from it is too far.

    Attributes:
        belongs_to: the checkpoint and the data that it was measured with.
        images: how many images the training split has.
        groups: from how many groups they are; 0 where groups are unknown.
        centre: float32 [d], the mean of the c pooled features and of the 80 numbers of a look.
        axes: float32 [d, m]; the squared distance is that of (x - centre) @ axes from 0.
        limit: images with a larger squared distance are unlike the training images.
    """

    belongs_to: str
    images: int
    groups: int
    centre: np.ndarray
    axes: np.ndarray
    limit: float

    def distance(self, pooled: np.ndarray, looks: np.ndarray) -> np.ndarray:
        """Returns squared distances from the training images, float32 [n].

        Args:
            pooled: float32 [n, c], the means of the feature maps.
            looks: float32 [n, 80], from :func:`look`.
        """
        away = np.concatenate([pooled, looks], axis=1) - self.centre
        # Not by BLAS, whose threads would go on spinning beside those of the network.
        along = np.einsum("nd,dm->nm", away, self.axes)
        distance: np.ndarray = np.square(along).sum(axis=1)
        return distance

    @property
    def digest(self) -> str:
        """SHA-256 of everything, so that a file which was changed or damaged is not believed."""
        values = [np.asarray(value) for value in dataclasses.asdict(self).values()]
        said = [f"{value.dtype} {value.shape} ".encode() + value.tobytes() for value in values]
        return hashlib.sha256(b"".join(said)).hexdigest()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes an ``.npz`` file without pickles, whole or not at all."""
        buffer = io.BytesIO()
        np.savez(buffer, sha256=self.digest, **dataclasses.asdict(self))
        write_atomically(path, buffer.getvalue())


def read(path: pathlib.Path, belongs_to: str) -> Typicality | None:
    """Returns what :meth:`Typicality.write` wrote for a checkpoint, None where there is none."""
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            values = {name: file[name] for name in file.files}
            plain = {name: x.item() if not x.ndim else x for name, x in values.items()}
            digest = plain.pop("sha256", "")
            found = Typicality(**plain)
        if digest != found.digest:
            raise ValueError("it is not as it was written")
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        log.warning("%s cannot be read and is made again: %s", path, error)
        return None
    return found if found.belongs_to == belongs_to else None


def kept(
    path: pathlib.Path,
    describe: Describe,
    splits: Callable[[], Sequence[Examples]],
    belongs_to: str,
) -> Typicality | None:
    """Returns what is stored in a file; where it is not, it is measured and stored.

    None, with a warning, where the images cannot be read.

    Args:
        path: the file.
        describe: see :func:`measure`.
        splits: returns the training and the validation images.
        belongs_to: the checkpoint and the data.
    """
    found = read(path, belongs_to)
    if found:
        return found
    log.info("measuring what the training images look like")
    try:
        training, validation = splits()
        found = measure(describe, training, validation, belongs_to)
        found.write(path)
    except UserError as error:
        log.warning("new images are not compared with the training images: %s", error)
    return found


def measure(
    describe: Describe, training: Examples, validation: Examples, belongs_to: str
) -> Typicality:
    """Returns what training images look like; the limit is set on the validation images.

    Args:
        describe: images uint8 [n, s, s] to (logits [n], pooled features float32 [n, c]).
        training: at most 4,000 of them, evenly spaced, are looked at.
        validation: likewise.
        belongs_to: the checkpoint and the data.

    Raises:
        TypicalityError: there are fewer than two training images, or no validation image.
    """
    if len(training) < 2 or not len(validation):
        raise TypicalityError(
            "what training images look like: expected two or more of them and a validation image, "
            f"got {len(training)} and {len(validation)}"
        )
    known, held_out = _some(training), _some(validation)
    centre, axes = _fit(*_described(describe, known))
    found = Typicality(
        images=len(training),
        groups=len(set(training.group.tolist())) if training.groups_known else 0,
        centre=centre,
        axes=axes,
        limit=np.inf,
        belongs_to=belongs_to,
    )
    distance = found.distance(*_described(describe, held_out))
    return dataclasses.replace(found, limit=_limit(distance, held_out.group))


def _some(examples: Examples) -> Examples:
    if len(examples) <= _MOST:
        return examples
    return examples.take(np.linspace(0, len(examples) - 1, _MOST).round().astype(np.intp))


def _described(describe: Describe, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    pooled = describe(examples.images)[1]
    if not np.isfinite(pooled).all():
        raise TypicalityError("the network's features are not finite; train it anew")
    return pooled, np.stack([look(image) for image in examples.images])


def _fit(pooled: np.ndarray, looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns centre and axes; see :class:`Typicality`."""
    from scipy.linalg import block_diag
    from sklearn.covariance import LedoitWolf
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    layout, frequencies = np.split(looks, [_CELLS**2], axis=1)
    centres, whitening = [], []
    for values, most in zip((pooled, layout, frequencies), _COMPONENTS, strict=True):
        scaler = StandardScaler().fit(values.astype(np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):  # of values that are all the same
            found = PCA(svd_solver="full").fit(scaler.transform(values))
        variance = found.explained_variance_
        rank = int(np.sum(variance > 1e-6 * max(variance[0], 1e-12)))
        kept = max(1, min(most, rank, len(values) - 1))
        spread = np.sqrt(np.maximum(variance[:kept], 1e-12))
        centres.append(scaler.mean_)
        whitening.append((found.components_[:kept] / spread[:, None] / scaler.scale_).T)
    centre, white = np.concatenate(centres), block_diag(*whitening)
    precision = LedoitWolf(assume_centered=True).fit(
        (np.concatenate([pooled, looks], axis=1) - centre) @ white
    )
    axes = white @ np.linalg.cholesky(precision.precision_)
    return centre.astype(np.float32), axes.astype(np.float32)


def _limit(distance: np.ndarray, group: np.ndarray) -> float:
    """Returns the distance that the share :data:`TYPICAL` lies within, groups counting the same."""
    known = np.where(group == "", np.arange(len(group)).astype(np.str_), group)
    _, member, size = np.unique(known, return_inverse=True, return_counts=True)
    weight, order = 1 / size[member], np.argsort(distance)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(distance[order][np.searchsorted(share, TYPICAL)])
