"""Plain paths for libraries that read meaning into the letters of a path.

Orbax, TensorStore and TensorFlow take ``[``, ``*``, ``?`` or a backslash for a pattern, and under
``LANG=C`` cannot say a letter that is not ASCII. They are given another path to the same folder.
"""

import contextlib
import os
import re
import shutil
import tempfile
import weakref
from pathlib import Path

_PLAIN = re.compile(r"[A-Za-z0-9_/.+=,@ -]+")
_PREFIX = "msa_flax-path-"


class PlainPath:
    """Another path to a folder, of plain letters only; the folder's own where that is plain.

    It is a link in a private temporary folder, which goes when this object does. What a killed
    program has left there is removed by the next one.

    Attributes:
        path: absolute; valid for as long as this object exists.
    """

    def __init__(self, folder: Path) -> None:
        self.path = Path(os.path.abspath(folder))
        if _PLAIN.fullmatch(str(self.path)):
            return
        base = tempfile.gettempdir()
        base = base if _PLAIN.fullmatch(base) else "/tmp"
        _remove_stale(Path(base))
        private = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base)
        weakref.finalize(self, shutil.rmtree, private, ignore_errors=True)
        link = Path(private) / "folder"
        link.symlink_to(self.path, target_is_directory=True)
        self.path = link


def is_running(process: int) -> bool:
    """Returns whether a process of this number exists on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it is somebody else's
    return True


def _remove_stale(base: Path) -> None:
    for left in base.glob(f"{_PREFIX}*"):
        number = left.name.removeprefix(_PREFIX).partition("-")[0]
        if number.isdecimal() and not is_running(int(number)):
            with contextlib.suppress(OSError):
                shutil.rmtree(left)
