"""Whole runs in this process: a frozen backbone, and paper 2's method."""

import dataclasses
import importlib
import json
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest

from msa_flax import data, restore
from msa_flax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from msa_flax.evaluation.predictions import Predictions
from msa_flax.files import UserError
from msa_flax.initial import initial_variables
from msa_flax.results import training
from msa_flax.results.training import build, record, train_run
from msa_flax.run import start
from msa_flax.training import checkpoint, devices
from msa_flax.training.workdir import check_workdir, read_config

SIZE = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """40 training and 8 test images, a quarter of them fractured, which is brighter."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, count in (("train", 40), ("val", 8)):
        for i in range(count):
            fractured = i % 4 == 0
            target = folder / part / ("fracture" if fractured else "normal")
            target.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 120, (SIZE, SIZE), dtype=np.uint8) + np.uint8(90 * fractured)
            cv2.imwrite(str(target / f"{i}.png"), image)
    return folder


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory):
    """A MobileNet of width 0.25 with random weights, saved by Keras."""
    keras = importlib.import_module("keras")
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(
        weights=None, include_top=False, alpha=0.25, input_shape=(SIZE, SIZE, 3)
    )
    for variable in model.weights:
        if variable.path.endswith("gamma"):  # else the features are too small for float16
            variable.assign(4 * variable)
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    model.save_weights(path)
    return path


def frozen(root, keras_file, seed=0):
    return Config(
        model=ModelConfig(alpha=0.25, pretrained=str(keras_file)),
        data=DataConfig(root=str(root), image_size=SIZE, allow_leakage=True),
        train=TrainConfig(epochs=2, batch_size=8, freeze_backbone=True, seed=seed),
    ).validate()


@pytest.mark.usefixtures("without_pictures", "quick_programs")
def test_a_frozen_backbone_keeps_its_weights_and_its_features_are_computed_once(
    root, keras_file, tmp_path, monkeypatch
):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    config = frozen(root, keras_file)
    train_run(tmp_path / "a", config)
    run = restore(tmp_path / "a", checkpoint_name="last")
    before, _ = initial_variables(run.model, config)
    same = jax.tree.map(np.array_equal, run.variables["params"], before["params"])
    assert all(jax.tree.leaves(same["backbone"]))
    assert not any(jax.tree.leaves(same["classifier"]["logit"]["kernel"]))
    stats = jax.tree.map(np.array_equal, run.variables["batch_stats"], before["batch_stats"])
    assert all(jax.tree.leaves(stats))

    (features,) = (tmp_path / "cache/features").iterdir()
    assert np.load(features).shape == (48, 1, 1, 256)
    written = features.stat().st_mtime_ns
    other = start(tmp_path / "b", frozen(root, keras_file, seed=1))
    build(other, devices.mesh(config.train.batch_size))
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache/features").iterdir()] == [written]

    # What training validated on (float16 features) is what the whole network predicts.
    rows = [json.loads(line) for line in (tmp_path / "a/metrics.jsonl").read_text().splitlines()]
    best = min(row["loss"] for row in rows if row["split"] == "validation")
    table = Predictions.read(tmp_path / "a/eval/validation/predictions.csv")
    logits = table.logit.astype(np.float64)
    loss = np.mean(np.logaddexp(0, logits) - table.label * logits)
    assert loss == pytest.approx(best, rel=2e-3)  # float16 keeps 3 digits


@pytest.mark.usefixtures("without_pictures", "quick_programs")
def test_a_frozen_run_is_continued_exactly(root, keras_file, tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    train_run(tmp_path / "whole", frozen(root, keras_file))
    shorter = frozen(root, keras_file)
    shorter.train.epochs = 1
    train_run(tmp_path / "parts", shorter)
    train_run(tmp_path / "parts", frozen(root, keras_file))
    for name in ("metrics.jsonl", "eval/test/predictions.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("without_pictures", "quick_programs")
def test_paper_2s_method_equalises_augments_weights_classes_and_stops_early(root, tmp_path, caplog):
    config = Config(
        # Without BatchNorm, whose running averages would move the validation loss by themselves.
        model=ModelConfig(
            backbone="lenet_alexnet", attention="none", head="softmax2", pretrained="none"
        ),
        data=DataConfig(
            root=str(root),
            image_size=64,
            allow_leakage=True,
            equalize="histogram",
            augment="paper2",
        ),
        # At so small a rate no weight changes, and so neither does the validation loss.
        optim=OptimConfig(
            learning_rate=1e-14, schedule="plateau", plateau_patience=1, class_weights="balanced"
        ),
        train=TrainConfig(epochs=30, batch_size=8, early_stopping=3),
    ).validate()
    train_run(tmp_path / "run", config)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["split"] == "validation"]
    assert len(losses) == 4  # the first, and three without a lower one
    assert len(set(losses)) == 1
    training = [row["loss"] for row in rows if row["split"] == "train"]
    assert len(set(training)) == 4  # every epoch sees other rotations
    assert restore(tmp_path / "run").step == 4  # of 32 images, 8 a step: the first epoch
    assert learning_rate_factor(tmp_path / "run") == pytest.approx(1e-3)  # lowered three times

    # The images were the equalised ones: grey values of 120 levels spread over all of the range.
    equalized = data.load(config.data)
    plain = data.load(dataclasses.replace(config.data, equalize="none"))
    assert (np.ptp(equalized.images, axis=(1, 2)) > 1.5 * np.ptp(plain.images, axis=(1, 2))).all()
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["data_fingerprint"] == equalized.fingerprint

    with caplog.at_level("INFO", logger="msa_flax"):
        train_run(tmp_path / "run", config)
    assert "training is finished" in caplog.text


def learning_rate_factor(workdir):
    """Returns what the last checkpoint's learning rate is multiplied by."""
    from msa_flax.training.optim import PlateauState

    config = read_config(workdir)
    fresh, _ = build(start(workdir, config), devices.mesh(config.train.batch_size))
    kept = checkpoint.Checkpoints(workdir, read_only=True)
    state, _ = kept.restore_last(fresh)
    is_plateau = lambda x: isinstance(x, PlateauState)  # noqa: E731
    found = [x for x in jax.tree.leaves(state.opt_state, is_leaf=is_plateau) if is_plateau(x)]
    (plateau,) = found
    return float(plateau.factor)


def test_splits_changed_by_hand_are_refused_by_training_and_by_later_commands(
    untrained_run, tmp_path
):
    workdir = tmp_path / "run"
    data_config = DataConfig(
        source="phantom", protocol="kfold", image_size=SIZE, phantom_patients=12
    )
    model = ModelConfig(alpha=0.25, pretrained="none")
    config = Config(model=model, data=dataclasses.replace(data_config, folds=3))
    run = untrained_run(workdir, config)
    path = workdir / "splits.csv"
    text = path.read_text()
    swapped = text.replace(",train,", ",x,").replace(",test,", ",train,").replace(",x,", ",test,")
    path.write_text(swapped)
    with pytest.raises(UserError, match=r"splits\.csv changed since training wrote it"):
        restore(workdir)
    taken = restore(workdir, accept_changes=True)
    assert taken.data.stamps[-1] == "files of the run were changed by hand: splits.csv"
    stamps = check_workdir(workdir, config, accept=True)
    with pytest.raises(UserError, match=r"splits\.csv was changed by hand"):
        record(run, 0.0)
    record(start(workdir, config, changes=stamps), 0.0)
    assert path.read_text().splitlines() == swapped.splitlines()
    assert restore(workdir).data.stamps[-1] == stamps[0]  # whatever reads the run says so
    (workdir / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json is gone"):
        restore(workdir)
    blind = restore(workdir, accept_changes=True)
    assert blind.data.stamps[-1] == "files of the run could not be checked: run.json is gone"


@pytest.mark.parametrize(
    ("loss", "weights", "warned"),
    [(0.60, "none", True), (0.55, "none", False), (0.60, "balanced", False), (None, "none", False)],
)
def test_a_loss_above_that_of_one_answer_for_all_is_said(tmp_path, caplog, loss, weights, warned):
    # A quarter is fractured: one answer for all has 0.5623 at best, or log 2 with balanced weights.
    examples = SimpleNamespace(label=np.array([1, 0, 0, 0]))
    splits = SimpleNamespace(indices=lambda split: np.arange(4))
    config = Config(optim=OptimConfig(class_weights=weights))
    data = SimpleNamespace(examples=examples, splits=splits)
    run = SimpleNamespace(workdir=tmp_path, config=config, data=data)
    row = {"step": 1, "epoch": 1, "split": "train", "loss": loss, "accuracy": 0.5}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with caplog.at_level("WARNING", logger="msa_flax"):
        training._warn_if_nothing_was_learnt(run)
    assert ("worse than that of one answer for every image" in caplog.text) == warned
