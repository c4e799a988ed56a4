"""Challenges of a few slices that are prepared, and the bytes of everything in a folder."""

import os

from challenge_folder import HEAD, STUDIES, write_challenge, write_table

from msa_flax.config import DataConfig
from msa_flax.preparation.tasks import write_study


def in_this_process(tasks):
    """An engine without other processes, whose start takes seconds."""
    for task in tasks:
        write_study(task)


def config(root, **changes):
    return DataConfig(source="rsna2022", protocol="kfold", root=str(root), **changes)


def write_archive(root, *, studies=0, slices=6):
    """Writes the three studies of the challenge, and more without a fracture, of linked files."""
    root.mkdir()
    write_challenge(root)
    source = root / "train_images" / "1.2.4" / "11.dcm"
    names = [f"1.3.{number}" for number in range(studies)]
    for name in names:
        folder = root / "train_images" / name
        folder.mkdir()
        for number in range(slices):
            os.link(source, folder / f"{number}.dcm")
    write_table(root / "train.csv", HEAD, [*STUDIES, *([name, *[0] * 8] for name in names)])
    return root


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
