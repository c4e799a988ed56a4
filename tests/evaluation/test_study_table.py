import numpy as np
import pytest

from msa_flax.evaluation.predictions import PredictionsError
from msa_flax.evaluation.study import StudyScores
from msa_flax.evaluation.study_table import COLUMNS, read_studies, write_studies


@pytest.fixture
def path(tmp_path):
    scores = StudyScores(
        study=np.array(["S1", "S2", "S3"]),
        patient=np.array(["P1", "P2", ""]),
        label=np.array([1, 0, 1]),
        slices=(np.zeros(4), np.zeros(5), np.zeros(6)),
    )
    levels = {"C1": np.array([True, False, False]), "C7": np.array([True, False, True])}
    path = tmp_path / "studies.csv"
    write_studies(path, scores, np.array([0.9, 0.1, 1 / 3]), threshold=0.3, levels=levels)
    return path


def test_a_table_comes_back_as_it_was_written(path):
    assert path.read_text().splitlines()[:2] == [
        ",".join(COLUMNS),
        "S1,P1,4,1,0.899999976,fracture,C1;C7",
    ]
    table = read_studies(path)
    assert table.patient.tolist() == ["P1", "P2", ""]
    assert table.label.tolist() == [1, 0, 1]
    assert table.probability.tolist() == np.array([0.9, 0.1, 1 / 3], np.float32).tolist()
    found = {name: column.tolist() for name, column in table.fractured(["C1", "C7"]).items()}
    assert found == {"C1": [True, False, False], "C7": [True, False, True]}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("S2,P2,5,0,", "S2,P2,5,two,", "two"),
        ("S2,P2,5,0,", "S2,P2,5,7,", "expected labels 0 or 1"),
        ("0.899999976", "1.5", "probabilities of 0 to 1"),
        ("0.899999976", "nan", "probabilities of 0 to 1"),
        ("study,patient", "study", "expected the columns"),
        (",C1;C7", "", "expected the columns"),
    ],
)
def test_a_damaged_table_is_refused(path, old, new, said):
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(PredictionsError, match=said):
        read_studies(path)


def test_a_table_without_studies_is_empty(path):
    path.write_text(",".join(COLUMNS) + "\n")
    assert len(read_studies(path).label) == 0
