"""What a watcher writes about its work: a line of JSON for each study, and numbers for Prometheus.

Nothing here names a patient: studies have pseudonyms.
"""

import json
import os
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msa_flax.files import UserError, write_text

_PREFIX = "msa_flax_watch_"
_HELP = {
    "studies": "Studies by state: waiting, predicted (not sent everywhere), done, failed.",
    "unsent": "Results that a destination has not got.",
    "destination_up": "Whether the last attempt to send to a destination reached it.",
    "passed_over": "Things in the folder that are no CT images of a study, links among them.",
    "result_bytes": "Bytes of the results that are kept.",
    "stuck": "Whether nothing is predicted: no room, or too many unsent results.",
    "last_pass_seconds": "When the folder was looked at last, in seconds since 1970.",
}
Sample = tuple[str, Mapping[str, str], float]  # name, labels, number


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
    with path.open("a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2**20))
        tail = file.read()
        file.truncate(file.tell() - len(tail) + tail.rfind(b"\n") + 1)
        if not (b"\n" + tail).endswith(b"\n" + line):
            file.write(line)


def write_metrics(path: Path, samples: Iterable[Sample]) -> None:
    """Writes numbers in the text format of Prometheus, whole or not at all.

    Args:
        path: for the node exporter's file collector it ends in ".prom".
        samples: in any order.
    """
    lines, known = [], ""
    for name, labels, number in sorted(samples, key=lambda one: one[0]):
        if name != known:
            known = name
            lines += [f"# HELP {_PREFIX}{name} {_HELP[name]}", f"# TYPE {_PREFIX}{name} gauge"]
        pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
        lines.append(f"{_PREFIX}{name}{f'{{{pairs}}}' * bool(pairs)} {float(number):.15g}")
    write_text(path, "\n".join(lines) + "\n")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
