"""Files of a run that were changed since training wrote them, or that nobody can check."""

import pytest

from msa_flax import files, run_files


@pytest.mark.parametrize(
    ("values", "said"),
    [(None, "is gone"), ({}, "has no hashes"), ({"files": []}, "has no hashes")],
)
def test_a_run_whose_files_cannot_be_checked_is_refused_or_stamped(tmp_path, values, said):
    if values is not None:
        files.write_json(tmp_path / "run.json", values)
    with pytest.raises(files.UserError, match=rf"run\.json {said}, so that .* --accept_changes"):
        run_files.check_run_files(tmp_path, accept=False)
    stamps = run_files.check_run_files(tmp_path, accept=True)
    assert stamps == [f"files of the run could not be checked: run.json {said}"]


def test_files_of_a_run_that_changed_are_refused_or_stamped(tmp_path):
    for name in run_files.RUN_FILES:
        (tmp_path / name).write_text("x")
    known = {name: files.sha256(tmp_path / name) for name in run_files.RUN_FILES}
    files.write_json(tmp_path / "run.json", {"files": known})
    assert run_files.check_run_files(tmp_path, accept=False) == []
    (tmp_path / "splits.csv").write_text("y")
    with pytest.raises(files.UserError, match=r"splits\.csv changed .*--accept_changes"):
        run_files.check_run_files(tmp_path, accept=False)
    stamps = run_files.check_run_files(tmp_path, accept=True)
    assert stamps == ["files of the run were changed by hand: splits.csv"]
    curves = tmp_path / run_files.CURVES
    curves.write_text("epochs")
    hashes = known | {"splits.csv": files.sha256(tmp_path / "splits.csv")}
    files.write_json(tmp_path / "run.json", {"files": hashes})
    assert run_files.check_run_files(tmp_path, accept=False) == []  # of a run that still trains
    hashes[curves.name] = files.sha256(curves)
    files.write_json(tmp_path / "run.json", {"files": hashes})
    assert run_files.check_run_files(tmp_path, accept=False) == []
    curves.write_text("better epochs")
    with pytest.raises(files.UserError, match=r"metrics\.jsonl changed since"):
        run_files.check_run_files(tmp_path, accept=False)
    files.write_json(tmp_path / "run.json", {"files": {}})
    with pytest.raises(files.UserError, match=r"config\.json and splits\.csv changed since"):
        run_files.check_run_files(tmp_path, accept=False)
