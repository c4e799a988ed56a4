"""The scripts import one another as plain modules of their folder; so do their tests."""

import json
import pathlib
import sys

import pytest

from msa_flax.config import Config, DataConfig, ModelConfig

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
sys.path[:0] = [str(FOLDER / name) for name in (".", "published", "benchmarks", "faults")]


@pytest.fixture
def write_run():
    """A function that writes what a finished run leaves behind, as far as a table needs it."""

    def write(folder, *, seed, auc, attention="none", weights=None, stamps=()):
        source = weights["source"] if weights else "none"
        config = Config(
            model=ModelConfig(attention=attention, pretrained=source),
            data=DataConfig(root="images"),
        )
        config.train.seed = seed
        run = {
            "date": "2026-01-02T03:04:05Z",
            "machine": "Linux x86_64, 2 cores",
            "devices": ["cpu:0"],
            "seconds": {"step": 0.25},
            "peak_memory_gib": 1.5,
            "weights": weights,
        }
        metrics = {name: {"value": 0.5} for name in ("recall", "specificity")}
        metrics["accuracy"] = {"value": 0.5, "interval_reason": "1 group; needs 10"}
        metrics["auc"] = {"value": auc}
        for split in ("validation", "test"):
            (folder / "eval" / split).mkdir(parents=True)
            (folder / "eval" / split / "metrics.json").write_text(
                json.dumps({"stamps": list(stamps), "metrics": metrics})
            )
        (folder / "config.json").write_text(json.dumps({"config": config.to_dict()}))
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')

    return write
