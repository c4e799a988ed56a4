"""Experiment protocols.py: every split trained, audited and in one table."""

import importlib.util
import json
import pathlib
import sys
from argparse import Namespace

import cv2
import numpy as np
import pytest

from msa_flax import audit, cli
from msa_flax.config import Config

TINY = """
from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig

def get_config(arg):
    _, protocol, group = ([*arg.split(","), ""])[:3]
    data = DataConfig(
        protocol=protocol, holdout_group=group, image_size=32, allow_leakage=protocol == "published"
    )
    model, train = ModelConfig(alpha=0.25, pretrained="none"), TrainConfig(batch_size=8, epochs=1)
    return Config(name=f"protocols:{arg}", model=model, data=data, train=train)
"""
FOLDER = pathlib.Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module")
def protocols():
    sys.path.insert(0, str(FOLDER))
    try:
        import protocols
    finally:
        sys.path.remove(str(FOLDER))
    return protocols


@pytest.fixture
def images(tmp_path):
    """Three series; the class is the slice's position; every slice has three copies.

    Brightness tells the class, so that the smallest network can learn it; series B12 holds
    fractures only.
    """
    rng = np.random.default_rng(0)
    for series in (10, 11, 12):
        for i in range(10):
            label = int(i >= 5 or series == 12)
            number = i + 1 if label else 100 + i
            part = "val" if series == 10 and i % 5 == 0 else "train"
            folder = tmp_path / "images" / part / ("normal", "fracture")[label]
            folder.mkdir(parents=True, exist_ok=True)
            noise = cv2.GaussianBlur(rng.normal(0, 40, (96, 96)), (0, 0), 0.8)
            slice_ = np.clip(70 + 60 * label + noise, 0, 255).astype(np.uint8)
            for j in range(3):
                cv2.imwrite(
                    str(folder / f"CSFDV1B{series} ({number})-rotated{j}.png"), np.rot90(slice_, j)
                )
    return tmp_path / "images"


def test_the_configurations_need_no_other_experiment():
    """As the train command loads them: from a file, with nothing beside it importable."""
    spec = importlib.util.spec_from_file_location("alone", FOLDER / "protocol.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config("msa,family").name == "protocols:msa,family"
    for words in ("Claim", "python -m msa_flax.train", "experiments/protocol.py"):
        assert words in module.__doc__


def test_every_split_is_a_valid_configuration(protocols):
    for model in protocols.MODELS:
        for arg in ("published", "family", "grouped,B12"):
            config = protocols.get_config(f"{model},{arg}")
            config.data.root = "somewhere"
            assert isinstance(config.validate(), Config)
            assert config.data.allow_leakage == (arg == "published")
            assert config.train.epochs == protocols.EPOCHS


@pytest.mark.parametrize(
    "arg", ["resnet51,family", "msa", "msa,kfold", "msa,grouped", "msa,family,B12"]
)
def test_another_argument_is_refused_with_the_choices(protocols, arg):
    with pytest.raises(ValueError, match=r"expected MODEL,PROTOCOL out of msa, mobilenet_v2"):
        protocols.get_config(arg)


def test_every_protocol_is_trained_audited_pooled_and_in_the_table(
    protocols, images, tmp_path, monkeypatch, capsys
):
    def run(command, **_):  # in this process
        assert command[1:3] == ["-m", "msa_flax.audit"]
        code = cli.call(audit.main, audit.define_flags, audit.__doc__, ["audit", *command[3:]])
        return Namespace(returncode=code, stderr=capsys.readouterr().err)

    tiny = tmp_path / "tiny.py"
    tiny.write_text(TINY)
    spec = importlib.util.spec_from_file_location("tiny", tiny)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(protocols, "get_config", module.get_config)
    monkeypatch.setattr(protocols, "CONFIG", tiny)
    monkeypatch.setattr(protocols, "subprocess", Namespace(run=run))
    monkeypatch.setenv("MSA_FLAX_REALDATA", str(tmp_path))
    asked = Namespace(
        root=str(images),
        out=tmp_path / "runs",
        results=tmp_path / "kept",
        models=["msa"],
        protocols=["published", "grouped"],
        groups=["B10", "B12", "B99"],
        epochs=1,
        seed=0,
        pretrained=[],
    )
    failed = protocols.train(asked)
    # The others are trained all the same.
    assert list(failed) == ["audit/grouped/fold-B99", "msa/grouped/fold-B99"]
    assert all("expected one of B10" in reason for reason in failed.values())
    text = "".join(path.read_text() for path in (tmp_path / "kept").rglob("*.json"))
    assert str(tmp_path) not in text  # nothing that belongs to this machine only

    lines = [line for line in protocols.table(asked.results).splitlines() if line[:2] == "| "]
    head, *rows = [line.strip("| ").split(" | ") for line in lines]
    rows = {row[0]: row for row in rows}
    pooled = "all 2 held out, pooled"
    assert list(rows) == ["as published", "B10 held out", "B12 held out", pooled]
    best = head.index("best shortcut, test")
    assert rows["as published"][best].endswith(": 1.000")
    # One class only: what needs both is undefined, accuracy is not.
    held = dict(zip(head, rows["B12 held out"], strict=False))
    assert held["test images"] == "0 + 30"
    assert held["auc"] == held["specificity"] == "undefined"
    assert 0 <= float(held["accuracy"]) <= 1
    pooled = json.loads((tmp_path / "kept/protocols/msa/grouped/pooled.json").read_text())
    assert pooled["n"] == 60
    folds = [
        json.loads(
            (tmp_path / f"kept/protocols/msa/grouped/fold-{g}/eval/test/metrics.json").read_text()
        )
        for g in ("B10", "B12")
    ]
    for key, value in pooled["confusion"].items():
        assert value == sum(fold["confusion"][key] for fold in folds)


def test_without_runs_there_is_nothing_to_show(protocols, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["protocols.py", f"--results={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        protocols.main()
    assert ended.value.code == 2
    assert "expected finished runs below" in capsys.readouterr().err
