"""The tables of saliency.md, from what ``explain --faithfulness`` has written.

    python experiments/saliency_tables.py runs/quickstart/eval/test/explanations/faithfulness.json \
        --name phantom --into experiments/saliency.md

One line per method: its scores and, in the three measures that decide, its difference to the prior
of the centre with the interval. Without --into the table is printed. It takes seconds.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pages
from command_line import Parser, call

from msa_flax.files import markdown_table
from msa_flax.saliency import CONTROLS, TITLES

DECIDE = ("deletion (logit)", "insertion (logit)", "ROAD (logit)")
PRIOR = "centre_prior"
REFERENCES = (*CONTROLS, "random_pixels")  # as faithfulness.json calls the controls


def table(found: Mapping[str, Any]) -> str:
    """Returns all tables of a ``faithfulness.json`` as one, in Markdown; controls stand once."""
    rows = [row for part in found["tables"] for row in part["rows"]]
    better = {row["measure"]: row["better"] for row in rows}
    beside = [name for name in better if name not in DECIDE and "probability" not in name]
    measures = [*DECIDE, *beside]
    arrows = [
        f"{name.removesuffix(' (logit)')} {'↑' if better[name] == 'higher' else '↓'}"
        for name in measures
    ]
    head = ["method", "n", "verdict", *arrows, "random weights"]
    lines, done = [], set()
    for part in found["tables"]:
        for method in dict.fromkeys(row["method"] for row in part["rows"]):
            if method in done:
                continue
            done.add(method)
            own = [row for row in part["rows"] if row["method"] == method]
            cells = [_cell([r for r in own if r["measure"] == name], name) for name in measures]
            alike = part["random_weights"].get(method)
            about = [_name(method), str(own[0]["images"]), own[0]["verdict"]]
            lines.append([*about, *cells, "" if alike is None else f"{alike:.2f}"])
    return markdown_table(head, lines)


def _name(method: str) -> str:
    if method in REFERENCES:
        return method.replace("_", " ")
    return TITLES.get(method, method.replace("_", " "))


def _cell(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    """Returns a score, with n where it is not of all images, or with its gain over the prior."""
    if not rows:
        return ""
    first = rows[0]
    if not first["n"]:
        return "not measured"
    if measure not in DECIDE:
        few = "" if first["n"] == first["images"] else f" (n {first['n']})"
        return f"{first['score']:.3f}{few}"
    over = [row for row in rows if row["reference"] == PRIOR and row["method"] not in REFERENCES]
    gains = [f"; {r['value']:+.3f} [{_end(r['low'])}, {_end(r['high'])}]" for r in over]
    return f"{first['score']:.3f}{''.join(gains)}"


def _end(value: float | None) -> str:
    return "undefined" if value is None else f"{value:+.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, or writes it into a file."""
    parser = Parser(__doc__)
    parser.add_argument("file", type=Path, help="a faithfulness.json")
    parser.add_argument("--name", default="phantom", help="of the marker lines")
    parser.add_argument("--into", type=Path, help="a markdown file with marker lines")
    options = parser.parse_args(arguments)
    text = table(json.loads(options.file.read_text()))
    pages.print_or_write(options.into, options.name, text)
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
