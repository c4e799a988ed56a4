"""Every experiment and every row of every table builds, is valid, and says what it claims."""

import importlib.util
import json
import pathlib
import subprocess
import sys
from argparse import Namespace
from types import SimpleNamespace

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig, quickstart
from msa_flax.models import MODELS, initialise, scaler
from msa_flax.run import Run

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
SINGLE = ("paper1_msa", "quickstart")
TABLES = ("ablation_msa", "paper1_table4", "paper1_table5", "paper1_table6", "paper2_table1")


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scripts():
    """The scripts as modules."""
    sys.path.insert(0, str(FOLDER))
    try:
        import aggregate
        import batch_norm
        import sweep
    finally:
        sys.path.remove(str(FOLDER))
    return SimpleNamespace(sweep=sweep, aggregate=aggregate, batch_norm=batch_norm)


@pytest.mark.parametrize("name", SINGLE + TABLES)
def test_an_experiment_documents_its_claim_and_command(name):
    for words in ("Claim", "python -m msa_flax.train", f"experiments/{name}.py"):
        assert words in load(name).__doc__


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_experiment_builds_a_valid_configuration(name):
    config = load(name).get_config(*(["somewhere"] if name == "paper1_msa" else []))
    assert isinstance(config.validate(), Config)
    assert config.name == name


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_builds_a_valid_configuration(name):
    table = load(name)
    assert table.PAPER.keys() <= table.ROWS.keys()
    for row in table.ROWS:
        config = table.get_config(row)
        config.data.root = "somewhere"
        assert isinstance(config.validate(), Config)
        assert config.name == f"{name}:{row}"
        assert config.model.backbone in MODELS
        assert set(table.PAPER.get(row, {})) <= set(table.METRICS)
    with pytest.raises(ValueError, match="expected a row out of"):
        table.get_config("resnet51")


def test_the_tables_are_found_and_cover_every_backbone(scripts):
    assert tuple(scripts.sweep.tables()) == TABLES
    rows = [load(name).get_config(row) for name in TABLES for row in load(name).ROWS]
    assert {config.model.backbone for config in rows} == set(MODELS)


def test_rows_that_two_tables_share_have_one_configuration():
    for name in TABLES:
        for row, other in getattr(load(name), "SHARED", {}).items():
            table, there = other.split("/")
            ours, theirs = load(name).get_config(row), load(table).get_config(there)
            ours.name = theirs.name
            assert ours == theirs


def test_the_quickstart_experiment_is_the_embedded_default():
    assert load("quickstart").get_config() == quickstart()


def test_the_papers_experiment_is_the_defaults_with_leakage_allowed():
    expected = Config()
    expected.data.root, expected.data.allow_leakage = "somewhere", True
    assert load("paper1_msa").get_config("somewhere") == expected
    row = load("paper1_table4").get_config("msa")
    row.name, row.data.root = expected.name, "somewhere"
    assert row == expected


# --- sweep ----------------------------------------------------------------------------------------


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
    scripts, images, tmp_path, monkeypatch, capsys
):
    def get_config(row):
        if row == "broken":
            return Config(data=DataConfig(image_size=32), model=ModelConfig(backbone="resnet51"))
        return Config(
            name=f"tiny:{row}",
            model=ModelConfig(alpha=0.25, attention=row, pretrained="none"),
            data=DataConfig(image_size=32, allow_leakage=True),
            train=TrainConfig(epochs=3, batch_size=8),
        )

    table = SimpleNamespace(
        __name__="tiny",
        TITLE="Tiny",
        ROWS={"msa": "with", "none": "without", "broken": "broken"},
        PAPER={"msa": {"accuracy": 0.9975}},
        METRICS=("accuracy", "auc"),
        get_config=get_config,
    )
    monkeypatch.setattr(scripts.sweep, "load_table", lambda name: table)
    monkeypatch.setenv("MSA_FLAX_REALDATA", str(tmp_path))
    asked = options(
        table="tiny", root=str(images), out=tmp_path / "runs", epochs=1, results=tmp_path / "kept"
    )
    failed = scripts.sweep.sweep(asked)
    assert list(failed) == ["tiny/broken/seed-0"]
    assert "expected one of" in failed["tiny/broken/seed-0"]
    kept = sorted(str(p.relative_to(tmp_path / "kept/tiny")) for p in tmp_path.rglob("kept/**/*.*"))
    for row in ("msa", "none"):
        for name in ("config.json", *scripts.sweep.KEPT):
            assert f"{row}/seed-0/{name}" in kept
    text = "".join(p.read_text() for p in (tmp_path / "kept").rglob("*.json"))
    assert str(tmp_path) not in text  # nothing that belongs to this machine only
    config = json.loads((tmp_path / "kept/tiny/msa/seed-0/config.json").read_text())["config"]
    assert config["data"]["root"] == "images"
    before = (tmp_path / "runs/tiny/msa/seed-0/run.json").stat().st_mtime_ns
    assert scripts.sweep.sweep(asked).keys() == failed.keys()
    assert (tmp_path / "runs/tiny/msa/seed-0/run.json").stat().st_mtime_ns == before

    table.ROWS.pop("broken")
    for folder in ("runs", "kept"):
        lines = scripts.aggregate.markdown(table, tmp_path / folder).splitlines()
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
def test_a_sweep_that_cannot_be_made_is_refused_in_a_sentence(tmp_path, arguments, said):
    command = [sys.executable, str(FOLDER / "sweep.py"), *arguments]
    command += ["--root", "x", "--out", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_weights_are_given_by_backbone_and_only_to_rows_that_have_some(scripts):
    table = load("paper1_table6")
    given = options(root="x", pretrained=["mobilenet_v2=a.h5", "googlenet=b.h5"], epochs=2)
    found = {row: scripts.sweep.configuration(table, row, 3, given) for row in table.ROWS}
    assert found["mobilenet_v2"].model.pretrained == "a.h5"
    assert found["googlenet"].model.pretrained == "none"
    assert found["msa"].model.pretrained == "imagenet"
    assert {(c.train.seed, c.train.epochs) for c in found.values()} == {(3, 2)}


# --- aggregate ------------------------------------------------------------------------------------


def write_run(folder, *, seed, auc, attention="none", weights=None, stamps=()):
    """Writes what a finished run leaves behind, as far as a table needs it."""
    (folder / "eval/test").mkdir(parents=True)
    model = ModelConfig(attention=attention, pretrained=weights["source"] if weights else "none")
    config = Config(model=model, data=DataConfig(root="images"))
    config.train.seed = seed
    (folder / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    run = {
        "date": "2026-01-02T03:04:05Z",
        "machine": "Linux x86_64, 2 cores",
        "devices": ["cpu:0"],
        "seconds": {"step": 0.25},
        "peak_memory_gib": 1.5,
        "weights": weights,
    }
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    metrics = {name: {"value": 0.5} for name in ("recall", "specificity")}
    metrics["accuracy"] = {"value": 0.5, "interval_reason": "1 group; needs 10"}
    metrics = {"stamps": list(stamps), "metrics": metrics | {"auc": {"value": auc}}}
    (folder / "eval/test/metrics.json").write_text(json.dumps(metrics))


@pytest.fixture
def small_ablation():
    return SimpleNamespace(
        __name__="t",
        TITLE="A table",
        METRICS=("auc",),
        ROWS={"none": "without", "msa": "with", "k3": "three"},
        PAPER={"msa": {"auc": 0.9}},
        BASELINES={"msa": "none", "k3": "none"},
        get_config=lambda row: Config(),
    )


def cells(text, name):
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_shows_mean_and_range_paired_differences_and_what_was_not_run(
    scripts, small_ablation, tmp_path
):
    for seed, (without, with_it) in enumerate([(0.5, 0.7), (0.6, 0.7), (0.7, 1.0)]):
        write_run(tmp_path / f"t/none/seed-{seed}", seed=seed, auc=without)
        write_run(tmp_path / f"t/msa/seed-{seed}", seed=seed, auc=with_it, stamps=["a stamp"])
    text = scripts.aggregate.markdown(small_ablation, tmp_path)
    assert "Stamps: a stamp." in text
    assert ". No 95 % interval over patients: 1 group; needs 10. 2026-01-02, Linux" in text
    assert cells(text, "without")[1:3] == ["0.6000 [0.5000, 0.7000]", ""]
    # differences 0.2, 0.1, 0.3: mean 0.2, standard error 0.1 / sqrt(3), t(2 degrees) 4.3027
    expected = "+0.2000 [-0.0484, +0.4484]"
    assert cells(text, "with")[1:3] == ["0.9; ours 0.8000 [0.7000, 1.0000]", expected]
    assert cells(text, "three")[1] == "not run here"
    assert cells(text, "with")[3:] == [
        *("from scratch", "2", "0 1 2", "3,229,889", "1.14", "0.250 (cpu)", "1.5")
    ]


def test_an_undefined_metric_stays_undefined(scripts, small_ablation, tmp_path):
    write_run(tmp_path / "t/none/seed-0", seed=0, auc=None)
    write_run(tmp_path / "t/none/seed-1", seed=1, auc=0.5)
    text = scripts.aggregate.markdown(small_ablation, tmp_path)
    assert cells(text, "without")[1] == "undefined"


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (None, "from scratch"),
        ({"hash": "unknown", "source": "mine.h5"}, "mine.h5"),
        (
            {
                "hash": "5ce2dffbe3268af3673750bbc23bf38e6574be0b839491969c4843741d040344",
                "source": "a.h5",
            },
            "ImageNet",
        ),
        (
            {
                "hash": "fa3b084a7fc661f7602d18c01217f1a77f540d8e608de3ccf8d88d4ca6c11bbd",
                "source": "b.h5",
            },
            "ImageNet, re-expressed BatchNorm",
        ),
    ],
)
def test_the_weights_are_named_by_their_tensors(scripts, small_ablation, tmp_path, report, said):
    write_run(tmp_path / "t/none/seed-0", seed=0, auc=0.5, weights=report)
    assert cells(scripts.aggregate.markdown(small_ablation, tmp_path), "without")[3] == said


def test_tables_replace_what_stands_between_their_markers(scripts, tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    scripts.aggregate.write_between(path, "t", "new")
    assert path.read_text() == "before\n<!-- t -->\nnew\n<!-- /t -->\nafter\n"
    with pytest.raises(SystemExit) as caught:
        scripts.aggregate.write_between(path, "u", "new")
    assert caught.value.code == 2
    assert "<!-- u -->" in capsys.readouterr().err


# --- batch_norm -----------------------------------------------------------------------------------


def test_recomputed_averages_make_evaluation_what_training_is_on_one_batch(
    scripts, small_classifier, tmp_path
):
    config = Config()
    config.train.batch_size = 8
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8)
    model = small_classifier(attention=False)
    run = Run(
        workdir=tmp_path,
        config=config,
        model=model,
        variables=initialise(model, image_size=16, seed=0),
        step=0,
        checkpoint="best",
    )
    trained, _ = model.apply(
        run.variables, scaler(config)(jnp.asarray(images)), train=True, mutable=["batch_stats"]
    )
    # float32: 1e-6 of logits of order 1, and averages that a division by 1 - momentum went through
    np.testing.assert_allclose(
        scripts.batch_norm.recomputed(run, images).predict(images), trained, atol=2e-5
    )
    assert np.abs(run.predict(images) - trained).max() > 1e-3
