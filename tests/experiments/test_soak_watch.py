"""The short form of the soak of the watching command: nothing is lost, nothing is there twice."""

import pytest
from command_line import call
from peers import missing
from soak_watch import held, main, soak

COUNTS = {
    "studies in": 2,
    "results in the archive": 2,
    "lines in the log": 2,
    "states": {"done": 2},
    **dict.fromkeys(("lost", "doubled", "of no study", "studies with two lines"), 0),
    "images changed": 0,
}


def test_two_kills_an_absent_archive_and_a_full_disk_lose_nothing(tmp_path):
    if gone := missing("Orthanc", "storescp", "storescu"):
        pytest.skip(gone)
    counts = soak(tmp_path / "night", studies=6, kills=2, seed=0, pause=2.0)
    assert held(counts), counts
    assert (counts["studies in"], counts["kills"]) == (6, 2)
    assert counts["exit code"] == 128 + 15  # it was asked to end by SIGTERM


@pytest.mark.parametrize(
    "wrong",
    [
        {"lost": 1},
        {"doubled": 1},
        {"results in the archive": 1},
        {"lines in the log": 3},
        {"states": {"done": 1, "failed": 1}},
        {"images changed": 1},
    ],
)
def test_whatever_is_wrong_is_seen(wrong):
    assert held(COUNTS)
    assert not held(COUNTS | wrong)


@pytest.mark.parametrize(
    ("given", "reason"),
    [(["--kills", "1"], "expected 2 or more"), (["--studies", "30"], "twice as many studies")],
)
def test_a_wrong_command_line_is_one_sentence(given, reason, tmp_path, capsys):
    assert call(main, ["--out", str(tmp_path / "night"), *given]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "night").exists()
