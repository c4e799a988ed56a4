import errno
import os

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prediction_tables import predictions_of

from msa_flax.evaluation import predictions as module
from msa_flax.evaluation.predictions import (
    COLUMNS,
    Predictions,
    PredictionsError,
    predict_logits,
    sigmoid,
)
from msa_flax.files import UserError

HEADER = ",".join(COLUMNS)
GOOD_ROW = "val/a.png,test,,B10,B10 (1),1,2,0.880797"


def small_table(n=5, **columns):
    names = np.array([f"val/{i}.png" for i in range(n)])
    defaults = {"example_id": names, "family": np.full(n, "B1 (7)")}
    group = np.array([f"B{i % 2}" for i in range(n)])
    return predictions_of(np.arange(n) % 2, np.linspace(-3, 3, n), group, **(defaults | columns))


def assert_equal(a, b):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype.kind == getattr(b, name).dtype.kind


def read_text(path, text):
    path.write_text(text, encoding="utf-8")
    return Predictions.read(path)


def test_a_written_table_is_read_back_equal(tmp_path):
    table = small_table()
    table.write(tmp_path / "p.csv")
    assert_equal(Predictions.read(tmp_path / "p.csv"), table)


def test_the_file_has_exactly_the_documented_columns_and_one_line_an_image(tmp_path):
    small_table().write(tmp_path / "p.csv")
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert lines[0] == "example_id,split,fold,group,family,label,logit,probability"
    assert lines[1] == "val/0.png,test,,B0,B1 (7),0,-3,0.0474258736"
    assert len(lines) == 6


def test_the_order_of_the_rows_does_not_change_the_bytes(tmp_path):
    table, order = small_table(), np.array([3, 0, 4, 2, 1])
    permuted = Predictions(**{name: getattr(table, name)[order] for name in COLUMNS})
    table.write(tmp_path / "a.csv")
    permuted.write(tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


@settings(max_examples=50, deadline=None)
@example(values=[np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal, -0.0])
@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float32_survives_the_file_bit_for_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("floats") / "p.csv"
    logits = np.array(values, np.float32)
    table = small_table(
        len(values),
        example_id=np.array([f"{i:05d}" for i in range(len(values))]),
        logit=logits,
        probability=sigmoid(logits),
    )
    table.write(path)
    again = Predictions.read(path)
    assert again.logit.tobytes() == logits.tobytes()
    assert again.probability.tobytes() == table.probability.tobytes()


def test_ids_with_commas_quotes_newlines_and_bytes_that_are_not_utf8_survive(tmp_path):
    ids = np.array(['a,"b"', "line\nbreak", "line\rbreak", "caf\udce9", "../../x"])
    small_table(example_id=ids).write(tmp_path / "p.csv")
    assert set(Predictions.read(tmp_path / "p.csv").example_id) == set(ids)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got nothing"),
        (HEADER + "\n", "at least one row"),
        (HEADER.replace("fold,", "") + "\na,test,B,B,1,2,0.9\n", "missing columns: fold"),
        (HEADER + ",score\n" + GOOD_ROW + ",1\n", "unexpected columns: score"),
        (HEADER + ",label\n" + GOOD_ROW + ",1\n", "unexpected columns: label"),
        (f"{HEADER}\n{GOOD_ROW}\n{GOOD_ROW}\n", "every id once; it is not so for 'val/a.png'"),
        (f"{HEADER}\n{GOOD_ROW}\nb,test\n", "8 cells per row, got 1 rows"),
        (f"{HEADER}\n{GOOD_ROW}".replace(",2,", ",nan,"), "logit: expected a finite"),
        (f"{HEADER}\n{GOOD_ROW}".replace(",2,", ",inf,"), "logit: expected a finite"),
        (f"{HEADER}\n{GOOD_ROW}".replace(",2,", ",1e39,"), "logit: expected a finite float32"),
        (f"{HEADER}\n{GOOD_ROW}".replace(",2,", ",two,"), "logit: expected a finite"),
        (f"{HEADER}\n{GOOD_ROW}".replace("0.88", "1.88"), "probability: expected 0..1"),
        (f"{HEADER}\n{GOOD_ROW}".replace("0.88", "-0.88"), "probability: expected 0..1"),
        (f"{HEADER}\n{GOOD_ROW}".replace(",1,2,", ",2,2,"), "label: expected 0 or 1"),
        (f"{HEADER}\n{GOOD_ROW}".replace(",1,2,", ",fracture,2,"), "label: expected 0 or 1"),
    ],
)
def test_a_file_that_is_not_such_a_table_is_refused_with_the_reason(tmp_path, text, message):
    with pytest.raises(PredictionsError, match=message) as caught:
        read_text(tmp_path / "p.csv", text)
    assert str(tmp_path / "p.csv") in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_row_those_refusals_start_from_is_itself_accepted(tmp_path):
    assert len(read_text(tmp_path / "p.csv", f"{HEADER}\n{GOOD_ROW}\n")) == 1


def test_all_problems_of_a_file_are_reported_together(tmp_path):
    bad = GOOD_ROW.replace(",1,2,0.88", ",7,x,1.88")
    with pytest.raises(PredictionsError) as caught:
        read_text(tmp_path / "p.csv", f"{HEADER},score\n{bad},1\n{bad},1\n")
    for word in ("unexpected columns", "every id once", "label", "logit", "probability"):
        assert word in str(caught.value)


def test_a_missing_file_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(PredictionsError, match="run evaluate first"):
        Predictions.read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.zeros(4, int)}, "one length"),
        ({"label": np.array([0, 1, 2, 0, 1])}, "label"),
        ({"logit": np.array([0, 0, np.nan, 0, 0])}, "logit"),
        ({"probability": np.array([0, 0, 1.5, 0, 0])}, "probability"),
        ({"example_id": np.array(["a", "b", "a", "c", "d"])}, "'a'"),
        ({"example_id": np.array(["a", "b", "", "c", "d"])}, "expected a name"),
    ],
)
def test_an_invalid_table_cannot_be_built(changes, message):
    with pytest.raises(PredictionsError, match=message):
        small_table(**changes)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    small_table().write(tmp_path / "p.csv")
    before = (tmp_path / "p.csv").read_bytes()

    def full_disk(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(module.os, "replace", full_disk)
    with pytest.raises(UserError, match="no space"):
        small_table(3).write(tmp_path / "p.csv")
    assert os.listdir(tmp_path) == ["p.csv"]
    assert (tmp_path / "p.csv").read_bytes() == before


def mean_minus_hundred(images):
    return images.astype(np.float64).mean(axis=(1, 2)).astype(np.float32) - 100


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_padding_the_last_batch_gives_what_no_padding_gives(n, batch_size):
    images = np.random.default_rng(0).integers(1, 256, (n, 6, 6), dtype=np.uint8)
    logits = predict_logits(mean_minus_hundred, images, batch_size=batch_size)
    # Exact: each image goes through the same operations, whatever its neighbours.
    np.testing.assert_array_equal(logits, mean_minus_hundred(images))
    assert logits.dtype == np.float32
    assert logits.shape == (n,)


def test_every_call_has_the_same_shape_and_the_results_of_black_padding_are_dropped():
    shapes = []

    def black_is_a_thousand(images):
        shapes.append((images.shape, images.dtype))
        return np.where(images.any(axis=(1, 2)), 0.0, 1000.0)

    images = np.ones((7, 6, 6), np.uint8)
    logits = predict_logits(black_is_a_thousand, images, batch_size=4)
    assert shapes == [((4, 6, 6), np.uint8)] * 2
    np.testing.assert_array_equal(logits, np.zeros(7))


def test_a_function_that_returns_a_column_is_refused():
    with pytest.raises(ValueError, match=r"expected shape \(2,\), got \(2, 1\)"):
        predict_logits(lambda x: np.zeros((2, 1)), np.ones((2, 6, 6), np.uint8), batch_size=2)


def test_the_sigmoid_is_right_at_hand_computed_points_and_never_overflows():
    got = sigmoid(np.array([0.0, np.log(3), -np.log(3), 1000.0, -1000.0]))
    # Within one rounding of float32.
    np.testing.assert_allclose(got, [0.5, 0.75, 0.25, 1.0, 0.0], rtol=6e-8)
    assert got.dtype == np.float32


def test_the_sigmoid_keeps_small_probabilities_where_a_float32_one_minus_would_lose_them():
    # 1 - sigmoid(30) in float32 is 0; the true value is exp(-30) within 1e-13.
    np.testing.assert_allclose(sigmoid(np.array([-30.0])), np.exp(-30.0), rtol=6e-8)


def test_the_worst_of_each_outcome_come_first_and_ids_decide_among_equals():
    probability = np.array([0.9, 0.1, 0.4, 0.1, 0.6, 0.6, 0.2, 0.8], np.float32)
    label = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    ids = np.array(list("hgfedcba"))
    table = predictions_of(label, np.zeros(8), example_id=ids, probability=probability)
    found = {key: ids[table.worst_first(key, 0.5)].tolist() for key in ("fn", "fp", "tp", "tn")}
    assert found == {"fn": ["e", "g", "f"], "fp": ["a", "c", "d"], "tp": ["h"], "tn": ["b"]}
