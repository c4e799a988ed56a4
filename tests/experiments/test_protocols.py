"""Experiment protocols.py: every split trained, audited and in one table."""

import json
import runpy
from argparse import Namespace

import command_line
import cv2
import numpy as np
import protocols
import pytest

from msa_flax import audit, cli

TINY = """
from tiny_training import tiny_config

def get_config(arg):
    _, protocol, group = ([*arg.split(","), ""])[:3]
    published = protocol == "published"
    config = tiny_config(protocol=protocol, holdout_group=group, allow_leakage=published)
    config.name = f"protocols:{arg}"
    return config
"""


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


@pytest.mark.usefixtures("without_pictures")
def test_every_protocol_is_trained_audited_pooled_and_in_the_table(
    images, tmp_path, monkeypatch, capsys
):
    def run(command, **_):  # in this process
        assert command[1:3] == ["-m", "msa_flax.audit"]
        code = cli.call(audit.main, audit.define_flags, audit.__doc__, ["audit", *command[3:]])
        return Namespace(returncode=code, stderr=capsys.readouterr().err)

    tiny = tmp_path / "tiny.py"
    tiny.write_text(TINY)
    monkeypatch.setattr(protocols, "get_config", runpy.run_path(str(tiny))["get_config"])
    monkeypatch.setattr(protocols, "CONFIG", tiny)
    monkeypatch.setattr(command_line, "subprocess", Namespace(run=run))
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
    head, _, *rows = [line.strip("| ").split(" | ") for line in lines]
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


def test_without_runs_there_is_nothing_to_show(tmp_path, capsys):
    assert command_line.call(protocols.main, [f"--results={tmp_path}"]) == 2
    assert "expected finished runs below" in capsys.readouterr().err
