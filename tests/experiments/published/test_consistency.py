"""The search is compared with loops over all matrices, in exact fractions."""

import itertools
import math
from fractions import Fraction

import pytest
from consistency import (
    AVERAGINGS,
    CLASSES,
    LARGEST,
    METRICS,
    ConsistencyError,
    parse,
    search,
)
from hypothesis import given, settings
from hypothesis import strategies as st

UNITS = {"rounded": Fraction(1, 2), "one unit": Fraction(3, 2)}
SLACK = Fraction(1, 10**12)  # the Matthews coefficient alone is no fraction, and computed in floats


# --- the second implementation: one matrix at a time, exactly -------------------------------------


def one_class(name, tp, fn, fp, tn):
    """Returns a metric as a Fraction (MCC as a float), None where it is undefined."""
    n = tp + fn + fp + tn
    if name == "mcc":
        product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
        return (tp * tn - fp * fn) / math.sqrt(product) if product else None
    if name == "balanced_accuracy":
        return (Fraction(tp, tp + fn) + Fraction(tn, tn + fp)) / 2
    if name == "f1" and tp + fp == 0:
        return None
    part, whole = {
        "accuracy": (tp + tn, n),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "npv": (tn, tn + fn),
        "f1": (2 * tp, 2 * tp + fp + fn),
    }[name]
    return Fraction(part, whole) if whole else None


def exact(name, averaging, matrix):
    tp, fn, fp, tn = matrix
    if averaging == "binary" or name not in ("precision", "recall", "f1"):
        return one_class(name, tp, fn, fp, tn)
    own, other = one_class(name, tp, fn, fp, tn), one_class(name, tn, fp, fn, tp)
    if own is None or other is None:
        return None
    if averaging == "macro":
        return (own + other) / 2
    return (own * (tp + fn) + other * (fp + tn)) / (tp + fn + fp + tn)


def distance(text, value):
    """Returns how many units of its last digit a printed number is away."""
    number, percent = text.rstrip("%"), text.endswith("%")
    decimals = len(number.partition(".")[2]) + 2 * percent
    printed = Fraction(number) / (100 if percent else 1)
    return math.inf if value is None else abs(Fraction(value) - printed) * 10**decimals


def every_matrix(n_positive, n_negative):
    """Yields the positive class, and TP, FN, FP, TN of it."""
    for tp, fp in itertools.product(range(n_positive + 1), range(n_negative + 1)):
        counts = (tp, n_positive - tp, fp, n_negative - fp)
        yield "first", counts
        yield "second", counts[::-1]


def every_fit(printed, n_positive, n_negative):
    found = set()
    for averaging in AVERAGINGS:
        for positive, matrix in every_matrix(n_positive, n_negative):
            away = [distance(text, exact(k, averaging, matrix)) for k, text in printed.items()]
            for tolerance, units in UNITS.items():
                if max(away) <= units + SLACK * 10**6:
                    found.add((averaging, positive, matrix, tolerance))
                    break
    return found


def found_fits(result, *, balanced):
    """Returns the fits of a result as single readings and matrices, as every_fit does."""
    found = set()
    for fit in result.fits:
        assert fit.count == len(fit.matrices)
        for averaging, positive in itertools.product(fit.reading.averaging, fit.reading.positive):
            both = len(fit.reading.positive) == 2
            for matrix in map(tuple, fit.matrices.tolist()):
                turned = both and positive == "second" and not balanced
                shown = matrix[::-1] if turned else matrix
                found.add((averaging, positive, shown, fit.tolerance))
    return found


def shown(value, decimals, percent):
    """Prints a metric as a table would."""
    if percent:
        return f"{100 * float(value):.{max(decimals - 2, 0)}f}%"
    return f"{float(value):.{decimals}f}"


@st.composite
def tables(draw, largest=6):
    """A confusion matrix, a reading, and the metrics of it, of which one may be falsified."""
    tp, fn, fp, tn = (draw(st.integers(0, largest)) for _ in range(4))
    fn, tn = fn + (tp + fn == 0), tn + (fp + tn == 0)
    averaging, positive = draw(st.sampled_from(AVERAGINGS)), draw(st.sampled_from(CLASSES))
    names = draw(st.lists(st.sampled_from(METRICS), min_size=1, max_size=5, unique=True))
    decimals, percent = draw(st.integers(2, 4)), draw(st.booleans())
    values = {name: exact(name, averaging, (tp, fn, fp, tn)) for name in names}
    printed = {k: shown(v, decimals, percent) for k, v in values.items() if v is not None}
    printed = printed or {"accuracy": shown(Fraction(tp + tn, tp + fn + fp + tn), 3, False)}
    sizes = (tp + fn, fp + tn) if positive == "first" else (fp + tn, tp + fn)
    return printed, sizes, (averaging, positive, (tp, fn, fp, tn), "rounded")


@given(tables())
@settings(deadline=None, max_examples=100)
def test_the_metrics_of_a_matrix_lead_back_to_it_and_all_fits_are_found(table):
    printed, sizes, own = table
    found = found_fits(search(printed, *sizes), balanced=sizes[0] == sizes[1])
    assert own in found
    assert found == every_fit(printed, *sizes)


@given(tables(largest=5), st.data())
@settings(deadline=None, max_examples=100)
def test_a_falsified_table_is_judged_as_by_a_loop_over_all_matrices(table, data):
    printed, sizes, _ = table
    name = data.draw(st.sampled_from(sorted(printed)))
    printed = printed | {name: f"0.{data.draw(st.integers(0, 999)):03d}"}
    result = search(printed, *sizes)
    expected = every_fit(printed, *sizes)
    assert found_fits(result, balanced=sizes[0] == sizes[1]) == expected
    if expected:
        assert result.nearest is None
        return
    off = {
        (averaging, positive, matrix): {
            key
            for key, text in printed.items()
            if distance(text, exact(key, averaging, matrix)) > UNITS["one unit"] + SLACK * 10**6
        }
        for averaging in AVERAGINGS
        for positive, matrix in every_matrix(*sizes)
    }
    reading, matrix = result.nearest.reading, result.nearest.matrix
    for averaging in reading.averaging:
        wrong = off[averaging, reading.positive[0], matrix]
        assert wrong == set(result.nearest.contradictions)
    if set(result.impossible) != set(printed):
        assert len(wrong) == min(map(len, off.values()))
    assert set(result.impossible) == set.intersection(*off.values())
    for key, value in result.nearest.contradictions.items():
        right = exact(key, reading.averaging[0], matrix)
        assert math.isnan(value) if right is None else value == pytest.approx(float(right))


# --- cases with a known answer --------------------------------------------------------------------


def fits(printed, *sizes, tolerance="rounded"):
    return {
        (averaging, positive, tuple(matrix))
        for fit in search(printed, *sizes).fits
        if fit.tolerance == tolerance
        for averaging in fit.reading.averaging
        for positive in fit.reading.positive
        for matrix in fit.matrices.tolist()
    }


def test_a_precision_of_the_other_class_tells_which_one_is_positive():
    # 30 + 70, TP 27 FN 3 FP 7 TN 63: of the second class precision 63/66, recall 63/70
    printed = {"accuracy": "0.900", "precision": "0.9545", "recall": "0.900"}
    found = fits(printed, 30, 70)
    assert ("binary", "second", (63, 7, 3, 27)) in found
    assert {positive for averaging, positive, _ in found if averaging == "binary"} == {"second"}


def test_macro_and_weighted_averages_are_told_apart_where_the_classes_differ():
    # 20 + 80, TP 10 FN 10 FP 4 TN 76: macro recall (0.5 + 0.95) / 2, weighted 0.86, the accuracy
    macro = fits({"accuracy": "0.8600", "recall": "0.7250", "precision": "0.7990"}, 20, 80)
    assert {averaging for averaging, _, _ in macro} == {"macro"}
    weighted = fits({"accuracy": "0.8600", "recall": "0.8600", "precision": "0.8498"}, 20, 80)
    assert {averaging for averaging, _, _ in weighted} == {"weighted"}
    for found in (macro, weighted):
        assert (10, 10, 4, 76) in {matrix for _, _, matrix in found}


def test_classes_of_one_size_merge_what_is_the_same():
    result = search({"accuracy": "0.9934", "recall": "0.9934", "precision": "0.9935"}, 380, 380)
    assert [fit.reading.averaging for fit in result.fits] == [("macro", "weighted")] * 2
    assert {fit.reading.positive for fit in result.fits} == {CLASSES}


def test_without_an_averaged_metric_any_averaging_does():
    (fit,) = search({"accuracy": "1.000"}, 3, 5).fits
    assert fit.reading.averaging == AVERAGINGS
    assert fit.reading.positive == CLASSES
    assert fit.matrices.tolist() == [[3, 0, 0, 5]]


@pytest.mark.parametrize(
    "printed",
    [
        {"accuracy": "99.75", "recall": "100.0"},
        {"accuracy": "99.75%", "recall": "100.0 %"},
        {"accuracy": ".9975", "recall": "1.000"},
        {"accuracy": "0.9975", "recall": "100.0"},
    ],
)
def test_fractions_and_per_cent_mean_the_same(printed):
    binary = {key for key in fits(printed, 200, 200) if key[0] == "binary"}
    assert {matrix for _, _, matrix in binary} == {(200, 0, 1, 199)}


@pytest.mark.parametrize("text", ["0.997", "0.998"])
def test_a_tie_may_be_rounded_up_or_down(text):
    assert (200, 0, 1, 199) in {key[2] for key in fits({"accuracy": text}, 200, 200)}  # 0.9975


def test_one_unit_is_counted_after_rounding():
    # 2 x 200 / 401 = 0.997506, which is printed as 0.9975, one unit from 0.9974
    printed = {"f1": "0.9974", "accuracy": "0.9975"}
    assert fits(printed, 200, 200) == set()
    assert ("binary", "first", (200, 0, 1, 199)) in fits(printed, 200, 200, tolerance="one unit")
    assert not search(printed | {"f1": "0.9973"}, 200, 200).fits


def test_what_is_undefined_fits_no_number():
    """Nothing is called positive: precision is 0/0, whatever a library prints for it."""
    assert fits({"accuracy": "0.50", "recall": "0.00"}, 2, 2)
    result = search({"accuracy": "0.50", "recall": "0.00", "precision": "0.00"}, 2, 2)
    assert result.fits == ()
    assert result.impossible == ()
    assert result.nearest is not None


def test_a_contradiction_is_named_with_what_the_matrix_has():
    printed = {"accuracy": "97.50", "recall": "0.47", "f1": "0.49", "precision": "0.49"}
    result = search(printed | {"auc": "0.99"}, 200, 200)
    assert result.fits == ()
    assert result.ignored == ("auc",)
    assert result.impossible == ()
    assert list(result.nearest.contradictions) == ["accuracy"]
    tp, fn, fp, tn = result.nearest.matrix
    assert (tp + fn, fp + tn) == (200, 200)
    assert result.nearest.contradictions["accuracy"] == pytest.approx((tp + tn) / 400)


def test_an_accuracy_that_the_counts_do_not_allow_is_called_impossible():
    result = search({"accuracy": "97.45", "recall": "0.97"}, 200, 200)  # 389.8 of 400
    assert result.impossible == ("accuracy",)
    assert result.nearest.contradictions == {"accuracy": pytest.approx(0.975)}


def test_where_every_metric_is_impossible_the_nearest_is_still_near():
    result = search({"accuracy": "0.12345", "recall": "0.54321"}, 10, 10)
    assert set(result.impossible) == {"accuracy", "recall"}
    assert set(result.nearest.contradictions) == {"accuracy", "recall"}


def test_all_matrices_are_counted_and_some_are_listed():
    result = search({"accuracy": "0.900"}, 4000, 4000, limit=7)
    counts = {fit.tolerance: fit.count for fit in result.fits}
    # errors FN + FP of 8000 within 4, then 12, of 800; k errors can be shared out in k + 1 ways
    rounded = sum(k + 1 for k in range(796, 805))
    assert counts == {
        "rounded": rounded,
        "one unit": sum(k + 1 for k in range(788, 813)) - rounded,
    }
    assert all(fit.matrices.shape == (7, 4) for fit in result.fits)


def test_the_largest_sizes_are_searched_without_listing_their_matrices():
    printed = {"accuracy": "0.9000", "recall": "0.8800", "f1": "0.89796", "mcc": "0.8006"}
    (fit,) = [
        found
        for found in search(printed, LARGEST, LARGEST, limit=1).fits
        if (found.tolerance, found.reading.averaging) == ("rounded", ("binary",))
    ]
    tp, fn, fp, tn = fit.matrices[0].tolist()
    assert (tp + tn) / (2 * LARGEST) == pytest.approx(0.9, abs=5e-5)
    assert 2 * tp / (2 * tp + fp + fn) == pytest.approx(0.89796, abs=5e-6)


@pytest.mark.parametrize(
    ("text", "metric", "said"),
    [
        ("high", "recall", "recall: expected a number as printed"),
        ("", "recall", "got ''"),
        ("nan", "recall", "got 'nan'"),
        ("1e-3", "recall", "got '1e-3'"),
        ("0,99", "recall", "got '0,99'"),
        ("101", "recall", "recall: expected 0 to 1 or, in per cent, 0 to 100; got '101'"),
        ("-0.1", "recall", "got '-0.1'"),
        ("-101", "mcc", "mcc: expected -1 to 1 or, in per cent, -100 to 100; got '-101'"),
    ],
)
def test_what_is_no_metric_is_refused_in_a_sentence(text, metric, said):
    with pytest.raises(ConsistencyError) as caught:
        parse(text, metric)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_matthews_coefficient_may_be_negative_with_either_minus():
    assert parse("-0.25", "mcc") == parse("\N{MINUS SIGN}0.25", "mcc")
    assert ("binary", "first", (1, 3, 3, 1)) in fits({"mcc": "-0.50", "recall": "0.25"}, 4, 4)


@pytest.mark.parametrize(
    ("printed", "sizes", "said"),
    [
        ({"sensitivity": "0.9"}, (2, 2), "unknown metric 'sensitivity'; known are accuracy"),
        ({}, (2, 2), "expected at least one of accuracy"),
        ({"auc": "0.9"}, (2, 2), "expected at least one of accuracy"),
        ({"accuracy": "0.9"}, (0, 2), "expected 1 to 100,000 images of each class, got 0 and 2"),
        ({"accuracy": "0.9"}, (2, LARGEST + 1), "got 2 and 100,001"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_a_sentence(printed, sizes, said):
    with pytest.raises(ConsistencyError) as caught:
        search(printed, *sizes)
    assert said in str(caught.value)
