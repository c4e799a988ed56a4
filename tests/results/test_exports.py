"""A run exported, read back, and used: it predicts, flags and decides as the run does."""

import io
import json

import cv2
import numpy as np
import pytest

from msa_flax import restore
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.data.phantom import draw_patient
from msa_flax.evaluation import calibration
from msa_flax.exporting import package, portable
from msa_flax.files import NOTICE
from msa_flax.prediction.inputs import PredictionError
from msa_flax.prediction.predictor import PHANTOM
from msa_flax.results.exports import export_run
from msa_flax.results.predictions import predict_into
from msa_flax.results.predictor import predictor_of

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="msa", pretrained="none"),
    data=DataConfig(
        source="phantom",
        protocol="kfold",
        phantom_patients=30,
        image_size=64,
        classes=("intact", "broken"),
        equalize="clahe",
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained_run):
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    untrained_run(workdir, CONFIG.validate())
    found = restore(workdir)
    logits = np.random.default_rng(0).normal(0, 1e-4, 40).astype(np.float32)
    identity = found.identity | {"classes": ("intact", "broken")}
    calibration.Calibration(
        **identity,
        fractures=np.sort(logits[:20] + np.float32(1e-4)),
        normal=np.sort(logits[20:]),
        groups={"all": 0, "broken": 0, "intact": 0},
        temperature=calibration.Temperature(value=0.5, reason=""),
        isotonic=calibration.Isotonic(logit=(0.0,), probability=(0.5,)),
        reason="",
    ).write(workdir / "checkpoints/calibration-best.json")
    return awake(workdir)


def awake(workdir):
    """The run with a head whose logits differ, and with Grad-CAM maps that are not zero."""
    found = restore(workdir)
    found.variables["params"]["classifier"]["logit"]["kernel"] *= -20
    return found


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "model"
    said = export_run(run, out, zipped=False)
    assert said.endswith(NOTICE)
    assert f"--model {out}" in said
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for one in draw_patient(0, 900):
        cv2.imwrite(str(folder / f"{one.slice_index}.png"), one.image)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    cv2.imwrite(str(folder / "noise.png"), noise)
    return folder


def test_a_portable_model_predicts_the_same_bytes_as_its_run(run, model, images, tmp_path):
    told = {}
    for name, predictor in (("run", predictor_of(run)), ("model", portable.read(model))):
        told[name] = predict_into(predictor, [str(images)], tmp_path / name)
    for file in ("slices.csv", "series.csv", "refused.csv", "run.json"):
        assert (tmp_path / "model" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    assert told["model"] == told["run"].replace(str(tmp_path / "run"), str(tmp_path / "model"))
    text = (tmp_path / "model/slices.csv").read_text()
    assert "unlike the training images" in text
    assert PHANTOM in (tmp_path / "model/report.html").read_text()
    assert PHANTOM in told["model"]
    assert len({line.split(",")[6] for line in text.splitlines()[1:]}) > 5  # calibrated


def test_its_maps_are_those_of_the_run(run, model):
    images = np.stack([one.image for one in draw_patient(0, 901)])
    images = np.stack([cv2.resize(image, (64, 64)) for image in images] * 2)
    ours, theirs = (p.maps(images) for p in (portable.read(model), predictor_of(run)))
    assert theirs.max() > 0
    # Grad-CAM's mean slopes are summed in another order in batches of another size
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * theirs.max(), rtol=1e-5)


def test_the_same_run_gives_the_same_bytes_as_a_folder_and_as_a_file(run, model, tmp_path):
    export_run(awake(run.workdir), tmp_path / "model.zip", zipped=True)
    assert package.read(tmp_path / "model.zip") == package.read(model)
    assert "is this model already" in export_run(run, model, zipped=False)
    other = run.with_random_weights()
    with pytest.raises(package.PackageError, match="nothing was overwritten"):
        export_run(other, model, zipped=False)


def test_model_json_says_what_a_reader_needs(run, model):
    values = json.loads((model / "model.json").read_text())
    assert values["notice"] == NOTICE
    assert values["positive"] == "broken"
    assert values["input"]["classes"] == ["intact", "broken"]
    assert values["input"]["equalize"] == "clahe"
    assert values["input"]["window"]["unit"] == "HU"
    assert values["operating_point"]["threshold"] == 0.5
    assert len(values["calibration"]["logits"]["broken"]) == 20
    assert values["typicality"]["images"] > 0
    assert PHANTOM in values["stamps"]
    assert set(values["files"]) == {p.name for p in model.iterdir()} - {"model.json"}
    card = (model / "card.md").read_text()
    assert NOTICE in card
    assert PHANTOM in card


def test_it_takes_little_more_room_than_its_weights(run, model):
    arrays = np.load(io.BytesIO((model / "weights.npz").read_bytes()))
    network = sum(arrays[name].nbytes for name in arrays.files if name.startswith("network/"))
    total = sum(path.stat().st_size for path in model.iterdir())
    assert total <= 1.1 * network


def test_a_calibration_that_cannot_be_used_is_not_exported(run, tmp_path):
    path = run.workdir / "checkpoints/calibration-best.json"
    whole = path.read_bytes()
    path.write_text("{}")
    try:
        with pytest.raises(PredictionError):
            export_run(restore(run.workdir), tmp_path / "model", zipped=False)
    finally:
        path.write_bytes(whole)
    assert not list(tmp_path.iterdir())
