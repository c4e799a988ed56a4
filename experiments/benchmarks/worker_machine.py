"""The machine's own ceilings, timed on request: a large matrix product, a large copy.

Times are milliseconds per GFLOP and milliseconds per GB, whatever batch and count are asked for.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import worker

from msa_flax.training.xla import compiler_options

CPU = jax.default_backend() == "cpu"
SIDE = 2048 if CPU else 8192  # of the square matrices
COPIED = 2**28 if CPU else 2**31  # bytes: many times a cache
REPEATS = 4


def matmul(bf16: bool) -> worker.Turn:
    """Times XLA's matrix product."""
    x = jnp.ones((SIDE, SIDE), jnp.bfloat16 if bf16 else jnp.float32)
    product = jax.jit(jnp.matmul, compiler_options=compiler_options())
    work = lambda: jax.block_until_ready(product(x, x))  # noqa: E731
    return lambda: worker.timed(work, REPEATS, 2 * SIDE**3 / 1e9)


def copy() -> worker.Turn:
    """Times a copy by all cores; every byte counts twice, as read and as written."""
    if CPU:
        cores = os.cpu_count() or 1
        sources, targets = (list(np.ones((cores, COPIED // cores), np.uint8)) for _ in range(2))
        pool = ThreadPoolExecutor(cores)
        work = lambda: list(pool.map(np.copyto, targets, sources))  # noqa: E731
    else:
        x, negative = jnp.ones(COPIED // 4), jax.jit(jnp.negative)
        work = lambda: jax.block_until_ready(negative(x))  # noqa: E731
    return lambda: worker.timed(work, REPEATS, 2 * COPIED / 1e9)


def main() -> None:
    """Answers requests until its input ends."""
    options = worker.options("matmul", "copy")
    make = copy if options.form == "copy" else lambda: matmul(options.bf16)
    task = lambda batch, count: make()  # noqa: E731
    worker.serve({"train": task, "infer": task}, versions={"jax": jax.__version__})


main()
