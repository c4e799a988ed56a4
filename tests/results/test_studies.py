import csv
import dataclasses
import json
import types

import numpy as np
import pytest
from challenge_folder import BOX_HEAD, HEAD, write_study, write_table
from sklearn.metrics import roc_auc_score

from msa_flax.config import Config, DataConfig
from msa_flax.data import list_images
from msa_flax.data.examples import DataError, from_rows
from msa_flax.evaluation import study_table
from msa_flax.evaluation.predictions import Predictions, PredictionsError
from msa_flax.evaluation.study import mean_of_top
from msa_flax.results import studies

SLICES = 8


def make_examples(count, *, known=True):
    rows = [
        {
            **{"example_id": f"{s:03d}/{i}", "group": f"P{s // 2:03d}" if known else ""},
            **{"study": f"S{s:03d}" if known else "", "label": int(s % 2 and 2 <= i < 5)},
            **{"family": "", "slice_index": i, "part": "", "height": 8, "width": 8},
        }
        for s in range(count)
        for i in range(SLICES)
    ]
    return from_rows(rows, np.zeros((len(rows), 8, 8), np.uint8))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of 40 studies of 20 patients in each split, whose network sees fractures somewhat."""
    splits = {name: make_examples(40) for name in ("validation", "test")}

    def predict(run, split):
        examples, rng = run.data.take(split), np.random.default_rng(len(split))
        logit = np.float32(rng.normal(-2, 1, len(examples)) + 1.5 * examples.label)
        text = {name: getattr(examples, name) for name in ("example_id", "group", "family")}
        blank = np.full(len(examples), "")
        return Predictions(
            **text,
            split=np.full(len(examples), split),
            fold=blank,
            label=examples.label,
            logit=logit,
            probability=1 / (1 + np.exp(-logit)),
        ), 0.0

    monkeypatch.setattr(studies, "predict_split", predict)
    folder = tmp_path / "eval" / "test"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"schema_version": 1, "split": "test"}')
    return types.SimpleNamespace(
        config=Config(),
        data=types.SimpleNamespace(take=splits.__getitem__, splits=splits),
        results=lambda split: tmp_path / "eval" / split,
    )


def table(run):
    with (run.results("test") / "studies.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_studies_are_written_beside_their_slices(run, capsys):
    section = studies.evaluate_studies(run, "test")
    saved = json.loads((run.results("test") / "metrics.json").read_text())
    assert saved["split"] == "test"  # what was there stays
    assert saved["study"]["n"] == section["n"] == 40
    assert saved["study"]["groups"] == 20
    rows = table(run)
    assert tuple(rows[0]) == study_table.COLUMNS
    assert [row["label"] for row in rows] == ["0", "1"] * 20
    assert {row["slices"] for row in rows} == {str(SLICES)}
    p = np.array([float(row["probability"]) for row in rows])
    assert section["metrics"]["auc"]["value"] == pytest.approx(roc_auc_score([0, 1] * 20, p))
    assert section["metrics"]["auc"]["method"] == "clustered bootstrap"
    called = [row["decision"] == "fracture" for row in rows]
    assert called == (np.float32(p) >= np.float32(section["threshold"])).tolist()
    assert "sensitivity" in capsys.readouterr().out


def test_threshold_and_score_come_from_validation_studies(run):
    first = studies.evaluate_studies(run, "test")
    examples = run.data.splits["test"]
    flipped = dataclasses.replace(examples, label=1 - examples.label)
    run.data.splits["test"] = flipped  # says nothing about what is chosen
    second = studies.evaluate_studies(run, "test")
    assert first["threshold"] == second["threshold"]
    assert first["aggregation"] == second["aggregation"]


def test_a_wanted_sensitivity_sets_the_threshold(run):
    section = studies.evaluate_studies(run, "test", sensitivity=0.8)
    assert section["sensitivity"]["sensitivity"] == 0.8
    assert section["threshold"] == section["sensitivity"]["threshold"]
    with pytest.raises(PredictionsError, match="takes at least"):
        studies.evaluate_studies(run, "test", sensitivity=0.99)  # of 20 patients


def test_studies_of_other_images_are_compared_with_what_validation_studies_chose(run):
    others = make_examples(12)
    others = dataclasses.replace(others, label=np.minimum(others.label, 0))
    own = studies.evaluate_studies(run, "test")
    run.data.splits["other"] = others
    predictions, _ = studies.predict_split(run, "other")
    predictions.write(run.results("other") / "predictions.csv")
    (run.results("other") / "metrics.json").write_text('{"schema_version": 1}')
    section = studies.evaluate_studies(run, "other", others=others)
    assert section["n"] == 12
    assert section["confusion"]["tp"] == section["confusion"]["fn"] == 0
    assert [section[k] for k in ("threshold", "aggregation")] == [
        own[k] for k in ("threshold", "aggregation")
    ]
    assert "level_auc" not in section


def test_images_without_study_and_patient_are_refused(run):
    run.data.splits["validation"] = make_examples(4, known=False)
    with pytest.raises(DataError, match="expected the study or the patient of every image, 32 of"):
        studies.evaluate_studies(run, "test")


def test_few_validation_studies_choose_the_mean_of_the_top(run):
    run.data.splits["validation"] = make_examples(6)
    section = studies.evaluate_studies(run, "test")
    assert section["aggregation"]["name"] == "top"
    predictions, _ = studies.predict_split(run, "test")
    first = mean_of_top(predictions.probability[:SLICES])
    assert float(table(run)[0]["probability"]) == pytest.approx(first, rel=1e-6)  # float32


def test_studies_of_the_challenge_are_scored_with_every_slice(tmp_path, run):
    """Studies with boxes on one slice, without fracture, and with a fracture and no boxes."""
    names = [f"1.{kind}.{k}" for kind in (1, 2, 3) for k in range(4)]
    levels = dict(zip(names, [*[1] * 4, *[0] * 4, *[1] * 4], strict=True))
    for name, broken in levels.items():
        write_study(tmp_path, name, grey=100 * broken)
    write_table(
        tmp_path / "train.csv", HEAD, [[n, b, 0, b, 0, 0, 0, 0, 0] for n, b in levels.items()]
    )
    boxes = [[name, 1, 1, 2, 2, 12] for name in names[:4]]
    write_table(tmp_path / "train_bounding_boxes.csv", BOX_HEAD, boxes)
    run.config = Config(
        data=DataConfig(
            source="rsna2022", root=str(tmp_path), protocol="kfold", folds=2, image_size=32
        )
    )
    halves = {"validation": ("1.1.0", "1.2.0", "1.2.1"), "test": ("1.1.1", "1.2.2", "1.2.3")}
    listing = list_images(run.config.data)
    assert len(listing.files) == 4 + 4 * 6
    run.data.splits.update(
        {split: types.SimpleNamespace(group=np.array(of)) for split, of in halves.items()}
    )
    run.predict = lambda images: images.mean(axis=(1, 2)).astype(np.float32) / 100 - 1
    section = studies.evaluate_studies(run, "test")
    rows = {row["study"]: row for row in table(run)}
    unboxed = {name for name in rows if name.startswith("1.3")}
    assert len(unboxed) == 2
    assert rows.keys() - unboxed == set(halves["test"])
    assert {row["slices"] for row in rows.values()} == {"6"}
    assert {name: int(row["label"]) for name, row in rows.items()} == {n: levels[n] for n in rows}
    assert section["confusion"] == {"tp": 3, "fn": 0, "fp": 0, "tn": 2}
    assert section["level_auc"]["C2"] == 1.0
    assert section["level_auc"]["C7"] is None  # there is no fracture of it
