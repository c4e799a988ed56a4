"""What JAX is told about compiling, in one place."""

import jax

from msa_flax.files import cache_dir


def prepare_jax() -> None:
    """Prepares JAX for a command, before it is used for anything else.

    Turns the persistent compilation cache on, in the cache folder of this project, and lets a CPU
    compute in the thread that asks for it: every command waits for its results anyway, and memory
    that :func:`msa_flax.training.memory.keep_memory` keeps is kept for that thread.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
