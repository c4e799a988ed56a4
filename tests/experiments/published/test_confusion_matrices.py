"""The metrics are scikit-learn's, and monotone; regions count and list what they hold."""

import confusion_matrices
import numpy as np
import pytest
from confusion_matrices import METRICS, Region
from consistency import AVERAGINGS
from sklearn import metrics as sklearn_metrics


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_the_metrics_are_scikit_learns(averaging):
    for tp, fn, fp, tn in [(3, 1, 2, 4), (9, 1, 1, 2), (1, 7, 3, 5), (0, 2, 1, 3), (20, 0, 1, 19)]:
        labels = np.repeat([1, 1, 0, 0], [tp, fn, fp, tn])
        calls = np.repeat([1, 0, 1, 0], [tp, fn, fp, tn])
        precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
            labels, calls, average=averaging
        )
        expected = {
            "accuracy": sklearn_metrics.accuracy_score(labels, calls),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "specificity": sklearn_metrics.recall_score(labels, calls, pos_label=0),
            "npv": sklearn_metrics.precision_score(labels, calls, pos_label=0),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, calls),
            "mcc": sklearn_metrics.matthews_corrcoef(labels, calls),
        }
        counts = [np.array([count]) for count in (tp, fn, fp, tn)]
        found = {
            name: float(confusion_matrices.metric(name, averaging, counts)[0]) for name in METRICS
        }
        assert found == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("averaging", AVERAGINGS)
@pytest.mark.parametrize("swapped", [False, True])
def test_every_metric_grows_with_tp_and_falls_with_fp(averaging, swapped):
    """What the search by intervals rests on, where it is least obvious: sizes that differ."""
    for sizes in ((1, 40), (40, 1), (13, 31), (20, 20)):
        space = confusion_matrices.Space(
            n_positive=sizes[0], n_negative=sizes[1], averaging=averaging, swapped=swapped
        )
        tp, fp = np.meshgrid(*(np.arange(size + 1) for size in sizes), indexing="ij")
        for name in METRICS:
            grid = space.values(name, tp, fp)
            for axis, sign in ((0, 1), (1, -1)):
                steps = sign * np.diff(grid, axis=axis)
                assert steps[~np.isnan(steps)].min() >= -1e-12, name
            assert set(np.flatnonzero(np.isnan(grid.ravel()))) <= {0, grid.size - 1}


def region(*rows):
    return Region(*(np.array(column) for column in zip(*rows, strict=True)))


def listed(region, limit=100, **options):
    return list(zip(*(part.tolist() for part in region.take(limit, **options)), strict=True))


def test_a_region_lists_its_matrices_in_order_skipping_empty_rows():
    found = region((0, 2, 3), (1, 5, 4), (2, 0, 0))
    assert found.count == 3
    assert listed(found) == [(0, 2), (0, 3), (2, 0)]
    assert listed(found, 2) == [(0, 2), (0, 3)]
    assert listed(found, step=2) == [(0, 2), (2, 0)]


def test_a_part_is_taken_out_of_a_region():
    whole = region((0, 2, 6), (1, 0, 3), (2, 4, 4), (3, 1, 2))
    part = region((0, 3, 4), (1, 3, 2), (2, 4, 4), (3, 1, 1))
    left = listed(whole.without(part))
    assert left == [(0, 2), (0, 5), (0, 6), (1, 0), (1, 1), (1, 2), (1, 3), (3, 2)]
    assert whole.both(part).count + len(left) == whole.count


def test_products_of_large_counts_do_not_overflow():
    counts = [np.array([90_000]), np.array([10_000]), np.array([20_000]), np.array([80_000])]
    expected = (9 * 8 - 1 * 2) / (11 * 10 * 9 * 10) ** 0.5
    assert confusion_matrices.metric("mcc", "binary", counts)[0] == pytest.approx(
        expected, rel=1e-14
    )
