"""Train, evaluate and explain a model: python -m msa_flax.train --workdir DIR.

Without --config the embedded default runs: a narrow MSA-CSpineNet on a synthetic cervical-CT
phantom, in a few minutes, with no network and no data of yours. The paper's experiment on images in
DIR/{train,val}/{fracture,normal}/ is --config=experiments/paper1_msa.py --config.data.root=DIR.
The same command again continues where the run stopped, and says so where it is finished.
All devices share a batch. So do several processes, each started with the same command and with
--coordinator, --processes and --process; process 0 alone writes.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from absl import flags

from msa_flax import __version__, cli, files
from msa_flax.config import Config

if TYPE_CHECKING:
    import numpy as np
    from jax.sharding import Mesh

    from msa_flax.data.examples import Examples
    from msa_flax.run import Run
    from msa_flax.training.checkpoint import Checkpoints
    from msa_flax.training.loop import Loop
    from msa_flax.training.monitor import TerminalMonitor
    from msa_flax.training.state import TrainState

log = logging.getLogger("msa_flax")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "folder of the run; made if it is not there")
    cli.define_config(values)
    flags.DEFINE_string(
        "coordinator", None, "HOST:PORT of process 0, where several train", flag_values=values
    )
    flags.DEFINE_integer("processes", None, "how many train together", flag_values=values)
    flags.DEFINE_integer("process", None, "which one this is, from 0", flag_values=values)
    flags.DEFINE_boolean(
        "print_config", False, "print the configuration as JSON and end", flag_values=values
    )


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    if args.print_config:
        print(json.dumps(args.config.to_dict(), indent=2))
        return
    workdir = cli.workdir(args, trained=False)
    args.config.validate()
    from msa_flax.models import check_network
    from msa_flax.training import hosts, record
    from msa_flax.training.compile import prepare_jax

    prepare_jax()
    check_network(args.config)

    hosts.join(args.coordinator, args.processes, args.process)
    with hosts.together():
        if hosts.is_first():
            record.check_workdir(workdir, args.config)
        else:
            log.setLevel(logging.ERROR)
    train_run(workdir, args.config)


def train_run(workdir: Path, config: Config, examples: "Examples | None" = None) -> None:
    """Trains to the last epoch, or continues, then evaluates, explains and draws the figures.

    Where several processes train together, the first one does all but the training by itself.

    Args:
        workdir: the folder of the run.
        config: its configuration, validated.
        examples: its images, where a caller that makes many runs has loaded them.
    """
    from msa_flax.run import start
    from msa_flax.training import devices, hosts, record
    from msa_flax.training.checkpoint import Checkpoints

    began = time.perf_counter()
    hosts.check_same("the configuration", json.dumps(config.to_dict()))
    mesh = devices.mesh(config.train.batch_size)
    with hosts.together():
        run = start(workdir, config, examples)
    hosts.check_same("the images", run.data.examples.fingerprint)
    with contextlib.ExitStack() as held:
        with hosts.together():
            parts = _build(run, mesh)
            if hosts.is_first():
                held.enter_context(record.locked(workdir))
                held.enter_context(cli.logging_to(workdir / "train.log"))
                _record(run, time.perf_counter() - began)
                _describe(run)
                _draw_samples(run)
            checkpoints = Checkpoints(workdir, read_only=not hosts.is_first())
            restored = checkpoints.restore_last(parts.state) if hosts.is_first() else None
        state, progress = restored if restored else (parts.state, {})
        state = devices.replicate(mesh, hosts.share(state))
        _train(run, parts, checkpoints, state, progress)
        with hosts.together():
            if hosts.is_first():
                _conclude(run)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What the loop trains with.

    Attributes:
        state: initial parameters, statistics and optimiser.
        train_steps: compiled (state, stacked batches, count) -> (state, sums).
        predict_step: compiled (variables, inputs) -> logits.
        inputs: what the steps take, one row an example: images uint8 [n, s, s], or, where the
            backbone is frozen, its feature maps float16 [n, fh, fw, c].
    """

    state: "TrainState"
    train_steps: Any
    predict_step: Any
    inputs: "np.ndarray"


def _build(run: "Run", mesh: "Mesh") -> _Parts:
    """Returns the state before the first step and the compiled steps."""
    import jax.numpy as jnp

    from msa_flax.models import scaler
    from msa_flax.training import devices, optim, steps
    from msa_flax.training.losses import balanced_weights
    from msa_flax.training.state import create_state

    config, freeze = run.config, run.config.train.freeze_backbone
    examples, rows = run.data.examples, run.data.splits.indices("train")
    optimizer = optim.create_optimizer(
        config.optim, total_steps=_total_steps(run), freeze_backbone=freeze
    )
    dtype, method = jnp.dtype(config.train.compute_dtype), None
    inputs, scale, exact = examples.images, scaler(config, dtype=dtype), scaler(config)
    if freeze:
        inputs, method = run.frozen_features(examples), "head"
        scale, exact = lambda x: x.astype(dtype), lambda x: x.astype(jnp.float32)
    train_step = steps.make_train_step(
        run.model,
        optimizer,
        scale,
        seed=config.train.seed,
        freeze_backbone=freeze,
        class_weights=(1.0, 1.0)
        if config.optim.class_weights == "none"
        else balanced_weights(examples.label[rows]),
    )
    compiled = steps.compiled_train_steps(train_step, devices.replicated(mesh))

    def train_steps(state: "TrainState", batches: Any, count: int) -> Any:
        return compiled(state, devices.split(mesh, batches), count)

    return _Parts(
        state=create_state(run.variables, optimizer),
        train_steps=train_steps,
        predict_step=steps.compiled_predict_step(
            steps.make_predict_step(run.model, exact, method=method)
        ),
        inputs=inputs,
    )


def _steps_per_epoch(run: "Run") -> int:
    from msa_flax.data import pipeline

    images = len(run.data.splits.indices("train"))
    return pipeline.steps_per_epoch(images, run.config.train.batch_size)


def _total_steps(run: "Run") -> int:
    return run.config.train.epochs * _steps_per_epoch(run)


def _loop(run: "Run", parts: _Parts, checkpoints: "Checkpoints") -> "Loop":
    """Returns the training loop of a run, which shows nothing yet."""
    from msa_flax.data import pipeline
    from msa_flax.evaluation.predictions import predict_logits
    from msa_flax.training import devices, hosts, optim
    from msa_flax.training.loop import Loop, loss_and_accuracy
    from msa_flax.training.memory import trim_memory
    from msa_flax.training.monitor import NoMonitor

    config, examples = run.config, run.data.examples
    rows, held = run.data.splits.indices("train"), run.data.splits.indices("validation")
    training, labels = parts.inputs[rows], examples.label[rows]
    validation, truth = parts.inputs[held], examples.label[held]

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

    def after_epoch(state: "TrainState", loss: float) -> "TrainState":
        return dataclasses.replace(
            state, opt_state=optim.after_epoch(state.opt_state, loss, config.optim)
        )

    return Loop(
        train_steps=parts.train_steps,
        dispatches=dispatches,
        validate=validate,
        after_epoch=after_epoch,
        patience=config.train.early_stopping,
        steps_per_epoch=_steps_per_epoch(run),
        epochs=config.train.epochs,
        workdir=run.workdir,
        checkpoints=checkpoints,
        monitor=NoMonitor(),
        describe=lambda chosen: examples.example_id[rows][chosen].tolist(),
        writes=hosts.is_first(),
    )


def _train(
    run: "Run", parts: _Parts, checkpoints: "Checkpoints", state: "TrainState", progress: Any
) -> None:
    """Runs the loop from where the run stands, and records what it took, however it ends."""
    from msa_flax.training import hosts, memory
    from msa_flax.training.monitor import NoMonitor

    step, total = int(state.step), _total_steps(run)
    loop = _loop(run, parts, checkpoints)
    if loop.finished(step, progress):
        log.info("training is finished: %d of %d steps are done", step, total)
        return
    if step:
        log.info("continuing after step %d of %d", step, total)
    began = time.perf_counter()
    monitor = _monitor(run, step) if hosts.is_first() else NoMonitor()
    try:
        state = dataclasses.replace(loop, monitor=monitor).run(state, progress)
    finally:
        monitor.close()
        memory.trim_memory()  # what training needed, evaluation does not
        if hosts.is_first():
            path = run.workdir / "run.json"
            info = files.read_json(path)
            info["seconds"]["train"] += time.perf_counter() - began
            info["seconds"]["step"] = getattr(monitor, "step_seconds", None)
            files.write_json(path, info | {"peak_memory_gib": memory.peak_memory_gib()})
    if int(state.step) < total:
        log.info(
            "stopped after step %d of %d: no lower validation loss for %d epochs",
            *(int(state.step), total, run.config.train.early_stopping),
        )


def _record(run: "Run", seconds: float) -> None:
    """Writes config.json, run.json and splits.csv."""
    from msa_flax.training import record

    examples = run.data.examples
    earlier = files.read_json(run.workdir / "run.json")
    if earlier and earlier["data_fingerprint"] != examples.fingerprint:
        raise record.WorkdirError(
            "the images or labels are not those that this workdir's run was started with "
            f"(fingerprint {earlier['data_fingerprint'][:12]}, now "
            f"{examples.fingerprint[:12]}); restore them or use another --workdir"
        )
    info = {
        **record.environment(),
        "msa_flax": __version__,
        "name": run.config.name,
        "seed": run.config.train.seed,
        "data_fingerprint": examples.fingerprint,
        "images": len(examples),
        "bad_files": [list(item) for item in examples.bad_files],
        "weights": run.report.to_dict() if run.report else None,
        "stamps": run.data.stamps,
        "seconds": earlier.get("seconds", {"setup": 0.0, "train": 0.0}),
    }
    info["seconds"]["setup"] += seconds
    files.write_json(run.workdir / "config.json", {"config": run.config.to_dict()})
    files.write_json(run.workdir / "run.json", info)
    run.data.splits.write(run.workdir / "splits.csv")


def _monitor(run: "Run", step: int) -> "TerminalMonitor":
    from clu import metric_writers

    from msa_flax.training.monitor import TerminalMonitor

    return TerminalMonitor(
        metric_writers.SummaryWriter(str(run.workdir)),
        start_step=step,
        steps_per_epoch=_steps_per_epoch(run),
        epochs=run.config.train.epochs,
        batch_size=run.config.train.batch_size,
        log_every=run.config.train.log_every,
    )


def _conclude(run: "Run") -> None:
    """Evaluates both held-out splits, explains some test images, draws the figures."""
    from msa_flax.plots import figures
    from msa_flax.results.maps import FIGURE_CASES, explain_errors, explain_split
    from msa_flax.results.scores import evaluate_split, report
    from msa_flax.run import restore
    from msa_flax.training.loop import read_rows

    trained = dataclasses.replace(restore(run.workdir), loaded=run.data)
    results = {split: evaluate_split(trained, split) for split in ("validation", "test")}
    rows, path = read_rows(run.workdir / "metrics.jsonl"), "figures/learning_curves.png"
    figures.learning_curves({run.config.name: rows}, run.workdir / path, stamps=run.data.stamps)
    report(trained, results)
    explain_split(trained, limit=FIGURE_CASES)
    explain_errors(trained, split="test", threshold=results["test"]["threshold"])
    log.info("figures, predictions and everything else: %s", run.workdir)


def _describe(run: "Run") -> None:
    """Logs what is about to be trained on what; paper 1's Table 1 among it."""
    from clu import parameter_overview

    log.info("%s: %s", run.config.name, files.NOTICE)
    if run.config.data.source == "phantom":
        log.info("data: a synthetic phantom; a result on it says nothing about patients")
    alpha, size = run.config.model.alpha, run.config.data.image_size
    if alpha != 1.0 or size != 224:
        log.info("model: smaller than the paper's: width %g, %d x %d pixels", alpha, size, size)
    log.info("%s", run.data.splits.as_text(run.data.examples.label, run.config.data.classes))
    for stamp in run.data.stamps:
        log.warning("stamp: %s", stamp)
    for name, reason in run.data.examples.bad_files[:20]:
        log.warning("left out: %s: %s", name, reason)
    if report := run.report:
        log.info(
            "weights: %d tensors from %s, sha256 %s", report.tensors, report.source, report.hash
        )
    overview = parameter_overview.get_parameter_overview(run.variables["params"])
    logging.getLogger("msa_flax.file").info("%s", overview)


def _draw_samples(run: "Run") -> None:
    import numpy as np

    from msa_flax.plots import sheets

    labels, rows = run.data.examples.label, run.data.splits.indices("train")
    shuffled = np.random.default_rng(run.config.train.seed).permutation(rows)
    chosen = np.concatenate([shuffled[labels[shuffled] == k][:8] for k in (0, 1)])
    sheets.sample_sheet(
        run.data.examples.images[chosen],
        labels[chosen],
        run.data.examples.example_id[chosen].tolist(),
        run.workdir / "figures/samples.png",
        run.config.data.classes,
        stamps=run.data.stamps,
    )


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
