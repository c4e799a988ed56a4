r"""What a number means under each split: as published, families whole, each series held out.

    python experiments/protocols.py --root DIR --out runs [--models msa mobilenet_v2] \
        [--protocols published family grouped] [--groups B10 B11 B12 B13] [--epochs 3]

Claim: what is left of a published accuracy of 99.75 % depends on what may cross the split. This
audits every split, with the shortcut ladder, trains every model on it, each group held out in turn,
and prints one table: what a model reaches, what the best shortcut reaches that never looks at the
anatomy, and what is left. Finished parts are left alone. --models without a name audits only.
--results DIR keeps the small files, from which the table is made again when --root is left out;
--into FILE.md puts it between the lines <!-- protocols --> and <!-- /protocols -->. Everything
takes hours on two cores, the table alone a few seconds.

Obtained (seed 0, 2026-11-27, 2 cores): over all four held-out series MSA-CSpineNet has an accuracy
of 0.556, which is 1.000 as published. README.md has the table.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pages
import sweep
from aggregate import FinishedRun
from command_line import (
    Parser,
    add_pretrained,
    call,
    in_one_line,
    run_command,
    use_pretrained,
)
from protocol import EPOCHS, GROUPS, MODELS, PROTOCOLS, get_config

from msa_flax.config import Config
from msa_flax.files import NOTICE, markdown_table

CONFIG = Path(__file__).with_name("protocol.py")
AUDIT = "audit"  # beside the models' folders
SCORES = ("accuracy", "recall", "specificity", "auc")


def folds(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yields protocol and held-out group of every split asked for."""
    for protocol in options.protocols:
        for group in options.groups if protocol == "grouped" else ("",):
            yield protocol, group


def place(protocol: str, group: str) -> Path:
    """Returns where a split's results are, below a model's folder."""
    return Path(protocol) / f"fold-{group}" if group else Path(protocol)


def train(options: argparse.Namespace) -> dict[str, str]:
    """Audits every split and trains every model on it; returns what failed, and why."""
    loaded: dict[str, Any] = {}
    failed = {}
    for protocol, group in folds(options):
        for model in (AUDIT, *options.models):
            where = Path(model) / place(protocol, group)
            print(f"== protocols/{where}", flush=True)
            folder = options.out / "protocols" / where
            target = options.results / "protocols" / where
            try:
                if model == AUDIT:
                    _audit(next(iter(MODELS)), protocol, group, folder, options)
                    target.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(folder / "audit.json", target / "audit.json")
                else:
                    config = _configuration(model, protocol, group, options)
                    sweep.train_one(folder, config, loaded)
                    sweep.keep(folder, target)
            except Exception as error:  # one split must not keep the others from being trained
                failed[str(where)] = in_one_line(error)
    for model in options.models:
        _pool(options.out / "protocols" / model / "grouped", options.results, model)
    return failed


def _configuration(model: str, protocol: str, group: str, options: argparse.Namespace) -> Config:
    config = get_config(_argument(model, protocol, group))
    config.data.root, config.train.seed = options.root, options.seed
    config.train.epochs = options.epochs
    use_pretrained(config, options.pretrained)
    return config.validate()


def _argument(model: str, protocol: str, group: str) -> str:
    return ",".join(filter(None, (model, protocol, group)))


def _audit(
    model: str, protocol: str, group: str, folder: Path, options: argparse.Namespace
) -> None:
    """Audits a split, with the shortcut ladder, unless that is done."""
    if (folder / "audit.json").exists():
        return
    config = _configuration(model, protocol, group, options)
    run_command(
        *("audit", "--ladder", f"--out={folder}"),
        f"--config={CONFIG}:{_argument(model, protocol, group)}",
        f"--config.data.root={options.root}",
        f"--config.train.seed={options.seed}",
        f"--config.model.pretrained={config.model.pretrained}",
    )


def _pool(folder: Path, results: Path, model: str) -> None:
    """Computes the metrics of all folds' test images together."""
    from msa_flax.evaluation import Predictions, compute_metrics
    from msa_flax.files import write_json

    paths = sorted(folder.glob("fold-*/eval/test/predictions.csv"))
    if len(paths) < 2:
        return
    found = [Predictions.read(path) for path in paths]
    label = np.concatenate([one.label for one in found])
    probability = np.concatenate([one.probability for one in found])
    values = {
        "n": len(label),
        "groups": len(paths),
        **compute_metrics(label, probability, threshold=0.5),
    }
    write_json(results / "protocols" / model / "grouped" / "pooled.json", values)


def table(results: Path) -> str:
    """Returns the table of all splits that have been audited, "" if there are none."""
    head = ["split", "model", "test images", *SCORES, "validation accuracy", "best shortcut, test"]
    head += ["model - shortcut", "permuted labels, validation", "test", "epochs", "weights"]
    rows: list[list[str]] = []
    runs: list[FinishedRun] = []
    for protocol, title in PROTOCOLS.items():
        for path in sorted((results / "protocols" / AUDIT / protocol).rglob("audit.json")):
            ladder = json.loads(path.read_text())["ladder"]
            where = path.parent.relative_to(results / "protocols" / AUDIT)
            group = where.name.removeprefix("fold-") if protocol == "grouped" else ""
            found = {
                model: FinishedRun(results / "protocols" / model / where)
                for model in MODELS
                if (results / "protocols" / model / where / "run.json").exists()
            }
            runs += found.values()
            for model, run in found.items() or [("", None)]:
                name = f"{group} {title}" if group else title
                rows.append([name, *_cells(model, run, ladder)])
        for path in sorted((results / "protocols").glob(f"*/{protocol}/pooled.json")):
            values = json.loads(path.read_text())
            scores = [_number(values["metrics"][name]["value"]) for name in SCORES]
            name = f"all {values['groups']} held out, pooled"
            model = MODELS[path.parent.parent.name][0]
            rows.append([name, model, _images(values), *scores, *[""] * 7])
    return f"{_note(runs)}\n\n{markdown_table(head, rows)}" if rows else ""


def _cells(model: str, run: FinishedRun | None, ladder: list[dict[str, Any]]) -> list[str]:
    """Returns a row's cells but the first, the model's "not run here" if there is no run."""
    from msa_flax.auditing import shortcuts

    best = shortcuts.best_shortcut(ladder, "test")
    permuted = next((rung for rung in ladder if rung["rung"] == shortcuts.PERMUTED), {})
    shown = [f"{best.name}: {best.accuracy:.3f}" if best else ""]
    shuffled = [_number(permuted.get(s, {}).get("accuracy")) for s in ("validation", "test")]
    if run is None:
        return ["not run here", *[""] * 6, *shown, "", *shuffled, "", ""]
    test, held = run.splits["test"], run.splits["validation"]["metrics"]["accuracy"]["value"]
    scores = [test["metrics"][name]["value"] for name in SCORES]
    gain = f"{best.gain(scores[0]):+.3f}" if best else ""
    return [
        *(MODELS[model][0], _images(test), *map(_number, scores), _number(held)),
        *(*shown, gain, *shuffled, str(run.epochs), run.weights),
    ]


def _note(runs: list[FinishedRun]) -> str:
    what = (
        "Shortcuts are fitted on the same training split; the best one is that of the highest test "
        f"accuracy. {NOTICE}"
    )
    if not runs:
        return what
    days = sorted({run.run["date"][:10] for run in runs})
    machines = dict.fromkeys(run.run["machine"] for run in runs)
    seeds = sorted({str(run.config.train.seed) for run in runs})
    return (
        f"Seed {', '.join(seeds)}; {days[0]} to {days[-1]}, {'; '.join(machines)}. Models: the "
        f"epoch of lowest validation loss. {what}"
    )


def _images(values: dict[str, Any]) -> str:
    counts = values["confusion"]
    return f"{counts['tn'] + counts['fp']} + {counts['tp'] + counts['fn']}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, or only makes the table; the exit code is 1 if something failed."""
    parser = Parser(__doc__)
    parser.add_argument("--root", default="", help="the folder that holds train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the workdirs")
    parser.add_argument("--results", type=Path, help="folder for every run's small files")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), help="to hold out, in turn")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    add_pretrained(parser)
    parser.add_argument("--into", type=Path, help="a markdown file with marker lines")
    options = parser.parse_args(arguments)
    options.results = options.results or options.out / "results"
    failed = train(options) if options.root else {}
    named = {f"protocols/{name}": reason for name, reason in failed.items()}
    return pages.show(options, "protocols", table(options.results), named)


if __name__ == "__main__":
    sys.exit(call(main))
