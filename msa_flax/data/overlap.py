"""Whether images that a run is evaluated on were among those that it was trained or chosen on."""

import dataclasses
import os

import numpy as np

from msa_flax.config import DataConfig
from msa_flax.data import load, load_external
from msa_flax.data.examples import DataError, Examples
from msa_flax.data.searched import search
from msa_flax.data.splits import Splits


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What of a set of images was known to a run before.

    Attributes:
        images: number of images in the set.
        exact: images that are equal, pixel for pixel, to one of training or validation.
        copies: images that are equal or, by a search, copies.
        relabelled: images that are equal, pixel for pixel, to images of the run, test images among
            them, that all have the other label.
    """

    images: int
    exact: int
    copies: int
    relabelled: int

    @property
    def stamps(self) -> list[str]:
        """What must be said beside every number of the set; nothing if nothing was known."""
        known = (
            f"{self.copies} of {self.images} images are training or validation images of this run "
            f"or copies of them ({self.exact} pixel for pixel)"
        )
        other = (
            f"{self.relabelled} of {self.images} images are images of this run, pixel for pixel, "
            "with the other label; are the classes swapped?"
        )
        return [known] * bool(self.copies) + [other] * bool(self.relabelled)


def find_overlap(
    root: str | os.PathLike[str],
    external: Examples,
    known: Examples,
    splits: Splits,
    config: DataConfig,
) -> Overlap:
    """Compares an external set with the training and validation images of a run, by pixels.

    Equal pixels are found by their hashes, copies by the search of
    :mod:`msa_flax.data.families`; its result is kept in the cache folder.

    Args:
        root: the folder of the external set.
        external: its images, from :func:`msa_flax.data.load_external`.
        known: all images of the run.
        splits: which of them were trained on; test images of the run count as unknown.
        config: of the run's data.

    Raises:
        DataError: the images changed while they were compared.
    """
    tables = [known.fingerprint, external.fingerprint]
    found = search(
        tables,
        len(known) + len(external),
        lambda: [
            load(config, for_search=True).images,
            load_external(root, config, for_search=True).images,
        ],
    )
    used = np.isin(splits.split, ["train", "validation"])
    if len(used) != len(known):
        raise DataError(f"expected a split for each of {len(known)} images, got {len(used)}")
    exact, copies = (
        np.isin(column[len(known) :], column[: len(known)][used])
        for column in (found.equal, found.family)
    )
    said = set(zip(found.equal[: len(known)].tolist(), known.label.tolist(), strict=True))
    here = zip(found.equal[len(known) :].tolist(), external.label.tolist(), strict=True)
    relabelled = [(at, 1 - label) in said and (at, label) not in said for at, label in here]
    return Overlap(
        images=len(external),
        exact=int(exact.sum()),
        copies=int((exact | copies).sum()),
        relabelled=sum(relabelled),
    )
