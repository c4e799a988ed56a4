"""Counts what a network costs: its parameters and the floating-point operations of a prediction."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Costs(NamedTuple):
    """What one network costs.

    Attributes:
        parameters: numbers in the network, running statistics included, as Keras counts them.
        flops: floating-point operations of a prediction for one image; a multiply-add is two.
    """

    parameters: int
    flops: int


def count_costs(model: nn.Module, *, image_size: int) -> Costs:
    """Returns what a classifier costs, without computing anything.

    Counted are the operations of convolutions and matrix products, in the form in which platforms
    other than the CPU compute them. Normalisation, activations and pooling are not counted.

    Args:
        model: a module from images [b, h, w, 3] to logits, with the keyword ``train``.
        image_size: height and width of the images, in pixels.
    """
    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    traced = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, images)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
    return Costs(parameters, _flops(traced.jaxpr))


def _flops(jaxpr: Any) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        kernel, out = equation.invars[1].aval.shape, equation.outvars[0].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(out) * math.prod(kernel) // features
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
        return 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    if name == "cond":  # made by lax.platform_dependent, whose default is the last branch
        return _flops(params["branches"][-1].jaxpr)
    inner = [getattr(value, "jaxpr", value) for value in params.values()]
    inner = [value for value in inner if hasattr(value, "eqns")]
    return params.get("length", 1) * sum(map(_flops, inner))
