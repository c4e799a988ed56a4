"""Files that belong together, written into a folder that appears whole or not at all."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from msa_flax.archive.objects import ArchiveError


def write_together(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Writes a folder of files, and returns whether it was not there before.

    Args:
        folder: the new one.
        files: their bytes by name.

    Raises:
        ArchiveError: the folder is there and holds anything else.
    """
    if folder.exists() or folder.is_symlink():
        if _content(folder) != dict(files):
            raise ArchiveError(
                f"{folder} holds other results for the same images and model; nothing was "
                "overwritten: remove it, or name another folder with --dicom_out"
            )
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with this number
    try:
        temporary.mkdir()
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _content(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    return {one.name: one.read_bytes() if one.is_file() else b"" for one in folder.iterdir()}
