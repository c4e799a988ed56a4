"""The benchmark of single layers compares functions that compute the same."""

import jax.numpy as jnp
import layers
import numpy as np
import pytest
from float64_references import TOLERANCE, relative

CONVOLUTION, NORMALISATION = layers.Layer("c", 6, 3, 2, 2, 3), layers.Layer("n", 4, 0, 1, 7, 7)
CASES = [(CONVOLUTION, task) for task in layers.TASKS]


@pytest.mark.parametrize(
    ("layer", "task"), [*CASES, (NORMALISATION, "value"), (NORMALISATION, "input")]
)
def test_both_forms_give_the_same(layer, task):
    rng = np.random.default_rng(0)
    side = layer.pixels // layer.stride
    shapes = (
        (2, layer.pixels, layer.pixels, layer.inputs),
        (layer.kernel, layer.kernel, layer.inputs, layer.outputs),
        (2, side, side, layer.outputs),
    )
    arguments = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    ours, xla = (layers.work(form, task) for form in layers.functions(layer))
    found = layers.inside_a_loop(ours)(*arguments)
    assert relative(found, xla(*arguments)) < TOLERANCE


def test_a_row_names_the_layer_and_its_times():
    row = layers.cells(layers.Layer("tiny", 4, 3, 1, 2, 3), 1, 2)
    assert row[:2] == ["tiny", "4 x 4 x 2 to 3, 3 x 3, stride 1"]
    assert all(" / " in cell and " = " in cell for cell in row[2:])
    assert not layers.cells(layers.Layer("norm", 4, 0, 1, 6, 6), 1, 2)[3]
