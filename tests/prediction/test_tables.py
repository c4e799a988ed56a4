from msa_flax.config import DataConfig
from msa_flax.files import csv_rows
from msa_flax.prediction.score import UNLIKE, Scorer
from msa_flax.prediction.tables import SERIES, SLICES, by_series, series_row, write_table

SCORER = Scorer(
    describe=lambda images: (images, images),
    data=DataConfig(classes=("intact", "broken")),
    batch_size=4,
    configured=0.5,
    calibration=None,
    typicality=None,
)


def row(path, probability, *, series="s", flags="", **more):
    known = {"path": path, "patient": "", "study": "", "series": series, "position_mm": None}
    known |= {"probability": probability, "calibrated": None, "decision": "x", "flags": flags}
    return known | more


def test_the_table_is_read_back_and_no_cell_is_a_formula(tmp_path):
    path = tmp_path / "slices.csv"
    rows = [row("=1+1.png", 0.1, position_mm=-12.5), row('a,"b\n.png', 0.333333343)]
    write_table(path, SLICES, rows)
    head, first, second = csv_rows(path)
    assert tuple(head) == SLICES
    assert first[0] == "=1+1.png"
    assert "'=1+1.png" in path.read_text()
    assert (first[4], first[5]) == ("-12.500", "0.1")
    assert (second[0], second[4], second[5]) == ('a,"b\n.png', "", "0.333333343")
    assert not list(tmp_path.glob(".*"))


def test_series_follow_one_another():
    rows = [row("a", 0.1), row("b", 0.2), row("c", 0.3, series="t")]
    assert [[r["path"] for r in members] for members in by_series(rows)] == [["a", "b"], ["c"]]


def test_a_series_has_the_highest_probability_of_its_slices():
    rows = [row(str(i), i / 10, patient="p") for i in range(8)]
    found = series_row(SCORER, rows, ())
    assert set(found) == set(SERIES)
    assert (found["probability"], found["slices"], found["patient"]) == (0.7, 8, "p")
    assert (found["top_slices"], found["decision"], found["flags"]) == ("7;6;5", "broken", "")


def test_flagged_slices_drive_no_score_and_many_of_them_flag_the_series():
    rows = [row(str(i), i / 20) for i in range(20)]
    one = [*rows[:-1], dict(rows[-1], flags=UNLIKE)]
    found = series_row(SCORER, one, ())
    assert (found["top_slices"], found["decision"]) == ("18;17;16", "broken")
    three = [*rows[:-3], *(dict(r, flags=UNLIKE) for r in rows[-3:])]
    found = series_row(SCORER, three, ())
    assert (found["decision"], found["flags"]) == ("", f"{UNLIKE}: 3 of 20 slices")
    every = [dict(r, flags=UNLIKE) for r in rows]
    assert series_row(SCORER, every, ())["probability"] == 19 / 20


def test_what_is_odd_about_a_series_is_in_its_flags_and_nothing_is_decided():
    found = series_row(SCORER, [row("a", 0.9)], ("a gap of 3 steps",))
    assert (found["decision"], found["flags"]) == ("", "a gap of 3 steps")
    assert series_row(SCORER, [row("a", 0.1)], ())["decision"] == "intact"
