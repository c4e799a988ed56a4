"""A frozen backbone's features are computed once, kept whole, and refused where they cannot be."""

import numpy as np
import pytest

from msa_flax.training.features import FeaturesError, cached_features

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 4, 4), dtype=np.uint8)


def compute(images):
    assert images.shape == (3, 4, 4)  # always whole batches
    return np.stack([images.reshape(3, 2, 2, 4), 2.0 * images.reshape(3, 2, 2, 4)], -1).sum(-1)


def test_the_maps_are_those_of_every_image_in_order(tmp_path):
    found = cached_features(tmp_path / "a.npy", compute, IMAGES, batch_size=3)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, 3.0 * IMAGES.reshape(7, 2, 2, 4))


def test_a_second_call_reads_what_the_first_one_wrote(tmp_path):
    first = cached_features(tmp_path / "below" / "a.npy", compute, IMAGES, batch_size=3)

    def never(images):
        raise AssertionError

    second = cached_features(tmp_path / "below" / "a.npy", never, IMAGES, batch_size=3)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("value", [np.nan, np.inf, 7e4])
def test_what_float16_cannot_hold_is_refused_and_leaves_nothing(tmp_path, value):
    with pytest.raises(FeaturesError, match="right weights and preprocessing"):
        cached_features(
            tmp_path / "a.npy", lambda x: np.full((3, 1, 1, 2), value), IMAGES, batch_size=3
        )
    assert list(tmp_path.iterdir()) == []
