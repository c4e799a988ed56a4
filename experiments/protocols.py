r"""What a number means under each split: as published, families whole, each series held out.

    python experiments/protocols.py --root DIR --out runs [--models msa mobilenet_v2] \
        [--protocols published family grouped] [--groups B10 B11 B12 B13] [--epochs 3]

trains every model under every protocol, each group held out in turn, audits every split with the
shortcut ladder, and prints one table: what the model reaches, what the best shortcut reaches that
never looks at the anatomy, and what is left. What is finished is left alone. --results DIR keeps
the small files, from which the table is made again when --root is left out; --into FILE.md puts it
between the lines <!-- protocols --> and <!-- /protocols -->.

    python -m msa_flax.train --workdir W --config=experiments/protocols.py:msa,grouped,B12 \
        --config.data.root=DIR

trains one of them.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aggregate
import numpy as np
import sweep

from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig

MODELS = {
    "msa": ("MSA-CSpineNet", ModelConfig()),
    "mobilenet_v2": ("MobileNetV2", ModelConfig(backbone="mobilenet_v2", attention="none")),
}
PROTOCOLS = {
    "published": "as published",
    "family": "families whole",
    "grouped": "held out",
}
GROUPS = ("B10", "B11", "B12", "B13")
EPOCHS = 3  # enough for the published test split, which is solved after the first one
SCORES = ("accuracy", "recall", "specificity", "auc")


def get_config(arg: str = "msa,published") -> Config:
    """Returns the experiment "MODEL,PROTOCOL", or "MODEL,grouped,GROUP"."""
    model, protocol, group = ([*arg.split(","), "", ""])[:3]
    if model not in MODELS or protocol not in PROTOCOLS or (protocol == "grouped") != bool(group):
        raise ValueError(
            f"expected MODEL,PROTOCOL out of {', '.join(MODELS)} and {', '.join(PROTOCOLS)}, the "
            f"last with a group (msa,grouped,B12); got {arg!r}"
        )
    return Config(
        name=f"protocols:{arg}",
        model=MODELS[model][1],
        data=DataConfig(
            protocol=protocol, holdout_group=group, allow_leakage=protocol == "published"
        ),
        train=TrainConfig(epochs=EPOCHS),
    )


def folds(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Yields protocol and held-out group of every split asked for."""
    for protocol in options.protocols:
        for group in options.groups if protocol == "grouped" else ("",):
            yield protocol, group


def place(protocol: str, group: str) -> Path:
    """Returns where a split's results are, below a model's folder."""
    return Path(protocol) / f"fold-{group}" if group else Path(protocol)


def train(options: argparse.Namespace) -> dict[str, str]:
    """Trains and audits everything asked for; returns what failed, and why."""
    loaded: dict[str, Any] = {}
    failed = {}
    for protocol, group in folds(options):
        for model in options.models:
            where = Path(model) / place(protocol, group)
            print(f"== protocols/{where}", flush=True)
            try:
                config = _configuration(model, protocol, group, options)
                workdir = options.out / "protocols" / where
                sweep.train_one(workdir, config, loaded)
                _audit(workdir)
                if options.results:
                    target = options.results / "protocols" / where
                    sweep.keep(workdir, target)
                    shutil.copyfile(workdir / "audit/audit.json", target / "audit.json")
            except Exception as error:  # one split must not keep the others from being trained
                failed[str(where)] = " ".join(str(error).split()) or type(error).__name__
    for model in options.models:
        _pool(options.out / "protocols" / model / "grouped", options.results, model)
    return failed


def _configuration(model: str, protocol: str, group: str, options: argparse.Namespace) -> Config:
    config = get_config(",".join(filter(None, (model, protocol, group))))
    config.data.root, config.train.seed = options.root, options.seed
    config.train.epochs = options.epochs
    weights = dict(item.split("=", 1) for item in options.pretrained)
    config.model.pretrained = weights.get(config.model.backbone, config.model.pretrained)
    return config.validate()


def _audit(workdir: Path) -> None:
    if (workdir / "audit/audit.json").exists():
        return
    command = [sys.executable, "-m", "msa_flax.audit", f"--workdir={workdir}", "--ladder"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"audit: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def _pool(folder: Path, results: Path | None, model: str) -> None:
    """Computes the metrics of all folds' test images together."""
    from msa_flax.evaluation import Predictions, compute, write_json

    paths = sorted(folder.glob("fold-*/eval/test/predictions.csv"))
    if not results or len(paths) < 2:
        return
    found = [Predictions.read(path) for path in paths]
    label = np.concatenate([one.label for one in found])
    probability = np.concatenate([one.probability for one in found])
    values = {"n": len(label), "groups": len(paths), **compute(label, probability, threshold=0.5)}
    write_json(results / "protocols" / model / "grouped" / "pooled.json", values)


def table(results: Path) -> str:
    """Returns the table of all results, "" if there are none."""
    from msa_flax.evaluation import shortcuts

    head = [
        *("split", "model", "test images", *SCORES, "validation accuracy", "best shortcut, test"),
        *("model - shortcut", "permuted labels, validation", "test", "epochs", "weights"),
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    runs = []
    for protocol, title in PROTOCOLS.items():
        found = sorted((results / "protocols").glob(f"*/{protocol}/**/audit.json"))
        for path in sorted(found, key=lambda p: (p.parent.name, list(MODELS).index(_model(p)))):
            run = aggregate.Finished(path.parent)
            runs.append(run)
            test, held = run.splits["test"], run.splits["validation"]
            ladder = json.loads(path.read_text())["ladder"]
            best = shortcuts.best_shortcut(ladder, "test")
            permuted = next((r for r in ladder if r["rung"] == "permuted labels"), {})
            accuracy = test["metrics"]["accuracy"]["value"]
            group = run.config.data.holdout_group
            lines.append(
                _line(
                    f"{group} {title}" if group else title,
                    MODELS[_model(path)][0],
                    _images(test),
                    *(_number(test["metrics"][name]["value"]) for name in SCORES),
                    _number(held["metrics"]["accuracy"]["value"]),
                    f"{best['rung']}: {best['test']['accuracy']:.3f}" if best else "",
                    f"{accuracy - best['test']['accuracy']:+.3f}" if best else "",
                    *(_number(permuted.get(s, {}).get("accuracy")) for s in ("validation", "test")),
                    str(run.epochs),
                    run.weights,
                )
            )
        for path in sorted((results / "protocols").glob(f"*/{protocol}/pooled.json")):
            values = json.loads(path.read_text())
            scores = [_number(values["metrics"][name]["value"]) for name in SCORES]
            name = MODELS[path.parent.parent.name][0]
            all_of_them = f"all {values['groups']} held out, pooled"
            lines.append(_line(all_of_them, name, _images(values), *scores, *[""] * 7))
    return "\n".join([_note(runs), "", *lines]) if runs else ""


def _model(path: Path) -> str:
    return next(name for name in MODELS if name in path.parts)


def _note(runs: list[aggregate.Finished]) -> str:
    days = sorted({run.run["date"][:10] for run in runs})
    machines = dict.fromkeys(run.run["machine"] for run in runs)
    seeds = sorted({str(run.config.train.seed) for run in runs})
    return (
        f"Seed {', '.join(seeds)}; {days[0]} to {days[-1]}, {'; '.join(machines)}. Numbers are of "
        "the epoch of lowest validation loss. Shortcuts are fitted on the same training split; the "
        f"best one is that of the highest test accuracy. {aggregate.NOTICE}"
    )


def _images(values: dict[str, Any]) -> str:
    counts = values["confusion"]
    return f"{counts['tn'] + counts['fp']} + {counts['tp'] + counts['fn']}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Trains, or only makes the table; the exit code is 1 if something failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="", help="the folder that holds train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the workdirs")
    parser.add_argument("--results", type=Path, help="folder for every run's small files")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS), choices=PROTOCOLS)
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), help="to hold out, in turn")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrained", nargs="+", default=[], metavar="BACKBONE=FILE|none")
    parser.add_argument("--into", type=Path, help="a markdown file with marker lines")
    options = parser.parse_args()
    options.results = options.results or options.out / "results"
    failed = train(options) if options.root else {}
    if text := table(options.results):
        if options.into:
            aggregate.write_between(options.into, "protocols", text)
        else:
            print(text)
    elif not failed:
        sweep.refuse(f"--results: expected finished runs below {options.results}, found none")
    for name, reason in failed.items():
        print(f"error: protocols/{name}: {reason}", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
