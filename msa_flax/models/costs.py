"""What a network costs: parameters and floating-point operations, counted and not timed."""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Costs(NamedTuple):
    """Of one image.

    Attributes:
        parameters: numbers in the network, running statistics included, as Keras counts them.
        flops: floating-point operations of one prediction, a multiply-add counting as two.
    """

    parameters: int
    flops: int


def costs(model: nn.Module, *, image_size: int) -> Costs:
    """Counts what a classifier costs, without computing anything.

    Operations are those of convolutions and matrix products, in the form that other platforms than
    a CPU compute; normalisation, activations and pooling are not counted.

    Args:
        model: a module [b, h, w, 3] -> logits with the keyword ``train``.
        image_size: pixels a side.
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
    if name == "cond":  # of lax.platform_dependent: the last branch is the default
        return _flops(params["branches"][-1].jaxpr)
    inner = [getattr(value, "jaxpr", value) for value in params.values()]
    inner = [value for value in inner if hasattr(value, "eqns")]
    return params.get("length", 1) * sum(map(_flops, inner))
