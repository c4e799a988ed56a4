"""What all convolutions here share: padding, and XLA's own convolution."""

from jax import lax
from jaxtyping import Array, Float

Padding = tuple[tuple[int, int], tuple[int, int]]


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
