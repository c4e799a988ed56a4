"""What a watcher writes about its work: a line of JSON for each study, and numbers for Prometheus.

Nothing here names a patient: studies have pseudonyms.
"""

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msa_flax.files import UserError, write_text

_PREFIX = "msa_flax_watch_"
_HELP = {
    "studies": "Studies by state: waiting, predicted (not sent everywhere), done, failed.",
    "unsent": "Results that a destination has not got.",
    "destination_up": "Whether the last attempt to send to a destination reached it.",
    "foreign_files": "Files of the folder that are no CT images of a study.",
    "passed_over": "Links, pipes and unreadable folders, which are passed over.",
    "result_bytes": "Bytes of the results that are kept.",
    "stuck": "Whether nothing is predicted: no room, or too many unsent results.",
    "last_pass_seconds": "When the folder was looked at last, in seconds since 1970.",
    "info": "The model that predicts.",
}


def reason_of(error: Exception) -> str:
    """Returns what went wrong: of errors that are not ours the place alone.

    What another package says of a file may quote the patient's name.
    """
    if isinstance(error, UserError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Adds a line of JSON to a file, unless it is the last one already.

    A line that a kill or a full disk has cut off is taken away first. So what is added again after
    a kill is there once.
    """
    line = json.dumps(values, sort_keys=True).encode() + b"\n"
    path.touch()
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 2**20))
        tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        if not (b"\n" + whole).endswith(b"\n" + line):
            file.truncate(end - len(tail) + len(whole))
            file.seek(0, 2)
            file.write(line)


def write_metrics(path: Path, values: Mapping[str, Mapping[tuple[str, ...], float]]) -> None:
    """Writes numbers in the text format of Prometheus, whole or not at all.

    Args:
        path: for the node exporter's file collector it ends in ".prom".
        values: by name and labels; labels are (name, value, name, value...).
    """
    lines = []
    for name, numbers in values.items():
        lines += [f"# HELP {_PREFIX}{name} {_HELP[name]}", f"# TYPE {_PREFIX}{name} gauge"]
        for labels, number in numbers.items():
            pairs = zip(labels[::2], labels[1::2], strict=True)
            said = ",".join(f'{label}="{_escaped(value)}"' for label, value in pairs)
            lines.append(f"{_PREFIX}{name}{{{said}}} {number:.15g}".replace("{}", ""))
    write_text(path, "\n".join(lines) + "\n")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
