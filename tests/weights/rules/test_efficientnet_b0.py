"""What the published EfficientNetB0 calls variances are deviations, and only those are changed."""

import numpy as np
import pytest

from msa_flax.weights.rules.efficientnet_b0 import DEVIATIONS, VARIANCE


def test_the_published_deviations_become_variances_and_back():
    squared = VARIANCE.to_ours(DEVIATIONS)
    np.testing.assert_allclose(squared, [0.229**2, 0.224**2, 0.225**2], rtol=1e-6)  # float32
    np.testing.assert_array_equal(VARIANCE.to_keras(squared), DEVIATIONS)


@pytest.mark.parametrize("variance", [[1, 1, 1], [0.229, 0.224, 0.226], [0, 0, 0], [1.0], 0.5])
def test_other_variances_stay_as_they_are(variance):
    array = np.array(variance, np.float32)
    np.testing.assert_array_equal(VARIANCE.to_ours(array), array)
    np.testing.assert_array_equal(VARIANCE.to_keras(array), array)
