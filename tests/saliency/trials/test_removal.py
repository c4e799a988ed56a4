"""Removing pixels: curves and ROAD on models whose truth is known, order, imputation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials import removal
from msa_flax.saliency.trials.removal import (
    FRACTIONS,
    impute,
    in_batches,
    logits_of,
    most_salient,
    pixel_order,
    removal_curves,
    road,
)

SIZE, COUNT, BATCH = 12, 4, 8
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, SIZE, SIZE)).astype(np.uint8)
WEIGHTS = RNG.normal(size=(SIZE, SIZE)) / 1000
ONES = np.ones(COUNT)
TRUTH = IMAGES * WEIGHTS[None]  # contributions, where removed pixels are black
CURVES = {"fill": "black", "steps": 6, "batch_size": BATCH}


def linear(pictures):
    assert pictures.shape == (BATCH, SIZE, SIZE)
    assert pictures.dtype == np.float32
    return (np.asarray(pictures, np.float64) * WEIGHTS[None]).sum(axis=(1, 2))


def noise(seed, shape=(COUNT, SIZE, SIZE)):
    return np.random.default_rng([1, seed]).normal(size=shape)


def aucs(kind, maps, signs=ONES):
    return removal_curves(kind, linear, IMAGES, maps, signs=signs, **CURVES).auc()


def assert_the_truth_is_best():
    """In a linear model, no order of pixels takes or gives more than the contributions."""
    fewest, most = aucs("deletion", TRUTH), aucs("insertion", TRUTH)
    for seed in range(20):
        assert (aucs("deletion", noise(seed)) > fewest).all()
        assert (aucs("insertion", noise(seed)) < most).all()


def test_of_a_linear_model_the_true_map_has_the_least_deletion_and_the_most_insertion_area():
    assert_the_truth_is_best()


def test_the_order_turned_round_fails_the_comparison(monkeypatch):
    monkeypatch.setattr(removal, "pixel_order", lambda *arguments: pixel_order(*arguments)[::-1])
    with pytest.raises(AssertionError):
        assert_the_truth_is_best()


def test_curves_of_a_linear_model_are_the_sums_of_the_contributions_that_are_left():
    curves = removal_curves("deletion", linear, IMAGES, TRUTH, signs=ONES, **CURVES)
    ordered = -np.sort(-TRUTH.reshape(COUNT, -1), axis=1)
    gone = (curves.fractions * SIZE * SIZE).astype(int)
    expected = np.stack([ordered[:, k:].sum(axis=1) for k in gone], axis=1)
    # float64 sums of 144 terms in another order.
    np.testing.assert_allclose(curves.logits, expected, rtol=0, atol=1e-12)
    shown = removal_curves("insertion", linear, IMAGES, TRUTH, signs=ONES, **CURVES)
    expected = np.stack([ordered[:, :k].sum(axis=1) for k in gone], axis=1)
    np.testing.assert_allclose(shown.logits, expected, rtol=0, atol=1e-12)


def test_inserting_is_deleting_the_least_salient_pixels_read_backwards():
    maps = noise(0)  # without ties
    forth = removal_curves("insertion", linear, IMAGES, maps, signs=ONES, **CURVES).logits
    back = removal_curves("deletion", linear, IMAGES, -maps, signs=ONES, **CURVES).logits[:, ::-1]
    np.testing.assert_array_equal(forth, back)


def test_the_sign_makes_it_a_question_about_the_other_class():
    signs = np.array([1, -1, 1, -1])
    maps = TRUTH * signs[:, None, None]
    assert (aucs("deletion", maps, signs) < aucs("deletion", -maps, signs)).all()
    np.testing.assert_array_equal(aucs("deletion", TRUTH, -ONES), -aucs("deletion", TRUTH))


def test_areas_are_trapezoids_and_those_of_probabilities_are_of_the_sigmoid():
    curves = removal.Curves(
        fractions=np.array([0, 0.5, 1]), logits=np.array([[0.0, 2, 2], [0, 0, 0]])
    )
    np.testing.assert_allclose(curves.auc(), [1.5, 0], rtol=1e-15)
    high = 1 / (1 + np.exp(-2))
    expected = [(0.5 + high) / 4 + high / 2, 0.5]
    np.testing.assert_allclose(curves.auc("probability"), expected, rtol=1e-15)


def test_a_map_is_as_good_as_its_order_at_any_resolution_and_scale():
    coarse = noise(3, (COUNT, 4, 4))
    np.testing.assert_array_equal(aucs("deletion", coarse), aucs("deletion", 8 * coarse))


def assert_ties_have_no_place():
    """The first tenth of an all-zero map lies anywhere: its mean row is about the middle one."""
    chosen = [
        most_salient(pixel_order(np.zeros((7, 7)), 64, np.random.default_rng(seed)), 0.1, 64)
        for seed in range(10)
    ]
    rows, columns = np.nonzero(np.concatenate(chosen, axis=1))[0], np.nonzero(chosen)[2]
    # A uniform place in 0..63 has deviation 18.5; of 4,100 of them the mean has 0.29.
    assert abs(rows.mean() - 31.5) < 1.5
    assert abs(columns.mean() - 31.5) < 1.5


def test_pixels_that_a_map_does_not_tell_apart_go_in_random_order():
    assert_ties_have_no_place()


def test_ties_by_position_fail_the_comparison(monkeypatch):
    class Ordered(np.random.Generator):
        def permutation(self, count):
            return np.arange(count)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Ordered(np.random.PCG64(seed)))
    with pytest.raises(AssertionError):
        assert_ties_have_no_place()


def test_a_map_goes_before_its_ties_and_all_pixels_go_once():
    saliency = np.zeros((8, 8))
    saliency[3, 4], saliency[6, 1] = 2, 1
    order = pixel_order(saliency, 8, np.random.default_rng(0))
    assert order[:2].tolist() == [3 * 8 + 4, 6 * 8 + 1]
    assert sorted(order.tolist()) == list(range(64))


def test_the_order_of_images_makes_no_difference():
    order = np.array([2, 0, 3, 1])
    maps = np.maximum(noise(5, (COUNT, 3, 3)), 0)  # with ties
    for kind in ("deletion", "insertion"):
        whole = aucs(kind, maps)
        moved = removal_curves(kind, linear, IMAGES[order], maps[order], signs=ONES, **CURVES)
        moved = moved.auc()
        np.testing.assert_array_equal(moved, whole[order])
    ask = {"signs": ONES, "batch_size": BATCH}
    whole = road(linear, IMAGES, maps, **ask).gap()
    moved = road(linear, IMAGES[order], maps[order], **ask).gap()
    np.testing.assert_array_equal(moved, whole[order])


def test_seeds_decide_ties_and_nothing_else():
    zero, maps = np.zeros((COUNT, 7, 7)), noise(0)
    ask = functools.partial(removal_curves, "deletion", linear, IMAGES, signs=ONES, **CURVES)
    for given, same in ((zero, False), (maps, True)):
        a, b = (ask(maps=given, seed=seed) for seed in (0, 1))
        assert np.array_equal(a.logits, b.logits) == same


def test_the_model_sees_one_shape_and_compiles_once():
    traces = []

    @jax.jit
    def compiled(pictures):
        traces.append(pictures.shape)
        return jnp.sum(pictures, axis=(1, 2))

    for count in (1, 3, 4):
        removal_curves(
            "deletion", compiled, IMAGES[:count], TRUTH[:count], signs=ONES[:count], **CURVES
        )
    assert traces == [(BATCH, SIZE, SIZE)]


def test_what_fills_up_a_batch_is_cut_off_again():
    pictures = [np.full((2, 2), k) for k in range(7)]
    assert [int(x) for x in in_batches(lambda x: x.sum(axis=(1, 2)), pictures, 3)] == [
        4 * k for k in range(7)
    ]


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
    ask = {"signs": np.ones(6), "batch_size": BATCH}
    best = road(bright, images, truth, **ask)
    assert best.most.shape == best.least.shape == (6, len(FRACTIONS))
    worst = road(bright, images, -truth, **ask)
    random = [road(bright, images, noise(s, truth.shape), **ask) for s in range(3)]
    for unit in ("logit", "probability"):
        for chance in random:
            assert (best.gap(unit) > chance.gap(unit)).all()
            assert (worst.gap(unit) < chance.gap(unit)).all()
    # Random maps gain nothing on average; 18 gaps of deviation 0.3 have a mean of 0.07.
    assert abs(np.mean([chance.gap() for chance in random])) < 0.25


def test_imputing_solves_the_equations_exactly_on_the_sides_that_are_known():
    row = np.linspace(20, 200, 15)
    image = np.repeat(row[None], 15, axis=0)  # a ramp is its own mean of neighbours
    removed = np.zeros((15, 15), bool)
    removed[3:12, 4:11] = True
    found = impute(image, removed, noise=0.0, rng=np.random.default_rng(0))
    # The system is solved to 1e-4 of its right-hand side, here up to 200 grey levels.
    np.testing.assert_allclose(found, image, atol=0.1)
    np.testing.assert_array_equal(found[~removed], image[~removed].astype(np.float32))


def test_every_imputed_pixel_is_the_mean_of_the_neighbours_it_has_at_the_edges_too():
    removed = np.random.default_rng(1).random((SIZE, SIZE)) < 0.8
    found = impute(IMAGES[0], removed, noise=0.0, rng=np.random.default_rng(0)).astype(float)

    def mean(near):
        values, weights = np.transpose(near)
        return np.average(values, weights=weights)

    for y, x in np.argwhere(removed):
        near = [
            (found[v, u], 1 / (abs(v - y) + abs(u - x)))  # those at its sides count double
            for v in range(max(0, y - 1), min(SIZE, y + 2))
            for u in range(max(0, x - 1), min(SIZE, x + 2))
            if (v, u) != (y, x)
        ]
        # What the solver may leave, as above.
        assert found[y, x] == pytest.approx(mean(near), abs=0.1)


def test_noise_is_added_to_imputed_pixels_only():
    image, removed = np.full((64, 64), 100, np.uint8), np.zeros((64, 64), bool)
    removed[:32] = True
    found = impute(image, removed, noise=2.5, rng=np.random.default_rng(0))
    # A deviation of 2,048 draws is known to 1.6 % (one standard error).
    assert found[removed].std() == pytest.approx(2.5, rel=0.06)
    assert (found[~removed] == 100).all()


def test_nothing_can_be_imputed_from_nothing():
    with pytest.raises(SaliencyError, match="a pixel that is left"):
        impute(IMAGES[0], np.ones((SIZE, SIZE), bool), noise=0.0, rng=np.random.default_rng(0))


def test_what_fills_in_is_blurred_black_or_the_mean():
    image = IMAGES[0]
    assert removal.filled(image, "black").max() == 0
    assert np.ptp(removal.filled(image, "mean")) == 0
    blurred = removal.filled(np.kron(image, np.ones((4, 4))), "blur")
    # Blurring keeps the mean but for what is reflected at the edges.
    assert blurred.mean() == pytest.approx(image.mean(), rel=0.05)
    assert blurred.std() < 0.5 * image.std()


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
    curves = (functools.partial(removal_curves, kind) for kind in ("deletion", "insertion"))
    for measure in (*curves, road):
        with pytest.raises(SaliencyError, match=message) as caught:
            measure(given["score_fn"], *(given[k] for k in ("images", "maps")),
                  signs=given["signs"], batch_size=BATCH)  # fmt: skip
        assert caught.value.exit_code == 2


def test_steps_and_fractions_out_of_range_are_refused():
    with pytest.raises(SaliencyError, match="steps: expected 1 or more, got 0"):
        removal_curves("deletion", linear, IMAGES, TRUTH, signs=ONES, steps=0, batch_size=BATCH)
    for fractions in ((), (0.0,), (0.5, 1.0)):
        with pytest.raises(SaliencyError, match="fractions: expected values between 0 and 1"):
            road(linear, IMAGES, TRUTH, signs=ONES, fractions=fractions, batch_size=BATCH)


def test_a_model_without_pictures_has_no_logits():
    assert logits_of(linear, [], BATCH).shape == (0,)
