"""Functions of a network as StableHLO: any number of images, on CPU and CUDA.

The weights are an argument, so that the functions of one model share one copy of them.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax import export

from msa_flax.files import UserError

PLATFORMS = ("cpu", "cuda")
Weights = Mapping[str, Any]  # path in the tree of variables to array
# What JAX itself puts into a program of any batch: it checks shapes and marks where devices meet.
_HARMLESS = {"shape_assertion", "Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


def flat(variables: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a tree by their path, sorted."""
    return {name: np.asarray(x) for name, x in sorted(_named(variables), key=lambda one: one[0])}


def _named(variables: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree.leaves_with_path(variables)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in leaves]


def serialise(function: Callable[[Any, Any], Any], variables: Any, size: int) -> bytes:
    """Returns a function (variables, images uint8 [b, s, s]) -> arrays as StableHLO.

    The same function gives the same bytes: source files and lines are left out.

    Args:
        function: of any batch; what it calls must not ask for the number of images.
        variables: a tree of arrays.
        size: s, pixels.
    """
    named, tree = _named(variables), jax.tree.structure(variables)

    def program(weights: Weights, images: Any) -> Any:
        return function(jax.tree.unflatten(tree, [weights[name] for name, _ in named]), images)

    (batch,) = export.symbolic_shape("b")
    shapes = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in named}
    images = jax.ShapeDtypeStruct((batch, size, size), np.uint8)
    with _without_places():
        made = export.export(jax.jit(program), platforms=PLATFORMS)(shapes, images)
    return bytes(made.serialize())


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Lets programs say nothing of the source files that they come from."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        yield
    finally:
        jax.config.update(name, before)


def load(data: bytes, weights: Weights, size: int) -> Callable[[Weights, Any], Any]:
    """Returns the function (weights, images uint8 [b, s, s]) -> arrays of a program.

    Args:
        data: from :func:`serialise`.
        weights: what the program must take, by the names it must have.
        size: s, pixels.

    Raises:
        ValueError: it is no such program, takes something else, or calls what is no arithmetic.
    """
    try:
        found = export.deserialize(bytearray(data))
        (taken, images), _ = jax.tree.unflatten(found.in_tree, found.in_avals)
    except ImportError as error:
        raise UserError("a portable model needs flatbuffers: pip install flatbuffers") from error
    except Exception as error:  # the reader of a format raises what it likes
        raise ValueError(f"no program ({type(error).__name__})") from error
    shapes = {name: (x.shape, str(x.dtype)) for name, x in taken.items()}
    if shapes != {name: (x.shape, str(x.dtype)) for name, x in weights.items()}:
        raise ValueError("a program for other weights")
    if images.shape[1:] != (size, size) or images.dtype != np.uint8:
        raise ValueError("a program for other images")
    called = set(re.findall(r"custom_call @\"?([^\"(]+)", found.mlir_module()))
    if called - _HARMLESS:
        raise ValueError(f"a program that calls {', '.join(sorted(called - _HARMLESS))}")
    call: Callable[[Weights, Any], Any] = found.call
    return call
