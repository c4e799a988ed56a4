"""The attention block against the paper's equations, written out in numpy and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import signal

from msa_flax.models.attention import MultiScaleSpatialAttention, SpatialAttention


def by_hand(features, params, kernel_sizes):
    """Equations 1 to 6, one image and one kernel at a time."""
    features = np.asarray(features, np.float64)
    out, maps = np.zeros_like(features), {}
    for k in kernel_sizes:
        kernel = np.asarray(params[f"conv_{k}"]["kernel"], np.float64)[..., 0]
        bias = float(params[f"conv_{k}"]["bias"][0])
        maps[k] = np.zeros(features.shape[:3])
        for n, image in enumerate(features):
            average, maximum = image.mean(-1), image.max(-1)  # Eq. 1, 2
            scores = sum(
                signal.correlate2d(plane, kernel[..., i], mode="same")
                for i, plane in enumerate((average, maximum))
            )
            maps[k][n] = 1 / (1 + np.exp(-(scores + bias)))  # Eq. 4
            out[n] += maps[k][n][..., None] * image  # Eq. 5, 6
    return out, maps


def init(model, features, seed=0):
    variables = model.init(jax.random.key(seed), features)
    noise = jax.random.normal(jax.random.key(seed + 1), (200,))
    leaves, structure = jax.tree.flatten(variables["params"])
    leaves = [leaf + 0.1 * noise[i] for i, leaf in enumerate(leaves)]  # biases become awake
    return jax.tree.unflatten(structure, leaves)


@pytest.fixture
def features():
    return jax.nn.relu(jax.random.normal(jax.random.key(7), (2, 7, 6, 16)) * 2)


@pytest.mark.parametrize("kernel_sizes", [(3, 5, 7), (3,), (5, 7), (1,)])
def test_the_block_is_equations_1_to_6(features, kernel_sizes):
    model = MultiScaleSpatialAttention(kernel_sizes)
    params = init(model, features)
    out, sown = model.apply({"params": params}, features, mutable=["intermediates"])
    expected, maps = by_hand(features, params, kernel_sizes)
    # float32 sums of at most 98 products against float64
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    for k in kernel_sizes:
        sown_map = sown["intermediates"][f"attention_{k}"][0]
        np.testing.assert_allclose(sown_map, maps[k], rtol=1e-5, atol=1e-6)


def test_a_block_without_one_scale_differs(features):
    model = MultiScaleSpatialAttention((3, 5, 7))
    params = init(model, features)
    out = model.apply({"params": params}, features)
    without, _ = by_hand(features, params, (3, 5))
    assert np.abs(np.asarray(out) - without).max() > 0.1


@pytest.mark.parametrize("refine", ["none", "map", "features"])
@pytest.mark.parametrize("shape", [(1, 7, 7, 8), (3, 4, 5, 12), (2, 1, 1, 4)])
def test_shapes_are_kept_and_maps_are_weights(refine, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    model = MultiScaleSpatialAttention(refine=refine)
    variables = model.init(jax.random.key(1), x)
    out, sown = model.apply(variables, x, mutable=["intermediates"])
    assert out.shape == shape
    assert set(sown["intermediates"]) == {"attention_3", "attention_5", "attention_7"}
    for (values,) in sown["intermediates"].values():
        assert values.shape == shape[:3]
        assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize(
    ("refine", "count"),
    [("none", 169), ("map", 169 + 3 * 2 * 32), ("features", 169 + 32 * 32 + 32)],
)
def test_parameter_counts(refine, count):
    variables = MultiScaleSpatialAttention(refine=refine).init(
        jax.random.key(0), jnp.zeros((1, 7, 7, 32))
    )
    assert sum(x.size for x in jax.tree.leaves(variables["params"])) == count


@pytest.mark.parametrize("refine", ["none", "map", "features"])
def test_every_parameter_and_the_input_receive_the_gradient_of_finite_differences(refine):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6), jnp.float64)
        model = MultiScaleSpatialAttention(refine=refine)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), init(model, x))

        @jax.jit
        def loss(params, x):
            return jnp.sum(jnp.sin(model.apply({"params": params}, x)))

        # central differences in float64 lose 1e-5 to cancellation and curvature
        check_grads(loss, (params, x), order=1, modes=["rev"], rtol=2e-5, atol=2e-5)
        gradients = jax.tree.leaves(jax.grad(loss)(params, x))
        assert all(np.abs(g).max() > 0 for g in gradients)


def test_cbams_spatial_attention_is_the_block_with_one_kernel_and_no_bias():
    features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 5, 4)), jnp.float32)
    cbam, block = SpatialAttention(), MultiScaleSpatialAttention((7,))
    variables = cbam.init(jax.random.key(0), features)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"conv_7": {"kernel": (7, 7, 2, 1)}}}
    kernel = variables["params"]["conv_7"]["kernel"]
    same = {"params": {"conv_7": {"kernel": kernel, "bias": jnp.zeros(1)}}}
    out, sown = cbam.apply(variables, features, mutable=["intermediates"])
    expected, maps = block.apply(same, features, mutable=["intermediates"])
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, sown, maps)
