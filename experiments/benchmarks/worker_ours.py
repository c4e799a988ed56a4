"""This package, timed on request: the training step of paper 1's experiment, and prediction.

Images arrive as the package keeps them, uint8; scaling is part of what is timed, and so is handing
them to the compiled call.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import worker

from msa_flax import models
from msa_flax.config import Config, ModelConfig
from msa_flax.models import create_model, fold_batch_norm
from msa_flax.saliency import METHODS, choose, make_explain_step
from msa_flax.training import devices
from msa_flax.training.compile import compile_train_steps
from msa_flax.training.optim import create_optimizer
from msa_flax.training.steps import create_state, make_predict_step, make_train_step
from msa_flax.training.xla import compile_predict_step, compiler_options


def main() -> None:
    """Answers requests until its input ends."""
    options = worker.options()
    # As prepare_jax does, which also turns the cache of compiled programs on.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    attention = "msa" if options.network == worker.PAPER1 else "none"
    backbone = worker.backbone(options.network)
    config = Config(model=ModelConfig(pretrained="none", backbone=backbone, attention=attention))
    model = create_model(config.model)
    initialise = functools.partial(models.initialise, model, seed=0)
    scale = models.scaler(config, dtype=jnp.bfloat16 if options.bf16 else jnp.float32)

    def train(batch: int, count: int) -> worker.Turn:
        optimizer = create_optimizer(config.optim, total_steps=1)
        state = create_state(initialise(), optimizer)
        step = make_train_step(model, optimizer, scale, seed=0)
        mesh = devices.mesh(batch)
        state = devices.replicate(mesh, state)
        train_steps = compile_train_steps(step, mesh)
        grey, label = worker.grey_images(batch, options.size), worker.labels(batch)
        data = {
            "image": np.stack([grey] * count),
            "label": np.stack([label] * count),
            "weight": np.ones((count, batch), np.float32),
        }

        def work() -> None:
            nonlocal state
            state, _ = jax.block_until_ready(train_steps(state, data, count))

        return lambda: worker.timed(work, units=count)

    def infer(batch: int, count: int) -> worker.Turn:
        predict_step = compile_predict_step(make_predict_step(model, scale))
        variables = jax.device_put(fold_batch_norm(initialise()))
        grey = worker.grey_images(batch, options.size)
        return lambda: worker.timed(lambda: np.asarray(predict_step(variables, grey)), count)

    def features(variables: Any, grey: Any) -> Any:
        return model.apply(variables, scale(grey), method="features")

    def head(variables: Any, found: Any) -> Any:
        return model.apply(variables, found, method="head"), {}

    def explain(method: str) -> worker.Make:
        def make(batch: int, count: int) -> worker.Turn:
            step = jax.jit(
                make_explain_step(features, head, choose([method])),
                compiler_options=compiler_options(),
            )
            variables = jax.device_put(fold_batch_norm(initialise()))
            grey = worker.grey_images(batch, options.size)
            return lambda: worker.timed(lambda: jax.device_get(step(variables, grey)), count)

        return make

    device = jax.devices()[0]
    worker.serve(
        {"train": train, "infer": infer} | {name: explain(name) for name in METHODS},
        versions={"jax": jax.__version__, "device": device.device_kind},
        parameters=sum(leaf.size for leaf in jax.tree.leaves(models.shapes(model))),
        device_gib=lambda: (device.memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**30,
    )


main()
