"""ConvNeXt-Tiny is the same in training, and in bfloat16 it is near float32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.models import convnext_tiny
from msa_flax.models.convnext_tiny import ConvNeXtTiny


def run(variables, x, *, train=False):
    return np.asarray(jax.jit(partial(ConvNeXtTiny().apply, train=train))(variables, x))


@pytest.fixture
def setting(monkeypatch):
    """Random variables of order 1 of a narrow network with two blocks, and four small images."""
    monkeypatch.setattr(convnext_tiny, "STAGES", ((8, 1), (12, 1)))
    x = np.random.default_rng(8).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    init = partial(ConvNeXtTiny().init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 1, leaf.shape).astype(np.float32), shapes), x


def test_training_needs_no_randomness_and_computes_the_same(setting):
    outputs = [run(*setting, train=train) for train in (False, True)]
    np.testing.assert_array_equal(*outputs)


def test_bfloat16_gives_what_float32_gives_to_its_precision(setting):
    variables, x = setting
    exact = run(variables, x)
    found = run(variables, x.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    # One rounding of bfloat16 is 4e-3 of a value; a dozen layers, one after the other.
    error = np.linalg.norm(found.astype(np.float32) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 5e-2
