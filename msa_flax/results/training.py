"""The training of a run: from its data to its last epoch, then its scores, maps and figures."""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from msa_flax import __version__
from msa_flax.config import Config, ConfigError
from msa_flax.data import pipeline
from msa_flax.data.examples import Examples
from msa_flax.data.splits import Splits
from msa_flax.data.stored import fetch
from msa_flax.evaluation.predictions import predict_logits
from msa_flax.models import scaler
from msa_flax.plots import figures
from msa_flax.results.features import frozen_features
from msa_flax.results.maps import FIGURE_CASES, explain_errors, explain_split
from msa_flax.results.overview import draw_samples, log_overview
from msa_flax.results.scores import evaluate_split, report
from msa_flax.run import Run, restore, start
from msa_flax.training import devices, hosts, optim, steps
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.compile import compile_train_steps
from msa_flax.training.loop import Loop, loss_and_accuracy, read_rows
from msa_flax.training.progress import TerminalMonitor
from msa_flax.training.steps import TrainState
from msa_flax.training.workdir import (
    WorkdirError,
    check_workdir,
    identity,
    locked,
    logging_to,
    record_end,
    record_files,
    record_start,
)
from msa_flax.training.xla import compile_predict_step, trim_memory

log = logging.getLogger("msa_flax")

_READ = 32  # batches of validation images that are read at a time: the set may not fit into memory


def train_run(
    workdir: Path,
    config: Config,
    examples: Examples | None = None,
    *,
    changes: Sequence[str] = (),
) -> None:
    """Trains to the last epoch, or continues, then evaluates, explains and draws the figures.

    Where several processes train together, the first one does all but the training by itself.

    Args:
        workdir: the folder of the run.
        config: its configuration, validated.
        examples: its images, where a caller that makes many runs has loaded them.
        changes: the stamps of :func:`msa_flax.training.workdir.check_workdir`.
    """
    began = time.perf_counter()
    hosts.check_same("the configuration", json.dumps(config.to_dict()))
    mesh = devices.mesh(config.train.batch_size)
    with hosts.together():
        run = start(workdir, config, examples, changes=changes)
        fresh, make_loop = build(run, mesh)
    hosts.check_same("the images", run.data.examples.fingerprint)
    with contextlib.ExitStack() as held:
        opened = hosts.first(lambda: _open(run, fresh, held, time.perf_counter() - began))
        checkpoints, state, progress = opened or (None, fresh, {})
        state = devices.replicate(mesh, hosts.share(state))
        _train(run, make_loop(checkpoints=checkpoints), state, progress)
        hosts.first(lambda: _conclude(run))


def build(run: Run, mesh: Mesh) -> tuple[TrainState, Callable[..., Loop]]:
    """Returns the state before the first step, and what makes the loop, given its checkpoints."""
    config, examples, rows = run.config, run.data.examples, run.data.splits.indices("train")
    if config.train.batch_size > len(rows):
        raise ConfigError(
            f"train.batch_size: expected at most the {len(rows)} training images, got "
            f"{config.train.batch_size}"
        )
    freeze, dtype = config.train.freeze_backbone, jnp.dtype(config.train.compute_dtype)
    inputs, scale, exact = examples.images, scaler(config, dtype=dtype), scaler(config)
    if freeze:  # what the backbone computes stays the same, and so it is computed once
        inputs = frozen_features(run, examples)
        scale, exact = lambda maps: maps.astype(dtype), lambda maps: maps.astype(jnp.float32)

    steps_per_epoch = pipeline.steps_per_epoch(len(rows), config.train.batch_size)
    optimizer = optim.create_optimizer(
        config.optim, total_steps=config.train.epochs * steps_per_epoch, freeze_backbone=freeze
    )
    balanced = config.optim.class_weights == "balanced"
    weights = steps.balanced_weights(examples.label[rows]) if balanced else (1.0, 1.0)
    train_step = steps.make_train_step(
        run.model,
        optimizer,
        scale,
        seed=config.train.seed,
        freeze_backbone=freeze,
        class_weights=weights,
    )
    predict_step = steps.make_predict_step(run.model, exact, method="head" if freeze else None)
    make_loop = functools.partial(
        Loop,
        train_steps=compile_train_steps(train_step, mesh),
        dispatches=_dispatches(run, inputs),
        validate=_validation(run, inputs, compile_predict_step(predict_step), weights),
        after_epoch=lambda state, loss: dataclasses.replace(
            state, opt_state=optim.after_epoch(state.opt_state, loss, config.optim)
        ),
        patience=config.train.early_stopping,
        steps_per_epoch=steps_per_epoch,
        epochs=config.train.epochs,
        workdir=run.workdir,
        describe=lambda chosen: examples.example_id[rows][chosen].tolist(),
    )
    return steps.create_state(run.variables, optimizer), make_loop


def _dispatches(run: Run, inputs: np.ndarray) -> Callable[[int, int], Any]:
    """Returns the function (epoch, first step) -> batches of the training split."""
    rows = run.data.splits.indices("train")
    labels, train = run.data.examples.label[rows], run.config.train
    return lambda epoch, start_step: pipeline.train_dispatches(
        inputs,
        labels,
        rows=rows,
        batch_size=train.batch_size,
        steps_per_dispatch=train.steps_per_dispatch,
        seed=train.seed,
        epoch=epoch,
        start_step=start_step,
        augment=run.config.data.augment != "none",
    )


def _validation(
    run: Run, inputs: np.ndarray, predict_step: Callable[..., Any], weights: steps.ClassWeights
) -> Callable[[Any], dict[str, float]]:
    """Returns the function variables -> loss and accuracy on the validation split."""
    rows = run.data.splits.indices("validation")
    labels, size = run.data.examples.label[rows], run.config.eval.batch_size

    def validate(variables: Any) -> dict[str, float]:
        predict = functools.partial(predict_step, devices.local(variables))
        parts = np.split(rows, range(_READ * size, len(rows), _READ * size))
        logits = np.concatenate(
            [predict_logits(predict, fetch(inputs, part), batch_size=size) for part in parts]
        )
        trim_memory()  # what is left of prediction would be in the way of the next training step
        return loss_and_accuracy(labels, logits, class_weights=weights)

    return validate


def _open(
    run: Run, fresh: TrainState, held: contextlib.ExitStack, seconds: float
) -> tuple[Checkpoints, TrainState, dict[str, Any]]:
    """Makes the folder of the run; returns its checkpoints, and state and progress to go on from.

    The folder is locked, and logged to, for as long as it is held.
    """
    held.enter_context(locked(run.workdir))
    accept = bool(run.changes)
    check_workdir(
        run.workdir, run.config, accept=accept
    )  # another process may have made a run here meanwhile
    held.enter_context(logging_to(run.workdir / "train.log"))
    record(run, seconds)
    log_overview(run)
    draw_samples(run)
    checkpoints = Checkpoints(run.workdir, run="" if accept else identity(run.config))
    state, progress = checkpoints.restore_last(fresh) or (fresh, {})
    return checkpoints, state, progress


def record(run: Run, seconds: float) -> None:
    """Writes config.json, run.json and splits.csv.

    Args:
        run: a run before training.
        seconds: what its preparation took.
    """
    examples = run.data.examples
    facts = {
        "msa_flax": __version__,
        "data_fingerprint": examples.fingerprint,
        "images": len(examples),
        "bad_files": [list(item) for item in examples.bad_files],
        "weights": run.report.to_dict() if run.report else None,
        "stamps": run.data.stamps,
        "changes": list(run.changes),
    }
    record_start(run.workdir, run.config, facts, seconds=seconds)
    _check_splits(run)
    run.data.splits.write(run.workdir / "splits.csv")
    record_files(run.workdir)


def _check_splits(run: Run) -> None:
    """Refuses a table of splits that is not the one which this configuration makes."""
    path, own = run.workdir / "splits.csv", run.data.splits
    if path.exists():
        kept = Splits.read(path)
        if not all(
            np.array_equal(getattr(kept, c), getattr(own, c)) for c in ("example_id", "split")
        ):
            raise WorkdirError(
                f"{path} was changed by hand: it is not what the configuration makes; delete it, "
                "and the same command writes it again"
            )


def _train(run: Run, loop: Loop, state: TrainState, progress: dict[str, Any]) -> None:
    """Runs the loop from where the run stands, and records what it took, however it ends."""
    step, total, began = int(state.step), loop.total_steps, time.perf_counter()
    if loop.finished(step, progress):
        log.info("training is finished: %d of %d steps are done", step, total)
        return
    if step:
        log.info("continuing after step %d of %d", step, total)
    if loop.checkpoints:
        monitor = TerminalMonitor(
            run.workdir,
            run.config.train,
            steps_per_epoch=loop.steps_per_epoch,
            start_step=step,
        )
        loop = dataclasses.replace(loop, monitor=monitor)
    try:
        state = loop.run(state, progress)
    finally:
        loop.monitor.close()
        trim_memory()  # evaluation does not need what training needed
        if loop.checkpoints:
            seconds, step_seconds = time.perf_counter() - began, loop.monitor.step_seconds
            record_end(run.workdir, seconds=seconds, step_seconds=step_seconds)
    if loop.checkpoints:
        _warn_if_nothing_was_learnt(run)
    if int(state.step) < total:
        log.info(
            "stopped after step %d of %d: no lower validation loss for %d epochs",
            *(int(state.step), total, loop.patience),
        )


def _warn_if_nothing_was_learnt(run: Run) -> None:
    """Warns where the last training loss is above that of one answer for every image."""
    losses = [r["loss"] for r in read_rows(run.workdir / "metrics.jsonl") if r["split"] == "train"]
    share = float(run.data.examples.label[run.data.splits.indices("train")].mean())
    if run.config.optim.class_weights == "balanced":
        share = 0.5
    constant = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    if losses and losses[-1] is not None and losses[-1] > constant:
        log.warning(
            "the training loss of the last epoch, %.4g, is worse than that of one answer for every "
            "image, %.4f; train longer, or with another optim.learning_rate",
            *(losses[-1], constant),
        )


def _conclude(run: Run) -> None:
    """Evaluates both held-out splits, explains some test images, draws the figures."""
    log.info("evaluating and explaining the best checkpoint")
    trained = dataclasses.replace(restore(run.workdir), loaded=run.data)
    results = {split: evaluate_split(trained, split) for split in ("validation", "test")}
    _ = trained.scorer  # it measures the training images, which may be gone later
    rows, path = read_rows(run.workdir / "metrics.jsonl"), "figures/learning_curves.png"
    figures.learning_curves({run.config.name: rows}, run.workdir / path, stamps=run.data.stamps)
    report(trained, results)
    explain_split(trained, limit=FIGURE_CASES)
    explain_errors(trained, split="test", threshold=results["test"]["threshold"])
    log.info("figures, predictions and everything else: %s", run.workdir)
