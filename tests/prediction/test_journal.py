import json

import pytest

from msa_flax.prediction.inputs import PredictionError
from msa_flax.prediction.journal import Journal, is_finished
from msa_flax.prediction.score import Batch

ME = {"inputs": "a", "model": "b", "settings": "c"}


def batch(*paths, refused=()):
    rows = [{"path": path, "probability": 0.5} for path in paths]
    refused = [(path, "truncated") for path in refused]
    return Batch(rows=rows, refused=refused, taken=len(rows) + len(refused))


def test_it_goes_on_after_the_last_whole_batch(tmp_path):
    journal = Journal(tmp_path / "out", ME)
    journal.add(batch("1", "2", refused=["3"]))
    journal.add(batch("4"))
    journal.close()
    with journal.path.open("ab") as file:
        file.write(b'{"rows": [{"path": "5"')  # a kill in the middle of a line
    again = Journal(tmp_path / "out", ME)
    assert again.done == 4
    again.add(batch("5", "6\udcff"))
    assert [row["path"] for row in again.rows()] == ["1", "2", "4", "5", "6\udcff"]
    assert again.refused() == [("3", "truncated")]
    again.close(finished=True)
    assert not list((tmp_path / "out").iterdir())


def test_a_kill_before_the_first_line_is_whole_is_no_trouble(tmp_path):
    journal = Journal(tmp_path, ME)
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes()[:9])
    again = Journal(tmp_path, ME)
    again.add(batch("1"))
    assert [row["path"] for row in again.rows()] == ["1"]
    again.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [("inputs", "other files"), ("model", "another model"), ("settings", "other settings")],
)
def test_another_prediction_is_refused_and_stays(name, said, tmp_path):
    journal = Journal(tmp_path, ME)
    journal.add(batch("1"))
    journal.close()
    before = journal.path.read_bytes()
    other = ME | {name: "d"}
    with pytest.raises(PredictionError, match=f"a prediction of {said}; nothing was overwritten"):
        Journal(tmp_path, other)
    assert journal.path.read_bytes() == before
    (tmp_path / "run.json").write_text(json.dumps({"identity": ME}))
    assert is_finished(tmp_path, ME)
    with pytest.raises(PredictionError, match=said):
        is_finished(tmp_path, other)


def test_two_at_a_time_are_refused(tmp_path):
    journal = Journal(tmp_path, ME)
    with pytest.raises(PredictionError, match="another process"):
        Journal(tmp_path, ME)
    journal.close()
    Journal(tmp_path, ME).close()


def test_folders_with_other_files_are_refused(tmp_path):
    assert not is_finished(tmp_path / "new", ME)
    (tmp_path / "refused.csv").write_text("")
    assert not is_finished(tmp_path, ME)
    (tmp_path / "thesis.doc").write_text("")
    with pytest.raises(PredictionError, match=r"holds other files, such as thesis\.doc"):
        is_finished(tmp_path, ME)
    with pytest.raises(PredictionError, match="got the file"):
        is_finished(tmp_path / "thesis.doc", ME)
    other = tmp_path / "run"
    other.mkdir()
    (other / "run.json").write_text("{}")  # of a training
    with pytest.raises(PredictionError, match=r"such as run\.json"):
        is_finished(other, ME)
