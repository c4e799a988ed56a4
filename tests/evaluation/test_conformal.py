"""Conformal sets: how often they hold the right class is counted, class by class."""

import numpy as np
import pytest
from scipy import stats

from msa_flax.evaluation.conformal import limits, p_values, sets, summarise_sets

SETS = ("neither", "normal", "fracture", "both")
ALPHA = 0.1
DRAWS = 4000  # of a calibration split of 29 images and a new image of each class


def images(rng, fractures, normal):
    labels = np.repeat([1, 0], [fractures, normal])
    return rng.normal(2.0 * labels - 1, 1.5).astype(np.float32), labels


def coverage(new_sets=None, *, decimals=None, seed=0):
    """Share of new images of each class whose set holds the class: [normal, fracture]."""
    rng = np.random.default_rng(seed)
    hits = np.zeros(2)
    for _ in range(DRAWS):
        logits, labels = images(rng, 8, 21)
        new = images(rng, 1, 1)[0][::-1]  # normal, fracture
        if decimals is not None:
            logits, new = logits.round(decimals), new.round(decimals)
        found = (new_sets or split_conformal)(logits, labels, new)
        hits += [found[0] in ("normal", "both"), found[1] in ("fracture", "both")]
    return hits / DRAWS


def split_conformal(logits, labels, new, alpha=0.25):
    return sets(p_values(logits, labels, new), alpha)


# Of 4,000 independent draws, a share of 0.75 is known to sqrt(0.75 0.25 / 4000) = 0.007.
NOISE = 3 * 0.007


def test_each_class_is_covered_as_often_as_promised_and_hardly_more():
    found = coverage()
    # With n images the chance is ceil((n + 1) 0.75) / (n + 1) if no two are equal.
    assert found[0] == pytest.approx(17 / 22, abs=NOISE)
    assert found[1] == pytest.approx(7 / 9, abs=NOISE)
    assert np.all(coverage(decimals=0) >= 0.75 - NOISE)  # ties only add


def test_limits_from_all_images_together_do_not_cover_the_rarer_class():
    def pooled(logits, labels, new):
        """Marginal conformal prediction: the nonconformity of all images in one list."""
        unusual = np.sort(np.where(labels == 1, -logits, logits))
        k = int(np.ceil((len(unusual) + 1) * 0.75))
        fracture, normal = -new <= unusual[k - 1], new <= unusual[k - 1]
        return np.array(SETS)[normal + 2 * fracture]

    def imbalanced(logits, labels, new):
        # Fractures that look like normal images: together they are too few to matter.
        return pooled(logits - 1.5, labels, new - 1.5)

    assert coverage(imbalanced)[1] < 0.75 - 3 * NOISE
    # Class by class, a shift of all logits changes nothing.
    shifted = coverage(lambda logits, labels, new: split_conformal(logits - 1.5, labels, new - 1.5))
    assert np.all(shifted >= 0.75 - NOISE)


def test_a_quantile_rounded_down_does_not_cover():
    def rounded_down(logits, labels, new):
        normal, fractures = np.sort(logits[labels == 0]), np.sort(-logits[labels == 1])
        at = [int(np.floor((len(x) + 1) * 0.75)) - 1 for x in (normal, fractures)]
        held = (new <= normal[at[0]]) + 2 * (-new <= fractures[at[1]])
        return np.array(SETS)[held]

    found = coverage(rounded_down)
    assert found[0] == pytest.approx(16 / 22, abs=NOISE)
    assert found[1] < 0.75 - NOISE  # 6 / 9


def test_p_values_are_counts_by_definition():
    rng = np.random.default_rng(0)
    logits, labels = images(rng, 20, 30)
    new = np.append(images(rng, 10, 10)[0], logits[:5])
    expected = [
        [
            (1 + sum(x >= s for x in logits[labels == 0])) / 31,
            (1 + sum(x <= s for x in logits[labels == 1])) / 21,
        ]
        for s in new
    ]
    np.testing.assert_array_equal(p_values(logits, labels, new), expected)


def test_p_values_are_those_of_crepes():
    crepes = pytest.importorskip("crepes")
    rng = np.random.default_rng(0)
    logits, labels = images(rng, 40, 60)
    new = images(rng, 15, 15)[0]

    def unusual(x, label):
        return (-x if label else x).astype(np.float64)

    scores = np.array([unusual(x, label) for x, label in zip(logits, labels, strict=True)])
    classifier = crepes.ConformalClassifier().fit(scores, bins=labels)
    for label in (0, 1):
        theirs = classifier.predict_p(
            unusual(new, label)[:, None],
            bins=np.full(len(new), label),
            all_classes=True,
            smoothing=False,
        )
        np.testing.assert_allclose(
            p_values(logits, labels, new)[:, label], theirs[:, 0], rtol=1e-12
        )


def test_p_values_of_new_fractures_are_uniform_or_larger():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(1000):
        logits, labels = images(rng, 19, 5)
        p.append(p_values(logits, labels, images(rng, 1, 0)[0])[0, 1])
    grid = np.arange(1, 20) / 20
    # Kolmogorov's distance of 1,000 draws is above 0.06 once in 700.
    assert np.max(np.abs(np.mean(np.array(p)[:, None] <= grid, axis=0) - grid)) < 0.06
    assert (
        stats.kstest(1 - np.array(p), "uniform").statistic > 0.04
    )  # they are discrete: twentieths


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(0, 5), (1, 99), (9, 8), (19, 29), (100, 49)])
@pytest.mark.parametrize("decimals", [None, 0])
def test_limits_say_where_sets_begin_to_hold_a_class(alpha, counts, decimals):
    rng = np.random.default_rng(0)
    logits, labels = images(rng, *counts)
    new = np.append(images(rng, 50, 50)[0], logits)
    if decimals is not None:
        logits, new = logits.round(decimals), new.round(decimals)
    found, limit = sets(p_values(logits, labels, new), alpha), limits(logits, labels, alpha)
    held = {name: (found == name) | (found == "both") for name in ("normal", "fracture")}
    np.testing.assert_array_equal(held["normal"], new <= limit["normal"].logit)
    np.testing.assert_array_equal(held["fracture"], new >= limit["fracture"].logit)
    for name, n in zip(("fracture", "normal"), counts, strict=True):
        assert limit[name].n == n
        assert np.isfinite(limit[name].logit) == (n >= np.ceil(1 / alpha) - 1)
        assert limit[name].needed == np.ceil(1 / alpha) - 1


def test_the_limit_is_the_textbooks_order_statistic():
    logits, labels = images(np.random.default_rng(0), 30, 50)
    found = limits(logits, labels, 0.1)
    normal, fractures = np.sort(logits[labels == 0]), np.sort(-logits[labels == 1])
    assert found["normal"].logit == normal[int(np.ceil(51 * 0.9)) - 1]
    assert found["fracture"].logit == -fractures[int(np.ceil(31 * 0.9)) - 1]


def test_a_smaller_alpha_never_takes_a_class_out_of_a_set():
    rng = np.random.default_rng(0)
    p = p_values(*images(rng, 30, 40), images(rng, 50, 50)[0])
    size = {"neither": 0, "normal": 1, "fracture": 1, "both": 2}
    sizes = [[size[word] for word in sets(p, alpha)] for alpha in (0.4, 0.2, 0.1, 0.01)]
    assert np.all(np.diff(sizes, axis=0) >= 0)
    assert {word for alpha in (0.4, 0.01) for word in sets(p, alpha)} == set(SETS)


def test_the_order_of_images_changes_nothing():
    rng = np.random.default_rng(0)
    logits, labels = images(rng, 30, 40)
    new, order = images(rng, 50, 50)[0], rng.permutation(70)
    np.testing.assert_array_equal(
        p_values(logits[order], labels[order], new[::-1]), p_values(logits, labels, new)[::-1]
    )
    assert limits(logits[order], labels[order], 0.1) == limits(logits, labels, 0.1)


LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
FOUND = np.array(
    ["fracture", "fracture", "normal", "both", *["normal"] * 3, "fracture", "both", "neither"]
)


def test_the_summary_counts_what_it_says():
    group = np.full(10, "")
    found = summarise_sets(LABELS, FOUND, group)
    values = {name: entry["value"] for name, entry in found["coverage"].items()}
    assert values == {"overall": 0.7, "fracture": 0.75, "normal": pytest.approx(4 / 6)}
    assert {k: entry["value"] for k, entry in found["sizes"].items()} == {
        "0": 0.1,
        "1": pytest.approx(0.7),
        "2": pytest.approx(0.2),
    }
    assert found["abstained"]["value"] == pytest.approx(0.3)
    decided = found["decided"]
    assert decided["n"] == 7
    assert decided["accuracy"]["value"] == pytest.approx(5 / 7)
    assert decided["sensitivity"]["value"] == pytest.approx(2 / 3)
    assert decided["specificity"]["value"] == 0.75
    wilson = stats.binomtest(7, 10).proportion_ci(0.95, method="wilson")
    assert found["coverage"]["overall"]["low"] == pytest.approx(wilson.low, abs=1e-12)
    assert found["coverage"]["overall"]["method"] == "wilson"


def test_with_groups_intervals_come_from_draws_of_groups():
    labels, words = np.tile(LABELS, 12), np.tile(FOUND, 12)
    words[:10] = "both"
    group = np.repeat(np.char.mod("g%02d", np.arange(12)), 10)
    found = summarise_sets(labels, words, group)
    assert found["coverage"]["overall"]["method"] == "clustered bootstrap"
    assert found["abstained"]["groups"] == 12
    order = np.random.default_rng(0).permutation(120)
    assert summarise_sets(labels[order], words[order], group[order]) == found


@pytest.mark.parametrize("word", SETS)
def test_a_summary_of_sets_that_are_all_the_same_is_no_error(word):
    found = summarise_sets(LABELS, np.full(10, word), np.full(10, ""))
    decided = found["decided"]
    if word in ("neither", "both"):
        assert decided["n"] == 0
        assert decided["accuracy"]["value"] is None
        assert decided["accuracy"]["reason"] == "there are no images"
        assert found["abstained"]["value"] == 1
    else:
        assert decided["accuracy"]["value"] == (0.4 if word == "fracture" else 0.6)
    assert (
        found["coverage"]["overall"]["value"]
        == {
            "neither": 0,
            "both": 1,
            "fracture": 0.4,
            "normal": 0.6,
        }[word]
    )


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(alpha):
    logits, labels = images(np.random.default_rng(0), 5, 5)
    with pytest.raises(ValueError, match="alpha: expected a number between 0 and 1"):
        limits(logits, labels, alpha)
    with pytest.raises(ValueError, match="alpha: expected"):
        sets(p_values(logits, labels, logits), alpha)
