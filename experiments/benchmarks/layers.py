"""Times single layers of the networks: ours inside a loop, XLA's own outside of any loop.

    python experiments/benchmarks/layers.py [--rounds 7] [--batch 16]

Inside a loop, such as one over training steps, XLA's CPU back end computes an ordinary convolution
many times slower than outside, so ours has to be as fast inside as XLA's is outside. The value, the
gradient for the kernel and that for the input are timed by themselves, in turns with XLA's.
"""

import argparse
import functools
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import results
from jax import Array, lax

from msa_flax.files import markdown_table
from msa_flax.models import ops
from msa_flax.training.xla import compiler_options, keep_memory


class Layer(NamedTuple):
    """A convolution with ``same`` padding, or response normalisation where the kernel is 0."""

    name: str
    pixels: int
    kernel: int
    stride: int
    inputs: int
    outputs: int


LAYERS = (
    Layer("ResNet50", 56, 3, 1, 64, 64),
    Layer("ResNet50", 28, 3, 1, 128, 128),
    Layer("ResNet50", 14, 3, 1, 256, 256),
    Layer("ResNet50", 7, 3, 1, 512, 512),
    Layer("ResNet50, stem", 224, 7, 2, 3, 64),
    Layer("GoogLeNet", 56, 3, 1, 64, 192),
    Layer("GoogLeNet", 28, 5, 1, 32, 96),
    Layer("GoogLeNet, response normalisation", 56, 0, 1, 192, 192),
    Layer("AlexNet, first", 224, 11, 4, 3, 96),
    Layer("AlexNet, second", 27, 5, 1, 96, 256),
    Layer("AlexNet, response normalisation", 55, 0, 1, 96, 96),
    Layer("ConvNeXt, stem", 224, 4, 4, 3, 96),
    Layer("ConvNeXt, down", 56, 2, 2, 96, 192),
    Layer("ConvNeXt, down", 14, 2, 2, 384, 768),
)
TASKS = ("value", "kernel", "input")


def plain_response_norm(x: Array) -> Array:
    """Normalises as our function of that name does, and is differentiated by JAX."""
    squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (2, 2)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
    return x * (1.0 + 2e-5 * total) ** -0.75


def functions(layer: Layer) -> tuple[Callable[..., Array], Callable[..., Array]]:
    """Returns the layer (x, kernel) -> y, ours and XLA's."""
    if not layer.kernel:
        ours = functools.partial(ops.local_response_norm, size=5, k=1.0, alpha=2e-5)
        return lambda x, _: ours(x), lambda x, _: plain_response_norm(x)
    padding = ops.same_padding(layer.pixels, layer.pixels, layer.kernel, layer.stride)
    native = functools.partial(ops.native_conv, stride=layer.stride, padding=padding)
    return lambda x, kernel: ops.conv(x, kernel, layer.stride, padding), native


def work(function: Callable[..., Array], task: str) -> Callable[..., Array]:
    """Returns (x, kernel, gradient of the output) -> what the task asks for."""
    if task == "value":
        return lambda x, kernel, g: function(x, kernel)
    place = {"input": 0, "kernel": 1}[task]
    return lambda x, kernel, g: jax.vjp(function, x, kernel)[1](g)[place]


def inside_a_loop(function: Callable[..., Array]) -> Callable[..., Array]:
    """Returns the function, computed as the only turn of a loop."""

    def looped(x: Array, *others: Array) -> Array:
        return lax.map(lambda one: function(one, *others), x[None])[0]

    return looped


def compared(
    layer: Layer, batch: int, rounds: int
) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yields each task with the milliseconds of ours and of XLA's, one of each a round."""
    rng = np.random.default_rng(0)
    side = -(-layer.pixels // layer.stride)
    shapes: list[tuple[int, ...]] = [
        (batch, layer.pixels, layer.pixels, layer.inputs),
        (max(layer.kernel, 1), max(layer.kernel, 1), layer.inputs, layer.outputs),
        (batch, side, side, layer.outputs),
    ]
    arguments = [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]
    ours, native = functions(layer)
    for task in TASKS:
        if task == "kernel" and not layer.kernel:
            continue
        forms = inside_a_loop(work(ours, task)), work(native, task)
        compiled = [
            jax.jit(form, compiler_options=compiler_options()).lower(*arguments).compile()
            for form in forms
        ]
        times: list[list[float]] = [[], []]
        for form in compiled:
            jax.block_until_ready(form(*arguments))
        for _ in range(rounds):
            for form, taken in zip(compiled, times, strict=True):
                taken.append(milliseconds(form, *arguments))
        yield task, times[0], times[1]


def milliseconds(function: Callable[..., Any], *arguments: Array) -> float:
    """Returns how long one call takes."""
    began = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return 1e3 * (time.perf_counter() - began)


def cells(layer: Layer, batch: int, rounds: int) -> list[str]:
    """Returns a row of the table: for each task the medians of ours and XLA's, and their ratio."""
    shape = f"{layer.pixels} x {layer.pixels} x {layer.inputs}"
    if layer.kernel:
        shape += f" to {layer.outputs}, {layer.kernel} x {layer.kernel}, stride {layer.stride}"
    found = {task: (ours, xla) for task, ours, xla in compared(layer, batch, rounds)}
    row = [layer.name, shape]
    for task in TASKS:
        if task not in found:
            row.append("")
            continue
        ours, xla = (statistics.median(times) for times in found[task])
        row.append(f"{ours:.1f} / {xla:.1f} = {ours / xla:.2f}")
    return row


def main() -> None:
    """Times every layer, prints the table and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # as in training
    keep_memory()
    rows = []
    for layer in LAYERS:
        rows.append(cells(layer, options.batch, options.rounds))
        print(" | ".join(rows[-1]), flush=True)
    header = ["layer", "input and kernel", "value, ms", "gradient of the kernel", "of the input"]
    text = "\n\n".join(
        [
            "## Single layers",
            results.provenance() + f" jax {jax.__version__}, batch {options.batch}, float32.",
            " ".join(__doc__.split("\n\n")[2].split())
            + " Cells are medians of ours, of XLA's, and their ratio.",
            markdown_table(header, rows),
        ]
    )
    results.write_section(options.results, "layers", text)


if __name__ == "__main__":
    main()
