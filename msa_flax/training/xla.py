"""What XLA is told, how a prediction is compiled, and what becomes of the memory.

Nothing here knows a network or a training state, so a portable model runs with JAX alone.
"""

import contextlib
import ctypes
import logging
import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jaxtyping import Array, PyTree

from msa_flax.files import cache_dir

log = logging.getLogger("msa_flax")

# Parameters of mallopt, see malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def prepare_jax() -> None:
    """Prepares JAX for a command; to be called before JAX is used for anything else.

    Turns on the persistent compilation cache, in the cache folder of this package. Lets a CPU
    compute in the thread that asks for it: every command waits for its results anyway, and
    :func:`keep_memory` keeps memory for that thread only.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def compiler_options(*, many_branches: bool = False) -> dict[str, Any]:
    """Returns options of XLA for the platform in use: on a CPU, wide vectors and Eigen's products.

    Args:
        many_branches: whether the program has many parts that do not depend on each other. In
            jaxlib 0.10.2 such a program sometimes hangs, with all threads waiting, if it is
            scheduled so that a CPU may compute those parts side by side. It is then scheduled to
            save memory instead.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: dict[str, Any] = {"xla_cpu_prefer_vector_width": 512, "xla_cpu_use_xnnpack": False}
    if many_branches:
        options["xla_cpu_scheduler_type"] = "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
    return options


def compile_predict_step(
    predict_step: Callable[[PyTree, Any], PyTree],
) -> Callable[[PyTree, Any], PyTree]:
    """Returns a step from :func:`~msa_flax.training.steps.make_predict_step`, compiled.

    It is compiled at its first call. From then on this process keeps the memory that it frees.
    """
    compiled = jax.jit(predict_step, compiler_options=compiler_options())
    kept = False

    def predict(variables: PyTree, inputs: Any) -> PyTree:
        nonlocal kept
        if not kept:
            log.info("compiling prediction")
            keep_memory()
            kept = True
        # Transfer first; otherwise XLA computes in a worker thread, which keep_memory() does not
        # cover.
        return compiled(variables, jax.block_until_ready(jax.device_put(inputs)))

    return predict


def in_parts(function: Callable[[Array], PyTree], inputs: Array, at_once: int) -> PyTree:
    """Returns a function of a batch, on a CPU computed for a few images at a time.

    So their activations stay in the cache of the CPU; no image may influence the result of another.

    Args:
        function: inputs [b, ...] to a tree of arrays [b, ...].
        inputs: [n, ...].
        at_once: images at a time; fewer where n is not a multiple of it.
    """

    def parts(inputs: Array) -> PyTree:
        part = math.gcd(len(inputs), at_once)
        found = lax.map(function, inputs.reshape(-1, part, *inputs.shape[1:]))
        return jax.tree.map(lambda x: x.reshape(len(inputs), *x.shape[2:]), found)

    return lax.platform_dependent(inputs, cpu=parts, default=function)


def trim_memory() -> None:
    """Gives freed memory back to the operating system, where the C library can (glibc).

    Compiling the training step leaves half a GiB of freed pieces behind, which would otherwise
    stay resident beside everything that the step itself needs.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """Lets this process keep the memory that it frees from now on, where it can (glibc).

    On a CPU, XLA asks for memory for its intermediate results at every call. By default that is
    mapped and unmapped each time, which costs a quarter of a million page faults per GiB, and they
    are four times slower while other processes free much memory too. The peak stays the same,
    because the next call asks for what this one has freed. Memory belongs to the thread that asked
    for it, so this helps where XLA computes in the thread that calls it (:func:`prepare_jax`).
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)
