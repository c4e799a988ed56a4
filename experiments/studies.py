r"""Does the paper's network detect fractures, once a slice's place in the body is no help?

    python experiments/studies.py --out runs [--studies 150] [--seeds 0 1 2] \
        [--models msa none mobilenet_v2] [--pretrained mobilenet_v1=FILE ...]

Writes studies of the phantom in two difficulties (OUT/phantom), audits them with the shortcut
ladder, trains every network on them, split by patient, and evaluates slices, whole studies and
where the maps lie, against the masks of the fractures. Interrupted parts continue; what is in
--results DIR, which keeps the small files, is finished and left alone. --models without a name only
makes the table; --into FILE.md puts it between the lines <!-- studies --> and <!-- /studies -->.
The phantom is no patient: a network that fails here fails at an easy task, and one that does not
has shown little. README.md has the results.
"""

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pages
import phantom_studies
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
from study import MODELS, get_config

from msa_flax.config import Config
from msa_flax.files import NOTICE, markdown_table, write_json
from msa_flax.reporting.text import with_interval

CONFIG = Path(__file__).with_name("study.py")
DIFFICULTIES = {  # what a fracture of the phantom is: width in mm and contrast in HU
    "open": ("4 mm, 900 HU", ["--width", "4", "--contrast", "900"]),
    "default": ("2 mm, 700 HU", ["--width", "2", "--contrast", "700"]),
}
AUDIT, MAPS = "audit.json", "maps.json"
PUBLIC = "audit/published/audit.json"  # of the public set, by protocols.py
SCORES = ("auc", "recall", "specificity")


def run_all(options: argparse.Namespace) -> dict[str, str]:
    """Writes, audits, trains and evaluates everything asked for; returns what failed, and why."""
    failed = {}
    for seed in options.seeds:  # so that what is cut short has all networks of a seed
        for name in DIFFICULTIES:
            for model in options.models:
                where = Path("studies") / name / model / f"seed-{seed}"
                if (options.results / where / MAPS).exists():
                    continue
                print(f"== {where}", flush=True)
                try:
                    _write_studies(name, options)
                    _audit(name, options)
                    _train(name, model, seed, options.out / where, options)
                    _keep(options.out / where, options.results / where)
                except Exception as error:  # one run must not keep the others from being trained
                    failed[str(where)] = in_one_line(error)
    return failed


def _root(name: str, options: argparse.Namespace) -> Path:
    return Path(options.out) / "phantom" / name


def _write_studies(name: str, options: argparse.Namespace) -> None:
    """Writes the studies of a difficulty, whole or not at all."""
    root = _root(name, options)
    if root.exists():
        return
    unfinished = root.with_name(f"{name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    what = ["--studies", str(options.studies), "--boxed", "1", "--segmented", "0", "--jobs", "2"]
    phantom_studies.main(["--out", str(unfinished), *what, *DIFFICULTIES[name][1]])
    unfinished.rename(root)


def _configuration(name: str, model: str, seed: int, options: argparse.Namespace) -> Config:
    config = get_config(model)
    config.data.root, config.train.seed = str(_root(name, options).absolute()), seed
    use_pretrained(config, options.pretrained)
    return config.validate()


def _audit(name: str, options: argparse.Namespace) -> None:
    """Audits the studies with the shortcut ladder, unless that is done."""
    target = options.results / "studies" / name / AUDIT
    if target.exists():
        return
    folder = options.out / "studies" / name / "audit"
    run_command(
        *("audit", "--ladder", f"--out={folder}", f"--config={CONFIG}:msa"),
        f"--config.data.root={_root(name, options).absolute()}",
        f"--config.model.pretrained={_configuration(name, 'msa', 0, options).model.pretrained}",
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / AUDIT, target)


def _train(name: str, model: str, seed: int, workdir: Path, options: argparse.Namespace) -> None:
    """Trains a network and evaluates it, unless that is done."""
    if (workdir / MAPS).exists():
        return
    sweep.train_one(workdir, _configuration(name, model, seed, options), {})
    run_command("evaluate", f"--workdir={workdir}", "--level=study")
    write_json(workdir / MAPS, _where_maps_lie(workdir, _root(name, options) / "masks"))


def _where_maps_lie(workdir: Path, masks: Path) -> dict[str, Any]:
    """Returns how well maps lie on the fractures of the test split, and how well a flat one would.

    Args:
        workdir: of a trained run.
        masks: the folder with a file of masks per study.
    """
    from msa_flax.run import restore
    from msa_flax.saliency.trials.localisation import localise

    run = restore(workdir)
    test = run.data.take("test")
    test = test.take(np.flatnonzero(test.label == 1))
    size = run.config.data.image_size
    truth = np.stack([_mask(masks, name, size) for name in test.example_id.tolist()])
    found = run.explain(test.images)
    maps = {"Grad-CAM": found.maps["gradcam"]["fracture"]}
    maps |= {f"attention {kernel} x {kernel}": one for kernel, one in found.attention.items()}
    area = float(np.mean(found.mass(truth)[:, 1]))
    return {
        "slices": len(truth),
        "area": area,
        "maps": {
            name: {
                kind: float(np.nanmean(values)) if np.isfinite(values).any() else None
                for kind, values in localise(one, truth, size=size).items()
            }
            for name, one in maps.items()
        },
    }


def _mask(folder: Path, name: str, size: int) -> np.ndarray:
    """Returns the mask of a slice, named ``train_images/STUDY/NUMBER.dcm``: uint8 [size, size]."""
    _, study, file = name.split("/")
    with np.load(folder / f"{study}.npz") as kept:
        place = kept["slice_number"].tolist().index(int(Path(file).stem))
        mask = (kept["mask"][place] > 0).astype(np.float32)
    return (cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)


def _keep(workdir: Path, folder: Path) -> None:
    sweep.keep(workdir, folder)
    shutil.copyfile(workdir / MAPS, folder / MAPS)


def table(results: Path) -> str:
    """Returns the tables of all difficulties, "" if nothing has been trained."""
    head = ["fracture", "network", "seeds", "test slices", "slices, AUC", "studies, AUC"]
    head += ["sensitivity", "specificity", "best shortcut, slices, AUC"]
    rows, maps, runs = [], [], []
    for name, (title, _) in DIFFICULTIES.items():
        base = results / "studies" / name
        for model, (said, _) in MODELS.items():
            folders = [path.parent for path in sorted(base.glob(f"{model}/*/{MAPS}"))]
            if not folders:
                continue
            found = [FinishedRun(folder) for folder in folders]
            tests = [run.splits["test"] for run in found]
            studies = [one["study"]["metrics"] for one in tests]
            images = "; ".join(_counts(one["confusion"]) for one in tests)
            slices = _scores([one["metrics"]["auc"] for one in tests])
            scores = [_scores([one[key] for one in studies]) for key in SCORES]
            best = max(_ladder(base / AUDIT).items(), key=lambda item: item[1])
            shortcut = f"{best[0]}: {best[1]:.3f}"
            rows.append([title, said, str(len(found)), images, slices, *scores, shortcut])
            kept = [json.loads((folder / MAPS).read_text()) for folder in folders]
            maps += [[title, said, *line] for line in _lines_of_maps(kept)]
            runs += found
    if not rows:
        return ""
    head_maps = ["fracture", "network", "map", "mass inside", "pointing game", "IoU", "area"]
    tables = [markdown_table(head, rows), markdown_table(head_maps, maps)]
    if (results / "protocols" / PUBLIC).exists():
        tables += ["Beside the public set, slices of the test split:", _beside_public(results)]
    return "\n\n".join((_note(runs), *tables))


def _beside_public(results: Path) -> str:
    """Returns the AUC of networks and of position, on the public set and on the phantom."""
    public = results / "protocols"
    head = ["AUC", "public set, as published", "each series held out, pooled"]
    head += [f"phantom, {title}" for title, _ in DIFFICULTIES.values()]
    rows = []
    for model, (said, _) in MODELS.items():
        files = [public / model / "published/eval/test/metrics.json"]
        files.append(public / model / "grouped/pooled.json")
        values = [[path] if path.exists() else [] for path in files]
        values += [
            sorted((results / "studies" / name).glob(f"{model}/*/eval/test/metrics.json"))
            for name in DIFFICULTIES
        ]
        aucs = [[_auc(path) for path in paths] for paths in values]
        rows.append([said, *(_spread(one) if one else "not run here" for one in aucs)])
    audits = [results / "studies" / name / AUDIT for name in DIFFICULTIES]
    ladders = [_ladder(path) for path in (public / PUBLIC, *audits)]
    first, *others = [f"{one['slice position']:.3f}" for one in ladders]
    rows.append(["slice position alone", first, "not pooled", *others])
    return markdown_table(head, rows)


def _auc(path: Path) -> float | None:
    value: float | None = json.loads(path.read_text())["metrics"]["auc"]["value"]
    return value


def _lines_of_maps(kept: Sequence[dict[str, Any]]) -> list[list[str]]:
    lines = []
    for name in kept[0]["maps"]:
        found = [one["maps"][name] for one in kept]
        scores = [
            _spread([one[kind] for one in found])
            for kind in ("mass inside", "pointing game", "IoU")
        ]
        lines.append([name, *scores, _spread([one["area"] for one in kept])])
    return lines


def _ladder(audit: Path) -> dict[str, float]:
    """Returns the test AUC of every shortcut that an audit has scored, by its name."""
    from msa_flax.auditing.shortcuts import PERMUTED

    return {
        rung["rung"]: rung["test"]["auc"]
        for rung in json.loads(audit.read_text())["ladder"]
        if rung["rung"] != PERMUTED and rung.get("test", {}).get("auc") is not None
    }


def _scores(values: Sequence[dict[str, Any]]) -> str:
    """Returns the values of all seeds, each with its interval."""
    return "; ".join(map(with_interval, values))


def _counts(confusion: dict[str, int]) -> str:
    """Returns how many negatives and positives there are."""
    return f"{confusion['tn'] + confusion['fp']} + {confusion['tp'] + confusion['fn']}"


def _spread(values: Sequence[float | None]) -> str:
    """Returns mean, smallest and largest of what is defined: a map may have nothing above 0."""
    known = [value for value in values if value is not None]
    if not known:
        return "undefined"
    text = f"{statistics.mean(known):.3f}"
    return text if len(known) == 1 else f"{text} [{min(known):.3f}, {max(known):.3f}]"


def _note(runs: Sequence[FinishedRun]) -> str:
    days = sorted({run.run["date"][:10] for run in runs})
    machines = dict.fromkeys(run.run["machine"] for run in runs)
    studies = [run.splits["test"]["study"]["n"] for run in runs]
    return (
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, {'; '.join(machines)}; "
        f"{runs[0].weights} weights. Each seed has its own split by patient, {min(studies)} to "
        f"{max(studies)} studies to test on, whose slices are given without and with a fracture; "
        "the shortcuts are those of the first split. In brackets 95 % intervals over patients, one "
        "value per seed; of maps, and beside the public set, the mean, smallest and largest of "
        f"the seeds. {NOTICE}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs everything, or only makes the table; the exit code is 1 if something failed."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the workdirs")
    parser.add_argument("--results", type=Path, help="folder for every run's small files")
    parser.add_argument("--studies", type=int, default=150)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    add_pretrained(parser)
    parser.add_argument("--into", type=Path, help="a markdown file with marker lines")
    options = parser.parse_args(arguments)
    options.results = options.results or options.out / "results"
    failed = run_all(options) if options.models else {}
    return pages.show(options, "studies", table(options.results), failed)


if __name__ == "__main__":
    sys.exit(call(main))
