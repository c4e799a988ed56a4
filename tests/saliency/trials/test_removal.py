"""Removing pixels: curves and ROAD on models whose truth is known, order, imputation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials import pixels
from msa_flax.saliency.trials.removal import (
    Settings,
    curve_auc,
    removal_curves,
    road,
    road_gap,
)

SIZE, COUNT, BATCH = 12, 4, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, SIZE, SIZE)).astype(np.uint8)
WEIGHTS = RNG.normal(size=(SIZE, SIZE)) / 1000
ONES = np.ones(COUNT)
TRUTH = IMAGES * WEIGHTS[None]  # contributions, where removed pixels are black
SETTINGS = Settings(fill="black", steps=6, batch_size=BATCH)


def linear(pictures):
    assert pictures.shape == (BATCH, SIZE, SIZE)
    assert pictures.dtype == np.float32
    return (np.asarray(pictures, np.float64) * WEIGHTS[None]).sum(axis=(1, 2))


def noise(seed, shape=(COUNT, SIZE, SIZE)):
    return np.random.default_rng([1, seed]).normal(size=shape)


def curves(kind, maps, signs=ONES, *, images=IMAGES, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return removal_curves(kind, linear, images, maps, signs=signs, settings=settings)


def aucs(kind, maps, signs=ONES):
    return curve_auc(curves(kind, maps, signs), "logit")


def assert_the_truth_is_best():
    """In a linear model, no order of pixels takes or gives more than the contributions."""
    fewest, most = aucs("deletion", TRUTH), aucs("insertion", TRUTH)
    for seed in range(20):
        assert (aucs("deletion", noise(seed)) > fewest).all()
        assert (aucs("insertion", noise(seed)) < most).all()


def test_of_a_linear_model_the_true_map_has_the_least_deletion_and_the_most_insertion_area():
    assert_the_truth_is_best()


def test_the_order_turned_round_fails_the_comparison(monkeypatch):
    order = pixels.order
    monkeypatch.setattr(pixels, "order", lambda *arguments: order(*arguments)[::-1])
    with pytest.raises(AssertionError):
        assert_the_truth_is_best()


def test_curves_of_a_linear_model_are_the_sums_of_the_contributions_that_are_left():
    ordered = -np.sort(-TRUTH.reshape(COUNT, -1), axis=1)
    gone = [SIZE * SIZE * step // SETTINGS.steps for step in range(SETTINGS.steps + 1)]
    expected = np.stack([ordered[:, k:].sum(axis=1) for k in gone], axis=1)
    # float64 sums of 144 terms in another order.
    np.testing.assert_allclose(curves("deletion", TRUTH), expected, rtol=0, atol=1e-12)
    expected = np.stack([ordered[:, :k].sum(axis=1) for k in gone], axis=1)
    np.testing.assert_allclose(curves("insertion", TRUTH), expected, rtol=0, atol=1e-12)


def test_inserting_is_deleting_the_least_salient_pixels_read_backwards():
    maps = noise(0)  # without ties
    forth, back = curves("insertion", maps), curves("deletion", -maps)[:, ::-1]
    np.testing.assert_array_equal(forth, back)


def test_the_sign_makes_it_a_question_about_the_other_class():
    signs = np.array([1, -1, 1, -1])
    maps = TRUTH * signs[:, None, None]
    assert (aucs("deletion", maps, signs) < aucs("deletion", -maps, signs)).all()
    np.testing.assert_array_equal(aucs("deletion", TRUTH, -ONES), -aucs("deletion", TRUTH))


def test_areas_are_trapezoids_and_those_of_probabilities_are_of_the_sigmoid():
    logits = np.array([[0.0, 2, 2], [0, 0, 0]])
    np.testing.assert_allclose(curve_auc(logits, "logit"), [1.5, 0], rtol=1e-15)
    high = 1 / (1 + np.exp(-2))
    expected = [(0.5 + high) / 4 + high / 2, 0.5]
    np.testing.assert_allclose(curve_auc(logits, "probability"), expected, rtol=1e-15)


def test_a_map_is_as_good_as_its_order_at_any_resolution_and_scale():
    coarse = noise(3, (COUNT, 4, 4))
    np.testing.assert_array_equal(aucs("deletion", coarse), aucs("deletion", 8 * coarse))


def test_the_order_of_images_makes_no_difference():
    order = np.array([2, 0, 3, 1])
    maps = np.maximum(noise(5, (COUNT, 3, 3)), 0)  # with ties
    for kind in ("deletion", "insertion"):
        moved = curves(kind, maps[order], images=IMAGES[order])
        np.testing.assert_array_equal(moved, curves(kind, maps)[order])
    ask = {"signs": ONES, "settings": SETTINGS}
    whole = road(linear, IMAGES, maps, **ask)
    moved = road(linear, IMAGES[order], maps[order], **ask)
    np.testing.assert_array_equal(moved, whole[:, order])


def test_seeds_decide_ties_and_nothing_else():
    for maps, same in ((np.zeros((COUNT, 7, 7)), False), (noise(0), True)):
        one, other = (curves("deletion", maps, seed=seed) for seed in (0, 1))
        assert np.array_equal(one, other) == same


def test_the_model_sees_one_shape_and_compiles_once():
    traces = []

    @jax.jit
    def compiled(pictures):
        traces.append(pictures.shape)
        return jnp.sum(pictures, axis=(1, 2))

    for count in (1, 3, 4):
        few = IMAGES[:count], TRUTH[:count]
        removal_curves("deletion", compiled, *few, signs=ONES[:count], settings=SETTINGS)
    assert traces == [(BATCH, SIZE, SIZE)]


def spots(count, seed):
    """Smooth images with one bright square; a model that adds up what is brighter than the rest."""
    rng = np.random.default_rng([2, seed])
    images = np.repeat(np.repeat(rng.integers(60, 100, (count, 4, 4)), 4, axis=1), 4, axis=2)
    truth = np.zeros(images.shape)
    for image, saliency, (y, x) in zip(images, truth, rng.integers(0, 12, (count, 2)), strict=True):
        image[y : y + 4, x : x + 4] = 200
        saliency[y : y + 4, x : x + 4] = 1
    return images.astype(np.uint8), truth


def bright(pictures):
    return np.maximum(np.asarray(pictures, np.float64) - 130, 0).sum(axis=(1, 2)) / 250 - 2


def test_road_prefers_the_truth_to_random_maps_and_those_to_its_opposite():
    images, truth = spots(6, 0)

    def gap(maps, unit):
        logits = road(bright, images, maps, signs=np.ones(6), settings=SETTINGS)
        assert logits.shape == (2, 6, len(SETTINGS.fractions))
        return road_gap(logits, unit)

    for unit in ("logit", "probability"):
        best, worst = gap(truth, unit), gap(-truth, unit)
        random = [gap(noise(seed, truth.shape), unit) for seed in range(3)]
        for chance in random:
            assert (best > chance).all()
            assert (worst < chance).all()
        if unit == "logit":
            # Random maps gain nothing on average; 18 gaps of deviation 0.3 have a mean of 0.07.
            assert abs(np.mean(random)) < 0.25


def test_the_gap_is_half_the_mean_difference_of_least_and_most():
    logits = np.array([[[1.0, 2]], [[3, 6]]])  # most and least salient removed, of one image
    assert road_gap(logits, "logit") == [1.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES[:, :5]}, r"images: expected \[n, s, s\]"),
        ({"images": IMAGES[:0], "maps": TRUTH[:0], "signs": ONES[:0]}, "with an image or more"),
        ({"maps": TRUTH[:3]}, r"maps: expected \[4, h, w\], got \(3, 12, 12\)"),
        ({"signs": np.array([1, 0, 1, 1])}, r"signs: expected \+1 or -1"),
        ({"signs": ONES[:2]}, r"signs: expected \+1 or -1"),
        ({"maps": np.full((COUNT, 3, 3), np.nan)}, "expected finite values"),
        ({"score_fn": lambda x: x}, "one finite logit per image"),
        ({"score_fn": lambda x: x[:, 0, 0] * np.nan}, "one finite logit per image"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(change, message):
    given = {"score_fn": linear, "images": IMAGES, "maps": TRUTH, "signs": ONES} | change
    measures = [functools.partial(removal_curves, kind) for kind in ("deletion", "insertion")]
    for measure in (*measures, road):
        with pytest.raises(SaliencyError, match=message) as caught:
            measure(**given, settings=SETTINGS)
        assert caught.value.exit_code == 2


def test_steps_and_fractions_out_of_range_are_refused():
    with pytest.raises(SaliencyError, match="steps: expected 1 or more, got 0"):
        curves("deletion", TRUTH, steps=0)
    for fractions in ((), (0.0,), (0.5, 1.0)):
        settings = Settings(fractions=fractions, batch_size=BATCH)
        with pytest.raises(SaliencyError, match="fractions: expected values between 0 and 1"):
            road(linear, IMAGES, TRUTH, signs=ONES, settings=settings)
