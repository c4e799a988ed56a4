"""What all convolutions here share: padding, XLA's own convolution, and which platform gets it."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]
_everywhere: Any = jax.make_user_context(False)  # part of the key of JAX's caches


@contextlib.contextmanager
def native_everywhere() -> Iterator[None]:
    """Lets what is traced in a block use native operations on every platform, the CPU too.

    So a network becomes few operations that other formats have names for, such as those of ONNX.
    """
    with _everywhere(True):
        yield


def is_native_everywhere() -> bool:
    """Whether :func:`native_everywhere` is in force."""
    return bool(_everywhere.value)


def by_platform(*arguments: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    """Calls one function on the CPU and another one elsewhere; see :func:`native_everywhere`."""
    if is_native_everywhere():
        return default(*arguments)
    return lax.platform_dependent(*arguments, cpu=cpu, default=default)


def same_padding(height: int, width: int, kernel_size: int, stride: int) -> Padding:
    """Returns TensorFlow's ``same`` padding ((top, bottom), (left, right)), in pixels."""

    def one_side(size: int) -> tuple[int, int]:
        total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
        return total // 2, total - total // 2

    return one_side(height), one_side(width)


def native_conv(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k g d"],
    *,
    stride: int,
    padding: Padding,
    groups: int = 1,
) -> Float[Array, "b oh ow d"]:
    """Convolves by XLA's own operation; arguments as in :func:`.depthwise.depthwise_conv`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
