"""New images predicted into a folder by an untrained network, which decides nothing worse."""

import json

import cv2
import numpy as np
import pytest

from msa_flax import restore
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.data.phantom import draw_patient
from msa_flax.files import NOTICE, csv_rows
from msa_flax.prediction import score
from msa_flax.prediction.inputs import PredictionError
from msa_flax.prediction.predictor import PHANTOM
from msa_flax.results import predictions
from msa_flax.results.predictions import predict_into
from msa_flax.results.predictor import fingerprint, predictor_of

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="msa", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=30, image_size=64),
)
TABLES = ("slices.csv", "series.csv", "refused.csv")


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained_run):
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    untrained_run(workdir, CONFIG.validate())
    return restore(workdir)


@pytest.fixture(scope="module")
def model(run):
    return predictor_of(run)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Eight patients in folders, a photograph of noise, a note and a damaged file."""
    root = tmp_path_factory.mktemp("new")
    for number in range(900, 908):
        for one in draw_patient(0, number):
            path = root / one.patient / f"{one.slice_index + 1}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), one.image)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    (root / "other").mkdir()
    cv2.imwrite(str(root / "other/noise.png"), noise)
    (root / "notes.txt").write_text("not an image")
    (root / "P0900/9.png").write_bytes((root / "P0900/8.png").read_bytes()[:-20])
    return root


def content(out):
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def whole(model, tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    said = predict_into(model, [str(tree)], out)
    return out, said


def test_the_tables_have_a_row_for_each_slice_series_and_refused_file(whole, run, tree):
    out, said = whole
    slices, series, refused = (csv_rows(out / name)[1:] for name in TABLES)
    assert (len(slices), len(series), len(refused)) == (65, 9, 2)
    assert [row[1] for row in refused] == ["not a PNG, JPEG or DICOM file", "truncated"][::-1]
    flagged = [row for row in slices if row[8]]
    assert str(tree / "other/noise.png") in [row[0] for row in flagged]
    assert all(bool(row[7]) != bool(row[8]) for row in slices)
    assert {row[7] for row in slices} <= {"", *CONFIG.data.classes}
    assert "65 slices of 9 series; 2 files refused" in said
    assert PHANTOM in said
    assert said.endswith(NOTICE)
    about = json.loads((out / "run.json").read_text())
    assert about["stamps"][0] == PHANTOM
    assert about["counts"] == {"slices": 65, "series": 9, "refused": 2, "flagged": len(flagged)}
    assert about["identity"]["model"] == fingerprint(run)
    assert about["model"]["trained_on"]["groups"] > 10


def test_the_probabilities_are_those_of_evaluation_and_of_python(whole, run, tree):
    rows = run.predict_files([tree])
    slices = csv_rows(whole[0] / "slices.csv")[1:]
    assert [row["path"] for row in rows] == [row[0] for row in slices]
    assert [np.float32(row["probability"]) for row in rows] == [np.float32(r[5]) for r in slices]
    assert [row["flags"] for row in rows] == [row[8] for row in slices]


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    whole, model, tree, tmp_path, monkeypatch
):
    out, taken = tmp_path / "out", []

    def killed(scorer, slices):
        for batch in score.score(scorer, slices):
            if len(taken) == 2:
                raise KeyboardInterrupt
            taken.append(batch.taken)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "score", killed)
        with pytest.raises(KeyboardInterrupt):
            predict_into(model, [str(tree)], out)
    assert [path.name for path in out.iterdir()] == [".unfinished.jsonl"]
    again = []
    monkeypatch.setattr(
        predictions,
        "score",
        lambda scorer, slices: again.append(len(slices)) or score.score(scorer, slices),
    )
    predict_into(model, [str(tree)], out)
    assert again == [66 - sum(taken)]
    assert content(out) == content(whole[0])


def test_the_same_again_does_nothing_and_other_files_are_refused(whole, run, model, tree, caplog):
    out, said = whole
    before = content(out)
    caplog.set_level("INFO", "msa_flax")
    assert predict_into(model, [str(tree)], out) == said
    assert "nothing to do" in caplog.text
    with pytest.raises(PredictionError, match="a prediction of other files"):
        predict_into(model, [str(tree / "P0901")], out)
    with pytest.raises(PredictionError, match="of another model"):
        predict_into(predictor_of(run.with_random_weights()), [str(tree)], out)
    with pytest.raises(PredictionError, match="of other settings"):
        predict_into(model, [str(tree)], out, identifiers=True)
    assert content(out) == before


def test_where_everything_is_refused_the_commonest_reason_is_said(model, tree, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("text")
    (tmp_path / "c.png").write_bytes(b"")
    out = tmp_path / "out"
    with pytest.raises(PredictionError, match=r"none of 3 files .* of 2: not a PNG, JPEG or DICOM"):
        predict_into(model, [str(tmp_path)], out)
    assert list(content(out)) == ["refused.csv"]
    assert len(csv_rows(out / "refused.csv")) == 4
    predict_into(model, [str(tree / "P0901")], out)  # it is free for another try
