"""This package, timed on request: the training step of paper 1's experiment.

Started by versus.py; reads "go" and answers with milliseconds a step.
"""

import functools
import json
import sys
import time

import jax
import numpy as np

from msa_flax import api
from msa_flax.config import Config, ModelConfig
from msa_flax.models import create_model
from msa_flax.training import steps
from msa_flax.training.optim import create_optimizer
from msa_flax.training.record import peak_memory_gib
from msa_flax.training.state import create_state


def main() -> None:
    """Answers requests until its input ends."""
    batch, size, count = (int(value) for value in sys.argv[1:])
    config = Config(model=ModelConfig(pretrained="none"))
    model = create_model(config.model)
    optimizer = create_optimizer(config.optim, total_steps=1)
    state = create_state(api.initialise(model, image_size=size, seed=0), optimizer)
    step = steps.make_train_step(model, optimizer, api.scaler(config), seed=0)
    train_steps = jax.jit(
        steps.repeat(step), donate_argnums=0, compiler_options=steps.compiler_options()
    )
    rng = np.random.default_rng(0)
    data = {
        "image": rng.integers(0, 256, (count, batch, size, size), dtype=np.uint8),
        "label": rng.integers(0, 2, (count, batch)).astype(np.float32),
        "weight": np.ones((count, batch), np.float32),
    }
    run = functools.partial(train_steps, batches=data, count=count)
    state, _ = jax.block_until_ready(run(state))
    print(json.dumps({"ready": f"msa_flax, jax {jax.__version__}"}), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        state, _ = jax.block_until_ready(run(state))
        taken = (time.perf_counter() - began) / count * 1e3
        print(json.dumps({"ms": taken, "peak_gib": peak_memory_gib()}), flush=True)


main()
