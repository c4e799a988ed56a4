"""Rank correlation and overlap of maps: of networks with other weights, and of other methods."""

import cv2
import numpy as np
import pytest
from scipy.stats import spearmanr

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.trials.agreement import TOP, agreement, rank_correlation, top_overlap
from msa_flax.saliency.trials.verdicts import INSENSITIVE

RNG = np.random.default_rng(0)
SIZE, COUNT = 12, 6
IMAGES = RNG.integers(0, 256, (COUNT, SIZE, SIZE)).astype(np.uint8)


def assert_scipy_agrees():
    maps, others = RNG.normal(size=(2, COUNT, 5, 5)).round(1)  # with ties
    for absolute in (False, True):
        pairs = zip(maps, others, strict=True)
        expected = [
            spearmanr(*(np.abs(x).ravel() if absolute else x.ravel() for x in pair)).statistic
            for pair in pairs
        ]
        # float64 sums of 25 terms
        np.testing.assert_allclose(
            rank_correlation(maps, others, absolute=absolute), expected, atol=1e-12
        )


def test_rank_correlations_are_scipys():
    assert_scipy_agrees()


def test_correlations_of_values_instead_of_ranks_fail_the_comparison(monkeypatch):
    monkeypatch.setattr("scipy.stats.rankdata", np.ravel)
    with pytest.raises(AssertionError):
        assert_scipy_agrees()


def edges(weights, images):
    """An edge detector, which looks at no weights."""
    return np.abs(np.stack([cv2.Laplacian(image, cv2.CV_64F) for image in images]))


def contributions(weights, images):
    """The exact map of a linear model, as far as it speaks for the class."""
    return np.maximum(weights[None] * images, 0)


def test_an_edge_detector_is_found_to_be_insensitive_to_weights_and_true_maps_are_not():
    kernels = RNG.normal(size=(2, SIZE, SIZE))
    same = rank_correlation(*(edges(kernel, IMAGES) for kernel in kernels))
    np.testing.assert_allclose(same, 1, rtol=1e-12)  # a correlation's rounding
    other = rank_correlation(*(contributions(kernel, IMAGES) for kernel in kernels))
    assert same.mean() > INSENSITIVE
    # Of two unrelated orders of 144 pixels the correlation has deviation 0.08.
    assert abs(other.mean()) < 0.25


def test_maps_of_models_with_true_and_permuted_labels_differ_if_they_depend_on_what_was_learned():
    rng = np.random.default_rng(3)
    images = rng.normal(size=(400, 36))
    labels = np.sign(images @ rng.normal(size=36))
    true, permuted, again = (
        np.linalg.lstsq(images[rows], y, rcond=None)[0].reshape(6, 6)
        for rows, y in (
            (slice(None), labels),
            (slice(None), rng.permutation(labels)),
            (slice(200), labels[:200]),
        )
    )
    few = images[:8].reshape(8, 6, 6)
    # Of 36 pixels the correlation of unrelated orders has deviation 0.17, and 8 images share it.
    against_chance = rank_correlation(true[None] * few, permuted[None] * few)
    against_truth = rank_correlation(true[None] * few, again[None] * few)
    assert abs(against_chance.mean()) < 0.5
    assert against_truth.mean() > 0.8


def test_maps_that_are_the_same_everywhere_have_no_correlation():
    flat = np.full((2, 3, 3), 0.3)
    vary = RNG.normal(size=(2, 3, 3))
    for pair in ((flat, vary), (vary, flat), (flat, flat)):
        assert np.isnan(rank_correlation(*pair)).all()
        assert np.isnan(rank_correlation(*pair, size=7)).all()
        assert np.isnan(top_overlap(*pair, size=7)).all()


def test_the_overlap_of_maps_is_counted_and_that_of_random_ones_is_the_share():
    maps = np.zeros((1, 10, 10))
    maps[0, 0] = 2 + np.arange(10)
    others = np.zeros((1, 10, 10))
    others[0, 0, 7:], others[0, 1, :7] = 5, 5 + np.arange(7)
    assert top_overlap(maps, others, size=10) == [0.3]
    assert top_overlap(maps, maps, size=10) == [1]
    random = RNG.normal(size=(2, 50, 20, 20))
    # 50 overlaps of 40 pixels have deviation 0.045; their mean has 0.007.
    assert top_overlap(*random, size=20).mean() == pytest.approx(TOP, abs=0.025)


def test_methods_are_compared_with_each_other_at_any_resolution():
    fine = RNG.normal(size=(COUNT, SIZE, SIZE))
    zero = np.zeros((COUNT, 3, 3))
    coarse = np.stack([cv2.resize(x, (4, 4)) for x in fine])
    maps = {"fine": fine, "opposite": -fine, "coarse": coarse, "zero": zero}
    found = agreement(maps, size=SIZE)
    assert found.names == ("fine", "opposite", "coarse", "zero")
    np.testing.assert_array_equal(found.correlation, found.correlation.T)
    np.testing.assert_array_equal(found.overlap, found.overlap.T)
    np.testing.assert_allclose(np.diag(found.correlation)[:3], 1, rtol=1e-12)
    np.testing.assert_allclose(found.correlation[0, 1], -1, rtol=1e-12)
    assert 0 < found.correlation[0, 2] < 1
    assert found.overlap[0, 1] == 0
    assert np.isnan(found.correlation[3]).all()


def test_the_order_of_images_makes_no_difference():
    maps, others = np.maximum(RNG.normal(size=(2, COUNT, 4, 4)), 0)
    order = RNG.permutation(COUNT)
    for compare in (rank_correlation, top_overlap):
        whole = compare(maps, others, size=SIZE)
        moved = compare(maps[order], others[order], size=SIZE)
        np.testing.assert_array_equal(moved, whole[order])


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 3), 5), ((COUNT, 3, 3), None)])
def test_maps_that_cannot_be_compared_are_refused(shape, size):
    with pytest.raises(SaliencyError, match="expected two maps of each image"):
        rank_correlation(IMAGES, np.ones(shape), size=size)
