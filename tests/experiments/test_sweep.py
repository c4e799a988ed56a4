"""A sweep trains what is asked for, keeps its small files, and refuses the rest in a sentence."""

import importlib
import json
from argparse import Namespace
from types import SimpleNamespace

import aggregate
import command_line
import cv2
import numpy as np
import pytest
import sweep

from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig
from msa_flax.files import write_json


def options(**values):
    defaults = {"seeds": [0], "rows": [], "epochs": 0, "pretrained": [], "results": None}
    return Namespace(**(defaults | values))


@pytest.fixture
def images(tmp_path):
    """A folder of 24 training and 8 test images whose classes differ in brightness."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4)):
        for label, name in enumerate(("normal", "fracture")):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(80 * label, 80 * label + 120, (32, 32), dtype=np.uint8)
                cv2.imwrite(str(folder / f"{i}.png"), image)
    return tmp_path / "images"


def test_a_sweep_trains_rows_keeps_their_small_files_and_skips_what_is_finished(
    images, write_run, tmp_path, monkeypatch, capsys
):
    """Training itself is replaced here by what it leaves; test_protocols.py trains."""

    def get_config(row):
        if row == "broken":
            return Config(data=DataConfig(image_size=32), model=ModelConfig(backbone="resnet51"))
        return Config(
            name=f"tiny:{row}",
            model=ModelConfig(alpha=0.25, attention=row, pretrained="none"),
            data=DataConfig(image_size=32, allow_leakage=True),
            train=TrainConfig(epochs=3, batch_size=8),
        )

    trained = []

    def train_run(workdir, config, examples):
        trained.append((config, len(examples)))
        write_run(workdir, seed=config.train.seed, auc=0.5, attention=config.model.attention)
        write_json(workdir / "config.json", {"config": config.to_dict()})

    table = SimpleNamespace(
        __name__="tiny",
        TITLE="Tiny",
        ROWS={"msa": "with", "none": "without", "broken": "broken"},
        PAPER={"msa": {"accuracy": 0.9975}},
        METRICS=("accuracy", "auc"),
        get_config=get_config,
    )
    monkeypatch.setattr("msa_flax.results.training.train_run", train_run)
    monkeypatch.setattr(sweep, "load_table", lambda name: table)
    monkeypatch.setenv("MSA_FLAX_REALDATA", str(tmp_path))
    asked = options(
        table="tiny", root=str(images), out=tmp_path / "runs", epochs=1, results=tmp_path / "kept"
    )
    failed = sweep.sweep(asked)
    assert list(failed) == ["tiny/broken/seed-0"]
    assert "expected one of" in failed["tiny/broken/seed-0"]
    assert [(config.name, config.train.epochs, n) for config, n in trained] == [
        ("tiny:msa", 1, 32),
        ("tiny:none", 1, 32),
    ]
    kept = sorted(str(p.relative_to(tmp_path / "kept/tiny")) for p in tmp_path.rglob("kept/**/*.*"))
    for row in ("msa", "none"):
        for name in ("config.json", *sweep.KEPT):
            assert f"{row}/seed-0/{name}" in kept
    text = "".join(p.read_text() for p in (tmp_path / "kept").rglob("*.json"))
    assert str(tmp_path) not in text  # nothing that belongs to this machine only
    config = json.loads((tmp_path / "kept/tiny/msa/seed-0/config.json").read_text())["config"]
    assert config["data"]["root"] == "images"
    assert sweep.sweep(asked).keys() == failed.keys()
    assert len(trained) == 2  # finished runs are left alone

    table.ROWS.pop("broken")
    for folder in ("runs", "kept"):
        lines = aggregate.markdown(table, tmp_path / folder).splitlines()
        assert lines[0] == "### Tiny"
        row = next(line for line in lines if line.startswith("| with |"))
        assert "0.9975; ours " in row
        assert "from scratch" in row
        missing = next(line for line in lines if line.startswith("| without |"))
        assert "0.9975" not in missing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["paper1_table7"], "expected a table out of ablation_msa,"),
        (["paper1_table5", "--rows", "resnet51"], "expected rows out of convnext_tiny,"),
        (["paper1_table5", "--pretrained", "resnet50"], "expected BACKBONE=FILE"),
        (["paper1_table5", "--rows", "msa"], "got msa"),  # another table's run
    ],
)
def test_a_sweep_that_cannot_be_made_is_refused_in_a_sentence(tmp_path, arguments, said, capsys):
    out = ["--root", "x", "--out", str(tmp_path / "runs")]
    assert command_line.call(sweep.main, [*arguments, *out]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_weights_are_given_by_backbone_and_only_to_rows_that_have_some():
    table = importlib.import_module("paper1_table6")
    given = options(root="x", pretrained=["mobilenet_v2=a.h5", "googlenet=b.h5"], epochs=2)
    found = {row: sweep.configuration(table, row, 3, given) for row in table.ROWS}
    assert found["mobilenet_v2"].model.pretrained == "a.h5"
    assert found["googlenet"].model.pretrained == "none"
    assert found["msa"].model.pretrained == "imagenet"
    assert {(c.train.seed, c.train.epochs) for c in found.values()} == {(3, 2)}
