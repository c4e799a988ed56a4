"""Runs compared on the same images: which difference gets which interval and which test."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation import intervals, metrics, significance
from msa_flax.evaluation.intervals import TAIL, Interval
from msa_flax.evaluation.predictions import Predictions
from msa_flax.evaluation.summary import without_images
from msa_flax.files import UserError, csv_text

METRICS = ("auc", "accuracy", "recall", "specificity", "brier", "log_loss")
METHODS = {  # of intervals, and of the tests that belong to them
    "clustered bootstrap": intervals.METHODS["clustered bootstrap"],
    "delong": "DeLong's variance of a difference, taking images as independent",
    "agresti-min": "Agresti and Min's interval of matched proportions, taking images as "
    "independent",
    "t of groups": "the difference over its clustered standard error, as Student's t",
    "flips of groups": "exact, the two runs changing places in whole groups",
    "mcnemar": "McNemar's exact test, taking images as independent",
}
_PROPORTIONS = ("accuracy", "recall", "specificity")


class ComparisonError(UserError):
    """Runs cannot be compared in pairs; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """By how much a metric of a run differs from that of the first run, on the same images.

    Attributes:
        first: name of the first run.
        second: name of the run that is compared with it.
        metric: one of :data:`METRICS`.
        first_value: the metric of the first run, None if undefined.
        second_value: that of the other run.
        difference: second - first.
        low: lower end of its 95 % interval, None where there is none.
        high: upper end.
        method: how the interval was made, a key of :data:`METHODS`, or "none".
        only_first: for a proportion, the number of images that only the first run gets right.
        only_second: for a proportion, the number that only the other run gets right.
        p: two-sided p value of no difference, None where there is no test.
        p_holm: the same, adjusted for all tests of one call of :func:`compare_runs`.
        test: how p was made, a key of :data:`METHODS`, or "none".
        images: number of images that the metric is about (for recall: the fractures).
        groups: of their groups; for the AUC, the groups with a fracture or those with a normal
            image, whichever are fewer; 0 if the groups are not known.
        reason: why something is missing, or "".
    """

    first: str
    second: str
    metric: str
    first_value: float | None = None
    second_value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = "none"
    only_first: int | None = None
    only_second: int | None = None
    p: float | None = None
    p_holm: float | None = None
    test: str = "none"
    images: int
    groups: int
    reason: str = ""


COLUMNS = tuple(field.name for field in dataclasses.fields(PairedDifference))


def compare_runs(
    runs: Mapping[str, tuple[Predictions, float]], *, classes: tuple[str, str] = metrics.CLASSES
) -> list[PairedDifference]:
    """Returns how every further run differs from the first, in every one of :data:`METRICS`.

    The metrics are those of :func:`msa_flax.evaluation.summary.compute_metrics`, each run's at its
    own threshold. For intervals and tests, which :mod:`msa_flax.evaluation.significance` defines,
    there is one rule, like the one there:

    - No image's group is known: images are taken as independent, which slices of one patient are
      not. ``delong_test`` for the AUC; ``agresti_min`` and ``sign_flip_test`` of images, which is
      McNemar's exact test, for proportions; nothing for the others.
    - Every image's group is known: ``sign_flip_test`` of whole groups for proportions, however few
      the groups; and from 10 groups on :func:`msa_flax.evaluation.intervals.clustered` for all, in
      which both runs have the same draws, with a test from the same standard error for what is no
      proportion. For the AUC, fractures and normal images must each be of 10 groups, and the
      fewer ones count: with few groups of fractures among many, to count all of them would call
      equal runs different too often.
    - Groups known of some images only, or not the same in all runs: neither.

    The p values are adjusted together by ``holm``, all metrics and all runs as one family. The
    order of the images changes nothing.

    Args:
        runs: name to predictions and threshold, the first run first; two or more.
        classes: names of the labels 0 and 1, for the reasons.

    Raises:
        ComparisonError: one run only, or runs that predict other images or know other labels of
            them.
    """
    if len(runs) < 2:
        raise ComparisonError(f"expected two or more runs to compare, got {len(runs)}")
    images, rows = _align(runs)
    images = dataclasses.replace(images, classes=classes)
    first, *others = (_measure(images, rows[name], name, runs[name][1]) for name in runs)
    found = [_difference(images, metric, first, run) for run in others for metric in METRICS]
    tested = [i for i, row in enumerate(found) if row.p is not None]
    adjusted = significance.holm(np.array([found[i].p for i in tested], np.float64))
    for i, p in zip(tested, adjusted.tolist(), strict=True):
        found[i] = dataclasses.replace(found[i], p_holm=p)
    return found


def as_csv(found: Sequence[PairedDifference]) -> str:
    """Returns differences as CSV, one row each, with empty cells for what is missing."""
    return csv_text(COLUMNS, map(dataclasses.astuple, found))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Images:
    """What all runs share: label bool [n], group int [n], and what is known of the groups."""

    label: np.ndarray
    group: np.ndarray
    groups: int  # 0 where no image's group is known
    refusal: str  # why the groups cannot be used, or ""
    classes: tuple[str, str] = metrics.CLASSES

    def about(self, metric: str) -> np.ndarray:
        """Returns the numbers of the images that a metric is about."""
        chosen = {"recall": self.label, "specificity": ~self.label}
        return np.flatnonzero(chosen.get(metric, np.ones_like(self.label)))

    def groups_of(self, metric: str) -> int:
        """Returns how many groups a metric depends on."""
        if metric == "auc":
            return min(self.groups_of("recall"), self.groups_of("specificity"))
        return len(np.unique(self.group[self.about(metric)])) if self.groups else 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """A run on these images: probability float [n], right bool [n], metrics and their draws."""

    name: str
    probability: np.ndarray
    right: np.ndarray
    values: Mapping[str, float]
    draws: Mapping[str, np.ndarray]  # empty where the groups are too few or not known


def _align(runs: Mapping[str, tuple[Predictions, float]]) -> tuple[_Images, dict[str, Predictions]]:
    """Returns the images, and every run's predictions in one order of them."""
    tables = {name: table.take(np.argsort(table.example_id)) for name, (table, _) in runs.items()}
    (first, one), *others = tables.items()
    for name, table in others:
        if not np.array_equal(table.example_id, one.example_id):
            common = len(np.intersect1d(table.example_id, one.example_id))
            raise ComparisonError(
                f"{name}: expected the {len(one)} images of {first}, got {len(table)}, of "
                f"which {common} are among them; compare runs of one data set and split"
            )
        if other := int(np.sum(table.label != one.label)):
            raise ComparisonError(
                f"{name}: expected the labels of {first}, got other labels of {other} images; "
                "compare runs of one data set"
            )
    names, group = np.unique(one.group, return_inverse=True)
    refusal = _refusal(one, [table for _, table in others])
    known = 0 if refusal or not one.group[0] else len(names)
    return _Images(label=one.label == 1, group=group, groups=known, refusal=refusal), tables


def _refusal(one: Predictions, others: Sequence[Predictions]) -> str:
    """Returns why images can be taken neither as independent nor in their groups, or ""."""
    apart = int(np.sum(np.any([table.group != one.group for table in others], axis=0)))
    unknown = int(np.sum(one.group == ""))
    if apart:
        return f"the runs have other groups for {apart} of {len(one)} images"
    if 0 < unknown < len(one):
        return f"the group of {unknown} of {len(one)} images is unknown"
    return ""


def _measure(images: _Images, table: Predictions, name: str, threshold: float) -> _Run:
    """Returns a run's metrics on the images, and those of draws of groups where there are enough.

    All runs get the same draws.
    """
    in_order = metrics.sort_images(
        images.label, table.probability, threshold=threshold, logits=table.logit, group=images.group
    )
    once = metrics.weighted_metrics(in_order, np.ones((1, in_order.groups), np.intp))
    draws = {}
    if images.groups >= intervals.FEWEST:
        draws = metrics.weighted_metrics(in_order, intervals.draw_groups(images.groups))
    return _Run(
        name=name,
        probability=table.probability,
        right=metrics.called_fractures(table.probability, threshold) == images.label,
        values={metric: float(once[metric][0]) for metric in METRICS},
        draws=draws,
    )


def _difference(images: _Images, metric: str, one: _Run, two: _Run) -> PairedDifference:
    about, value = images.about(metric), two.values[metric] - one.values[metric]
    row = PairedDifference(
        first=one.name,
        second=two.name,
        metric=metric,
        images=len(about),
        groups=images.groups_of(metric),
        reason=without_images(images.classes).get(metric, metrics.ONE_CLASS),  # if it is undefined
    )
    if not np.isfinite(value):
        return row
    # -1 where only the first run is right, 1 where only the other is
    sign = two.right[about].astype(int) - one.right[about].astype(int)
    interval, p, test = _judge(images, metric, one, two, sign)
    found: dict[str, Any] = {"method": interval.method, "reason": interval.reason}
    if not interval.reason:
        found |= {"low": interval.low, "high": interval.high}
    if metric in _PROPORTIONS:
        found |= {"only_first": int(np.sum(sign < 0)), "only_second": int(np.sum(sign > 0))}
    if not np.isnan(p):
        found |= {"p": p, "test": test}
    return dataclasses.replace(
        row,
        first_value=one.values[metric],
        second_value=two.values[metric],
        difference=value,
        **found,
    )


def _judge(
    images: _Images, metric: str, one: _Run, two: _Run, sign: np.ndarray
) -> tuple[Interval, float, str]:
    """Returns interval, p value (NaN if none) and test, by the rule of :func:`compare_runs`."""
    if images.refusal:
        return Interval(reason=images.refusal), np.nan, "none"
    if not images.groups and metric in _PROPORTIONS:
        found = significance.agresti_min(int(np.sum(sign < 0)), int(np.sum(sign > 0)), len(sign))
        return found, significance.sign_flip_test(sign), "mcnemar"
    if not images.groups and metric == "auc":
        return *significance.delong_test(images.label, one.probability, two.probability), "delong"
    if not images.groups:
        return Interval(reason=intervals.ONLY_WITH_GROUPS), np.nan, "none"
    found, p = _of_groups(metric, images.groups_of(metric), one, two)
    if metric in _PROPORTIONS:
        totals = np.bincount(images.group[images.about(metric)], sign)
        return found, significance.sign_flip_test(totals.astype(int)), "flips of groups"
    return found, p, "t of groups"


def _of_groups(metric: str, groups: int, one: _Run, two: _Run) -> tuple[Interval, float]:
    """Returns the clustered interval and the p value of the t that it is made from."""
    from scipy import stats

    if groups < intervals.FEWEST:
        of = "of one class there are " if metric == "auc" else ""
        return Interval(reason=of + intervals.too_few(groups)), np.nan
    value = two.values[metric] - one.values[metric]
    found = intervals.clustered(value, two.draws[metric] - one.draws[metric], groups)
    if found.reason:
        return found, np.nan
    error = (found.high - value) / stats.t.isf(TAIL, groups - 1)
    return found, float(2 * stats.t.sf(abs(value) / error, groups - 1))
