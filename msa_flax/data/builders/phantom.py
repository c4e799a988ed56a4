"""TFDS builder of the synthetic cervical-CT phantom: one split, slices in order."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from msa_flax.config import DataConfig
from msa_flax.data import phantom
from msa_flax.data.builders.schema import Builder, features, image, png


@dataclasses.dataclass
class PhantomConfig(tfds.core.BuilderConfig):
    """How many patients, and which; ``name`` says all of it, such as "p160_s0"."""

    patients: int = 160
    seed: int = 0
    confounded: bool = False  # see msa_flax.data.phantom.draw_slice


class Phantom(Builder):
    """Simulated patients of eight slices each, with the fracture's mask; nothing is downloaded."""

    VERSION = tfds.core.Version("1.0.0")  # raise it when a drawing changes: copies are kept

    def __init__(
        self, *, patients: int = 160, seed: int = 0, confounded: bool = False, **kwargs: Any
    ) -> None:
        """Builds the builder; nothing is drawn yet.

        Args:
            patients: number of simulated patients.
            seed: the data set's seed, 0 .. 2**32 - 1.
            confounded: True ties the label to the level.
            kwargs: of ``tfds.core.GeneratorBasedBuilder``, such as ``data_dir``.
        """
        name = f"p{patients}_s{seed}" + "_confounded" * confounded
        config = PhantomConfig(name=name, patients=patients, seed=seed, confounded=confounded)
        super().__init__(**{"config": config} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, features=features(mask=image()), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {"slices": self._generate_examples()}  # TFDS reserves "all": it means every split

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        options, count = self.builder_config, 0
        for patient in range(options.patients):
            for one in phantom.draw_patient(options.seed, patient, confounded=options.confounded):
                yield count, _example(one)
                count += 1


def builder(config: DataConfig, *, data_dir: pathlib.Path) -> Phantom:
    """Returns the builder for a configuration; nothing is drawn or written.

    Args:
        config: ``phantom_patients`` and ``phantom_seed`` are used.
        data_dir: where prepared copies are kept.
    """
    return Phantom(patients=config.phantom_patients, seed=config.phantom_seed, data_dir=data_dir)


def _example(one: phantom.PhantomSlice) -> dict[str, Any]:
    example_id = f"phantom/{one.patient}/{one.slice_index:02d}"
    return {
        "image": png(one.image),
        "mask": png(one.mask),
        "label": one.label,
        "example_id": example_id,
        "group": one.patient,
        "family": example_id,  # every slice is its own source: there are no copies
        "slice_index": one.slice_index,
        "height": one.image.shape[0],
        "width": one.image.shape[1],
    }
