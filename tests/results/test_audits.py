"""Audits on splits: those that a configuration would train with, and those of a run."""

import json
import shutil

import pytest
from audit_calls import PHANTOM, call, findings
from slice_folders import FAMILY, GROUP, write_slices

from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig
from msa_flax.results.scores import evaluate_split
from msa_flax.run import restore


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("audit") / "clean")


def test_a_configured_experiment_is_audited_on_the_splits_that_it_would_train_with(
    clean, tmp_path, capsys
):
    (tmp_path / "wrapped").mkdir()
    shutil.copytree(clean, tmp_path / "copy")
    (tmp_path / "copy/train/normal/empty.png").touch()
    (tmp_path / "wrapped/set").symlink_to(tmp_path / "copy")
    (tmp_path / "wrapped/notes").mkdir()  # training finds the images beside it; so must the audit
    config = (
        "--config.data.source=folder",
        f"--config.data.root={tmp_path / 'wrapped'}",
        "--config.data.protocol=published",
        "--config.data.image_size=64",
        "--config.data.on_bad_file=skip",
        f"--config.data.family_pattern={FAMILY}",
        f"--config.data.group_pattern={GROUP}",
    )
    assert call(*config, f"--out={tmp_path / 'out'}") == 0
    found = findings(tmp_path / "out")
    values = json.loads((tmp_path / "out/audit.json").read_text())
    assert (values["n"], values["splits"]) == (80, ["train", "validation", "test"])
    assert found["unreadable"]["counts"] == {"unreadable": 1, "files": 81}
    assert found["balance"]["counts"]["test"] == [12, 12]  # "published": its val
    assert sum(found["balance"]["counts"]["validation"]) == 12  # a fifth of 56, class by class
    # Images were drawn for validation, not groups: nearly all of them are in training too.
    assert found["groups across splits"]["severity"] == "high"
    assert "bytes" in values["label_from"]
    assert "groups and splits" in capsys.readouterr().out


def test_the_phantom_is_audited_and_shortcuts_are_fitted_or_say_why_not(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert call(*PHANTOM, "--ladder") == 0
    values = json.loads((tmp_path / "audit/audit.json").read_text())
    assert (values["n"], values["splits"]) == (96, ["train", "validation", "test"])
    assert "bytes" not in values["label_from"]  # there are no files
    assert findings(tmp_path / "audit")["groups across splits"]["severity"] == "none"
    rungs = {rung["rung"]: rung for rung in values["ladder"]}
    assert rungs["majority class"]["test"]["auc"] == 0.5
    assert 0 <= rungs["thumbnail, logistic regression"]["test"]["accuracy"] <= 1
    for name in ("frozen ImageNet features, linear", "permuted labels"):
        assert rungs[name]["reason"] == "there are no ImageNet weights"
    out = capsys.readouterr().out
    assert "test accuracy" in out
    assert "the model" not in out
    assert "Shortcut ladder" in (tmp_path / "audit/audit.md").read_text()


def test_a_run_is_audited_on_its_own_splits_and_compared_with_shortcuts(
    clean, untrained_run, tmp_path, capsys
):
    config = Config(
        model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
        data=DataConfig(root=str(clean), image_size=64, family_pattern=FAMILY, group_pattern=GROUP),
        train=TrainConfig(epochs=1, batch_size=8),
    ).validate()
    workdir = tmp_path / "run"
    untrained_run(workdir, config)
    run = restore(workdir)
    for split in ("validation", "test"):
        evaluate_split(run, split)
    capsys.readouterr()
    assert call(f"--workdir={workdir}", "--ladder") == 0
    values = json.loads((workdir / "audit/audit.json").read_text())
    rows = [line.split(",") for line in (workdir / "splits.csv").read_text().splitlines()[1:]]
    tally = {split: sum(row[1] == split for row in rows) for split in values["splits"]}
    counts = findings(workdir / "audit")["balance"]["counts"]
    assert {split: sum(counts[split]) for split in values["splits"]} == tally
    for split in ("validation", "test"):
        metrics = json.loads((workdir / f"eval/{split}/metrics.json").read_text())["metrics"]
        scores = {name: metrics[name]["value"] for name in ("accuracy", "auc")}
        assert values["model"][split] == scores
    table = capsys.readouterr().out.split("shortcut  ", 1)[1].splitlines()
    names = [line.split("  ")[0] for line in table if line.strip()]
    model, gain = names.index("the model"), "what the model adds to the best shortcut"
    assert names.index("permuted labels") == model - 1
    assert names[model + 1] == gain
    best = max(r["test"]["accuracy"] for r in values["ladder"] if "test" in r)
    added = values["model"]["test"]["accuracy"] - best
    assert f"{added:+.3f}" in next(line for line in table if line.startswith(gain))

    (workdir / "run.json").write_text("{}")
    assert call(f"--workdir={workdir}") == 2
    assert "run.json has no hashes" in capsys.readouterr().err
