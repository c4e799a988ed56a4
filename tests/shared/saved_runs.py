"""Workdirs as training, evaluate, explain and audit leave them, made without any of them."""

import csv
import dataclasses
import json

import numpy as np
from prediction_tables import mostly_right, random_predictions

from msa_flax.auditing.findings import Finding
from msa_flax.evaluation import (
    Predictions,
    calibration,
    calibration_summary,
    metrics_json,
    study,
)
from msa_flax.evaluation.study_table import write_studies
from msa_flax.files import read_json, sha256, write_json
from msa_flax.run_files import RUN_FILES
from msa_flax.saliency.outputs import safe_stem, write_explanation

METHODS = ("gradcam", "hirescam")
CONFIG = {
    "name": "toy",
    "model": {
        "backbone": "mobilenet_v1",
        "alpha": 1.0,
        "attention": "msa",
        "kernel_sizes": [3, 5],
        "head": "logit",
        "pretrained": "none",
    },
    "data": {
        "source": "folder",
        "root": "/data/toy",
        "classes": ["normal", "fracture"],
        "protocol": "grouped",
        "image_size": 64,
        "preprocess": "paper",
        "equalize": "none",
        "augment": "none",
    },
    "optim": {
        "name": "adam",
        "learning_rate": 0.001,
        "schedule": "constant",
        "class_weights": "none",
    },
    "train": {
        "epochs": 2,
        "batch_size": 16,
        "compute_dtype": "float32",
        "freeze_backbone": False,
        "seed": 0,
    },
    "eval": {"threshold": 0.5},
}
RUN = {
    "msa_flax": "0.1.0",
    "data_fingerprint": "f" * 64,
    "date": "2026-01-01T00:00:00Z",
    "images": 300,
    "bad_files": [],
    "versions": {"jax": "0.10", "python": "3.11"},
    "commit": "c" * 40,
}
LADDER = [
    {"rung": "majority class", "test": {"accuracy": 0.5, "auc": 0.5, "n": 120}},
    {"rung": "slice position", "test": {"accuracy": 0.625, "auc": 0.7, "n": 120}},
]


def write_run(
    folder,
    table=None,
    *,
    name="toy",
    threshold=0.5,
    stamps=(),
    explained=(),
    small=False,
    audit=False,
    **data,
):
    """Writes a finished run's files into a folder and returns it.

    ``explained`` are the rows of images with maps, which are few and tiny if ``small``; ``data``
    are options of :func:`mostly_right`, where no ``table`` of predictions is given.
    """
    table = mostly_right(**data) if table is None else table
    config = CONFIG | {"name": name}
    write_json(folder / "config.json", {"schema_version": 1, "config": config})
    ids = [*table.example_id.tolist(), *(f"train {i}" for i in range(180))]
    with (folder / "splits.csv").open("w", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["example_id", "split", "fold"])
        writer.writerows([x, "test" if i < len(table) else "train", ""] for i, x in enumerate(ids))
    hashes = {name: sha256(folder / name) for name in RUN_FILES}
    write_json(folder / "run.json", RUN | {"files": hashes})
    rows = [
        {"step": e, "epoch": e, "split": split, "loss": 1 / e, "accuracy": 1 - 0.5 / e}
        for e in (1, 2)
        for split in ("train", "validation")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = folder / "eval" / "test"
    table.write(results / "predictions.csv")
    values = metrics_json(table, split="test", threshold=threshold, stamps=stamps, seconds=1.0)
    write_json(results / "metrics.json", values)
    if explained:
        _explain(results / "explanations", table, explained, small)
    if audit:
        finding = Finding(
            key="duplicates",
            severity="high",
            title="exact duplicates",
            evidence="4 files show 2 pictures.",
            advice="Keep one file a picture.",
            examples=["img 0000.png"],
        )
        write_json(
            folder / "audit" / "audit.json",
            {"findings": [dataclasses.asdict(finding)], "ladder": LADDER, "model": {}},
        )
    return folder


def calibrate_run(folder, **identity):
    """Adds to a run of :func:`write_run` what ``evaluate`` adds where a calibration is stored."""
    of = {"checkpoint": "best", "step": 7, "data_fingerprint": "f" * 64} | identity
    stored = calibration.fit(random_predictions("validation"), **of, sensitivity=0.5)
    stored.write(folder / "checkpoints/calibration-best.json")
    results = folder / "eval/test"
    table = Predictions.read(results / "predictions.csv")
    values = read_json(results / "metrics.json")
    about = {"split": "test", "stamps": values["stamps"], "seconds": 1.0}
    values = metrics_json(table, threshold=stored.operating_point.threshold, **about)
    made, alpha = calibration.apply(stored, table.logit, alpha=0.1), 0.1
    made.write(results / "calibrated.csv", table.example_id)
    doubts = calibration_summary.doubts("test", values["stamps"])
    more = {"values": values, "alpha": alpha, "doubts": doubts}
    values |= calibration_summary.sections(stored, table, made, **more)
    values |= calibration_summary.operating_point(stored, doubts)
    write_json(results / "metrics.json", values)


def add_studies(folder):
    """Adds to a run of :func:`write_run` what ``evaluate --level study`` adds; 24 studies."""
    rng, results = np.random.default_rng(5), folder / "eval/test"
    names = np.array([f"S{i:02d}" for i in range(24)])
    label = np.arange(24) % 2
    slices = tuple(rng.beta(1 + 2 * one, 3, 6) for one in label)
    scores = study.StudyScores(study=names, patient=names, label=label, slices=slices)
    probability = study.Aggregation(name="max").apply(scores)
    levels = {"C2": (label == 1) & (np.arange(24) < 12), "C7": np.zeros(24, bool)}
    known = {"threshold": 0.7, "levels": levels}
    write_studies(results / "studies.csv", scores, probability, **known)
    section = {
        "n": 24,
        "groups": 24,
        "aggregation": {"name": "max", "weights": [], "validation_auc": {}},
        "threshold": 0.7,
        **study.study_metrics(label, probability, patient=names, **known),
    }
    write_json(results / "metrics.json", read_json(results / "metrics.json") | {"study": section})


def _explain(folder, table, rows, small):
    side, methods = (16, METHODS[:1]) if small else (200, METHODS)
    rng = np.random.default_rng(0)
    lines = [["example_id", "label", "probability", "method", "stem"]]
    for i in rows:
        name = str(table.example_id[i])
        write_explanation(
            folder,
            safe_stem(name),
            image=rng.integers(0, 256, (side, side), dtype=np.uint8),
            maps={
                method: {
                    target: rng.random((7, 7)).astype(np.float32)
                    for target in ("fracture", "normal")
                }
                for method in methods
            },
            attention={} if small else {k: rng.random((7, 7)).astype(np.float32) for k in (3, 5)},
        )
        label, probability = int(table.label[i]), float(table.probability[i])
        lines += [[name, label, probability, method, safe_stem(name)] for method in methods]
    with (folder / "explanations.csv").open(
        "w", encoding="utf-8", errors="surrogateescape"
    ) as file:
        csv.writer(file).writerows(lines)
