"""What a training run is made of, built from its configuration: data, network, steps, loop."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from msa_flax import api, data, files, weights
from msa_flax.config import Config
from msa_flax.data import splits as splitting
from msa_flax.data import stamps as stamping
from msa_flax.data.examples import Examples
from msa_flax.data.splits import Splits
from msa_flax.evaluation.predictions import predict_logits
from msa_flax.models import check_size, create_model
from msa_flax.training import devices, hosts, optim, steps
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.features import cached_features
from msa_flax.training.loop import Loop, loss_and_accuracy
from msa_flax.training.losses import balanced_weights
from msa_flax.training.memory import trim_memory
from msa_flax.training.monitor import NoMonitor
from msa_flax.training.state import TrainState, create_state
from msa_flax.weights import WeightsReport

log = logging.getLogger("msa_flax")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every stage of a training run needs to know."""

    workdir: Path
    config: Config
    examples: Examples
    splits: Splits
    stamps: list[str]

    @property
    def steps_per_epoch(self) -> int:
        """Training steps an epoch."""
        from msa_flax.data import pipeline

        return pipeline.steps_per_epoch(
            len(self.splits.indices("train")), self.config.train.batch_size
        )

    @property
    def total_steps(self) -> int:
        """Training steps of the whole run, if nothing stops it early."""
        return self.config.train.epochs * self.steps_per_epoch


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A run's network before training.

    Attributes:
        state: initial parameters, statistics and optimiser.
        train_steps: compiled (state, stacked batches, count) -> (state, sums).
        predict_step: compiled (variables, inputs) -> logits.
        inputs: what the steps take, one row an example: images uint8 [n, s, s], or, where the
            backbone is frozen, its feature maps float16 [n, fh, fw, c].
        report: which weights were loaded, None for random ones.
    """

    state: TrainState
    train_steps: Any
    predict_step: Any
    inputs: np.ndarray
    report: WeightsReport | None


def check(config: Config) -> None:
    """Refuses a network that does not exist, before any work is done.

    Raises:
        ModelError: unknown backbone, a width that it does not have, or too small images.
    """
    create_model(config.model)
    check_size(config.model.backbone, config.data.image_size)


def read_data(workdir: Path, config: Config, examples: Examples | None = None) -> Job:
    """Loads and splits the data, and refuses what would make the result meaningless.

    Args:
        workdir: the run's folder.
        config: the run's configuration.
        examples: its data, where a caller that makes many runs has loaded them.
    """
    if examples is None:
        examples = data.load(config.data)
    splits = splitting.assign(examples, config.data, seed=config.train.seed)
    stamping.check_contradictions(examples)
    stamping.check_leakage(examples, splits, allow=config.data.allow_leakage)
    stamps = stamping.stamps(examples, splits)
    return Job(workdir=workdir, config=config, examples=examples, splits=splits, stamps=stamps)


def build(job: Job, mesh: Mesh) -> Parts:
    """Returns the run's network, with the weights that it starts from."""
    config, freeze = job.config, job.config.train.freeze_backbone
    model = create_model(config.model)
    variables, report = api.initial_variables(model, config)
    optimizer = optim.create_optimizer(
        config.optim, total_steps=job.total_steps, freeze_backbone=freeze
    )
    dtype = jnp.dtype(config.train.compute_dtype)
    if not freeze:
        inputs, scale = job.examples.images, api.scaler(config, dtype=dtype)
        predict_step = api.compiled_predict_step(model, config)
    else:
        inputs = frozen_features(config, job.examples, variables)
        scale = lambda features: features.astype(dtype)  # noqa: E731
        predict_step = steps.compiled_predict_step(
            steps.make_predict_step(model, lambda x: x.astype(jnp.float32), method="head")
        )
    train_step = steps.make_train_step(
        model,
        optimizer,
        scale,
        seed=config.train.seed,
        freeze_backbone=freeze,
        class_weights=_class_weights(job),
    )
    compiled = steps.compiled_train_steps(train_step, devices.replicated(mesh))

    def train_steps(state: TrainState, batches: Any, count: int) -> Any:
        return compiled(state, devices.split(mesh, batches), count)

    return Parts(
        state=create_state(variables, optimizer),
        train_steps=train_steps,
        predict_step=predict_step,
        inputs=inputs,
        report=report,
    )


def make_loop(job: Job, parts: Parts, checkpoints: Checkpoints) -> Loop:
    """Returns the training loop of a run, which shows nothing yet."""
    from msa_flax.data import pipeline

    config, rows = job.config, job.splits.indices("train")
    training, labels = parts.inputs[rows], job.examples.label[rows]
    held = job.splits.indices("validation")
    validation, truth = parts.inputs[held], job.examples.label[held]

    def validate(variables: Any) -> dict[str, float]:
        predict = functools.partial(parts.predict_step, devices.local(variables))
        logits = predict_logits(predict, validation, batch_size=config.eval.batch_size)
        trim_memory()  # else what stays of it lies in the way of the next training step's memory
        return loss_and_accuracy(truth, logits)

    def dispatches(epoch: int, start_step: int) -> Iterator[Any]:
        return pipeline.train_dispatches(
            training,
            labels,
            batch_size=config.train.batch_size,
            steps_per_dispatch=config.train.steps_per_dispatch,
            seed=config.train.seed,
            epoch=epoch,
            start_step=start_step,
            augment=config.data.augment != "none",
        )

    def after_epoch(state: TrainState, loss: float) -> TrainState:
        return dataclasses.replace(
            state, opt_state=optim.after_epoch(state.opt_state, loss, config.optim)
        )

    return Loop(
        train_steps=parts.train_steps,
        dispatches=dispatches,
        validate=validate,
        after_epoch=after_epoch,
        patience=config.train.early_stopping,
        steps_per_epoch=job.steps_per_epoch,
        epochs=config.train.epochs,
        workdir=job.workdir,
        checkpoints=checkpoints,
        monitor=NoMonitor(),
        describe=lambda chosen: job.examples.example_id[rows][chosen].tolist(),
        writes=hosts.is_first(),
    )


def _class_weights(job: Job) -> tuple[float, float]:
    if job.config.optim.class_weights == "none":
        return 1.0, 1.0
    return balanced_weights(job.examples.label[job.splits.indices("train")])


def frozen_features(config: Config, examples: Examples, variables: dict[str, Any]) -> np.ndarray:
    """Returns the frozen backbone's feature maps of all images, computed once for all runs.

    Args:
        config: backbone, ``preprocess`` and evaluation batch size are used.
        examples: n images.
        variables: the network's.

    Returns:
        float16 [n, fh, fw, c], read from disk as needed.
    """
    backbone = {key: tree["backbone"] for key, tree in variables.items() if "backbone" in tree}
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(backbone):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}\n".encode())
        digest.update(np.asarray(leaf).tobytes())
    # The pixels' fingerprint knows size and equalisation; what is left is how they are scaled.
    what = f"{config.model.backbone} {config.data.preprocess} {examples.fingerprint}"
    digest.update(what.encode())
    model, scale = create_model(config.model), api.scaler(config)
    step = steps.make_predict_step(model, scale, method="features")
    compiled = steps.compiled_predict_step(step)
    return cached_features(
        files.cache_dir() / "features" / f"{digest.hexdigest()[:32]}.npy",
        functools.partial(compiled, variables),
        examples.images,
        batch_size=config.eval.batch_size,
    )


def pooled_features(config: Config, examples: Examples) -> np.ndarray | None:
    """Returns the mean of each image's feature maps under pretrained weights, float32 [n, c].

    Images are scaled as the weights were trained, whatever the run feeds its network.

    Returns:
        None where the configuration asks for no pretrained weights, or they cannot be had.
    """
    if config.model.pretrained == "none":
        return None
    native = dataclasses.replace(config.data, preprocess="native")
    config = dataclasses.replace(config, data=native)
    try:
        variables, _ = api.initial_variables(create_model(config.model), config)
    except weights.WeightsError as error:
        log.warning("no features of a pretrained network: %s", error)
        return None
    maps = frozen_features(config, examples, variables)
    return np.stack([np.asarray(one, np.float32).mean(axis=(0, 1)) for one in maps])
