"""Files that belong together, written into a folder that appears whole or not at all."""

from collections.abc import Mapping
from pathlib import Path

from msa_flax.archive.origin import ArchiveError
from msa_flax.files import write_folder


def write_together(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes a folder of files; one that is there and holds just these is left as it is.

    Args:
        folder: the new one.
        files: their bytes by name.

    Raises:
        ArchiveError: the folder is there and holds anything else.
    """
    if folder.exists():
        there = folder.iterdir() if folder.is_dir() else [folder]
        if {one.name: one.read_bytes() for one in there if one.is_file()} == dict(files):
            return
        raise ArchiveError(
            f"{folder} holds other results for the same images and model; nothing was "
            "overwritten: remove it, or name another folder with --dicom_out"
        )
    write_folder(folder, files)
