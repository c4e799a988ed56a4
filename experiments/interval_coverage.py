r"""How often the 95 % intervals contain the truth.

    python experiments/interval_coverage.py

Claim: the intervals that an evaluation prints contain the true value in about 95 % of the samples.
This prints markdown tables: the coverage of Wilson's and Clopper and Pearson's interval, computed
exactly from the binomial distribution; and, simulated, that of DeLong's interval for independent
images and of the clustered interval for images that come in groups. It takes 13 minutes of
processor time, with --quick seconds; interval_coverage.md has the tables.

In the simulation the score of an image is d y + u + e, with label y, u ~ N(0, s^2) shared by the
images of a group, and e ~ N(0, 1); half of all images are fractures. The logit d (score - d/2) /
(1 + s^2) is right on average over groups, and 1.5 times that is too extreme.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from command_line import Parser, call

from msa_flax.evaluation import compute_metrics, intervals, metrics, sigmoid
from msa_flax.evaluation.calibration_slope import slope_and_intercept
from msa_flax.evaluation.summary import NAMES
from msa_flax.files import markdown_table

PROPORTIONS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98, 0.99)
SIZES = ((20, 20), (100, 5))  # groups, images per group
MAIN = ("accuracy", "auc")
TRUTH = 1_000_000  # images, each in a group of its own, whose metrics are the truth


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where images come from.

    Attributes:
        name: in the tables.
        d: distance of the classes.
        s: standard deviation of what a group's images share.
        labels: "mixed", by the toss of a coin; "uneven", a share of fractures for each group;
            "pure", every second group all fractures.
        stretch: 1 for right logits, more for too extreme ones.
    """

    name: str
    d: float
    s: float
    labels: str = "mixed"
    stretch: float = 1.0

    def sample(
        self, rng: np.random.Generator, groups: int, images: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns group, label and logit, [groups * images] each."""
        group = np.repeat(np.arange(groups), images)
        share = {
            "mixed": np.full(groups, 0.5),
            "uneven": 1 / (1 + np.exp(-2 * rng.normal(size=groups))),
            "pure": np.arange(groups) % 2.0,
        }[self.labels]
        label = rng.random(len(group)) < share[group]
        shared, own = self.s * rng.normal(size=groups), rng.normal(size=len(group))
        score = self.d * label + shared[group] + own
        logit = self.stretch * self.d * (score - self.d / 2) / (1 + self.s**2)
        return group, label, logit.astype(np.float32)

    def truth(self, rng: np.random.Generator) -> dict[str, float]:
        """Returns the metrics of very many groups; the calibration errors of right logits are 0."""
        _, label, logit = self.sample(rng, TRUTH, 1)
        images = metrics.sort_images(label, sigmoid(logit), threshold=0.5, logits=logit)
        once = np.ones((1, 1), np.intp)
        found = metrics.count_metrics(images, once) | metrics.rank_metrics(images, once)
        found |= slope_and_intercept(images, once)
        known = {"ece": 0.0, "ece_debiased": 0.0} if self.stretch == 1 else {}
        return {name: float(value[0]) for name, value in found.items()} | known


WORLDS = (
    World(name="A: both classes in a group", d=2, s=1),
    World(name="B: groups differ in their share of fractures", d=3, s=0.7, labels="uneven"),
    World(name="C: one class a group", d=3, s=0.7, labels="pure"),
    World(name="D: near 1, logits too extreme", d=4, s=1, stretch=1.5),
)


def of_proportion(method: str, n: int, p: float) -> float:
    """Returns the exact coverage of an interval for n trials: a sum of binomial probabilities."""
    from scipy import stats

    chance = stats.binom.pmf(np.arange(n + 1), n, p)
    found = 0.0
    for count in np.flatnonzero(chance > 1e-9):
        interval = getattr(intervals, method)(int(count), n)
        found += chance[count] * (interval.low <= p <= interval.high)
    return float(found)


def of_delong(rng: np.random.Generator, n: int, value: float, repetitions: int) -> float:
    """Returns the coverage of DeLong's interval for n independent images and a true AUC."""
    from scipy import stats

    label = np.arange(n) % 2 == 0
    shift = np.sqrt(2) * stats.norm.ppf(value)
    hits = []
    for _ in range(repetitions):
        found = intervals.delong_interval(label, rng.normal(size=n) + shift * label)
        if not found.reason:
            hits.append(found.low <= value <= found.high)
    return float(np.mean(hits))


def of_groups(
    rng: np.random.Generator, world: World, groups: int, images: int, repetitions: int
) -> dict[str, dict[str, float]]:
    """Returns coverage by kind of interval and metric.

    The kinds: "clustered"; "percentiles" of the same draws; "independent", which knows no groups.
    Repetitions without an interval (an accuracy of 1, say, has no percentiles) are left out.
    """
    truth = world.truth(rng)
    hits: dict[str, dict[str, list[bool]]] = {}
    for _ in range(repetitions):
        for kind, name, low, high in _intervals(*world.sample(rng, groups, images)):
            inside = low <= truth[name] <= high
            hits.setdefault(kind, {}).setdefault(name, []).append(inside)
    return {
        kind: {name: float(np.mean(found)) for name, found in by_name.items()}
        for kind, by_name in hits.items()
    }


def _intervals(
    group: np.ndarray, label: np.ndarray, logit: np.ndarray
) -> Iterator[tuple[str, str, float, float]]:
    """Yields kind, metric, and both ends."""
    names = np.char.mod("%05d", group)
    probability = sigmoid(logit)
    given: dict[str, Any] = {"threshold": 0.5, "logits": logit}
    for kind, known in (("clustered", names), ("independent", None)):
        found = compute_metrics(label, probability, group=known, **given)["metrics"]
        for name, entry in found.items():
            if entry["low"] is not None:
                yield kind, name, entry["low"], entry["high"]
    sorted_images = metrics.sort_images(label, probability, group=group, **given)
    weights = intervals.draw_groups(sorted_images.groups)
    draws = metrics.count_metrics(sorted_images, weights)
    draws |= metrics.rank_metrics(sorted_images, weights)
    for name in MAIN:
        low, high = np.nanquantile(draws[name], [0.025, 0.975])
        if low < high:
            yield "percentiles", name, float(low), float(high)


def proportions(quick: bool) -> str:
    """Returns the table of Wilson's and Clopper and Pearson's coverage."""
    rows = [
        [
            method.replace("_", "-"),
            f"{n:,}",
            *(f"{of_proportion(method, n, p):.3f}" for p in PROPORTIONS),
        ]
        for method in ("wilson", "clopper_pearson")
        for n in ((50, 400) if quick else (50, 400, 4000))
    ]
    head = ["interval", "n", *(f"p = {p:g}" for p in PROPORTIONS)]
    return f"### Proportions, exact\n\n{markdown_table(head, rows)}"


def areas(rng: np.random.Generator, repetitions: int) -> str:
    """Returns the table of DeLong's coverage."""
    values = (0.7, 0.9, 0.98)
    rows = [
        [f"{n:,}", *(f"{of_delong(rng, n, value, repetitions):.3f}" for value in values)]
        for n in (100, 400)
    ]
    head = ["images", *(f"AUC {value:g}" for value in values)]
    title = f"### DeLong, independent images, {repetitions:,} samples"
    return f"{title}\n\n{markdown_table(head, rows)}"


def clusters(rng: np.random.Generator, repetitions: int, quick: bool) -> str:
    """Returns the tables of the clustered interval's coverage."""
    settings = [(world, *size) for world in WORLDS for size in SIZES]
    settings = settings[:1] if quick else settings
    found = [of_groups(rng, *setting, repetitions) for setting in settings]
    kinds = ("independent", "percentiles", "clustered")
    first = [
        [world.name, f"{groups} x {images}", *(_number(got, k, m) for m in MAIN for k in kinds)]
        for (world, groups, images), got in zip(settings, found, strict=True)
    ]
    head = ["world", "groups x images", *(f"{metric}, {kind}" for metric in MAIN for kind in kinds)]
    second = [[name, *(_number(got, "clustered", name) for got in found)] for name in NAMES]
    columns = ["metric", *(f"{world.name[0]}, {groups}" for world, groups, _ in settings)]
    return (
        f"### Images in groups, {repetitions:,} samples\n\n{markdown_table(head, first)}\n\n"
        f"### Clustered interval, every metric; world, groups\n\n{markdown_table(columns, second)}"
    )


def _number(found: dict[str, dict[str, float]], kind: str, name: str) -> str:
    value = found.get(kind, {}).get(name)
    return "none" if value is None else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one world, few repetitions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repetitions", type=int, default=500, help="of images in groups")
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(options.seed)
    repetitions = 30 if options.quick else options.repetitions
    print(proportions(options.quick), end="\n\n")
    print(areas(rng, 100 if options.quick else 2000), end="\n\n")
    print(clusters(rng, repetitions, options.quick))
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
