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

from msa_flax import __version__, cli
from msa_flax.config import Config

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from msa_flax.data.examples import Examples
    from msa_flax.data.splits import Splits
    from msa_flax.training.checkpoint import Checkpoints
    from msa_flax.training.loop import Loop, Monitor
    from msa_flax.training.monitor import TerminalMonitor
    from msa_flax.training.state import TrainState
    from msa_flax.weights import WeightsReport

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
    from msa_flax.training import hosts, record

    hosts.join(args.coordinator, args.processes, args.process)
    with hosts.together():
        if hosts.is_first():
            record.check_workdir(workdir, args.config)
        else:
            log.setLevel(logging.ERROR)
    run(workdir, args.config)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every stage of a training run needs to know."""

    workdir: Path
    config: Config
    examples: "Examples"
    splits: "Splits"
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
        """Training steps of the whole run."""
        return self.config.train.epochs * self.steps_per_epoch


def run(workdir: Path, config: Config) -> None:
    """Trains to the last epoch, or continues, then evaluates, explains and draws the figures.

    Where several processes train together, the first one does all but the training by itself.
    """
    from msa_flax import api
    from msa_flax.training import devices, hosts, record
    from msa_flax.training.checkpoint import Checkpoints

    began = time.perf_counter()
    hosts.check_same("the configuration", json.dumps(config.to_dict()))
    mesh = devices.mesh(config.train.batch_size)
    api.cache_compilations()
    with hosts.together():
        job = _read_data(workdir, config)
    hosts.check_same("the images", job.examples.fingerprint)
    with contextlib.ExitStack() as held:
        with hosts.together():
            state, train_steps, report = _build(job, mesh)
            if hosts.is_first():
                held.enter_context(record.locked(workdir))
                _record(job, report, time.perf_counter() - began)
                _describe(job, report, state)
                _draw_samples(job)
            checkpoints = Checkpoints(workdir, read_only=not hosts.is_first())
            restored = checkpoints.restore_last(state) if hosts.is_first() else None
        state, progress = restored if restored else (state, {})
        state = devices.replicate(mesh, hosts.share(state))
        step, total = int(state.step), job.total_steps
        if step >= total:
            log.info("training is finished: %d of %d steps are done", step, total)
        else:
            if step:
                log.info("continuing after step %d of %d", step, total)
            _train(job, train_steps, checkpoints, state, progress)
        with hosts.together():
            if hosts.is_first():
                _conclude(job)


def _train(
    job: Job, train_steps: Any, checkpoints: "Checkpoints", state: "TrainState", progress: Any
) -> None:
    """Runs the loop and records what it took, however it ends."""
    from msa_flax.training import hosts, memory, record
    from msa_flax.training.monitor import NoMonitor

    began = time.perf_counter()
    monitor = _monitor(job, int(state.step)) if hosts.is_first() else NoMonitor()
    try:
        _loop(job, train_steps, checkpoints, monitor).run(state, progress)
    finally:
        monitor.close()
        if hosts.is_first():
            path = job.workdir / "run.json"
            info = record.read_json(path)
            info["seconds"]["train"] += time.perf_counter() - began
            record.write_json(path, info | {"peak_memory_gib": memory.peak_memory_gib()})


def _read_data(workdir: Path, config: Config) -> Job:
    """Loads and splits the data, and refuses what would make the result meaningless."""
    from msa_flax import data
    from msa_flax.data import splits as splitting

    examples = data.load(config.data)
    splits = splitting.assign(examples, config.data, seed=config.train.seed)
    splitting.check_contradictions(examples)
    splitting.check_leakage(examples, splits, allow=config.data.allow_leakage)
    stamps = splitting.stamps(examples, splits)
    return Job(workdir=workdir, config=config, examples=examples, splits=splits, stamps=stamps)


def _build(job: Job, mesh: "Mesh") -> tuple["TrainState", Any, "WeightsReport | None"]:
    """Returns the initial state, the compiled training steps, and what weights were loaded."""
    import jax.numpy as jnp

    from msa_flax import api
    from msa_flax.models import create_model
    from msa_flax.training import devices, optim, steps
    from msa_flax.training.state import create_state

    config, freeze = job.config, job.config.train.freeze_backbone
    model = create_model(config.model)
    variables, report = api.initial_variables(model, config)
    optimizer = optim.create_optimizer(
        config.optim, total_steps=job.total_steps, freeze_backbone=freeze
    )
    scale = api.scaler(config, dtype=jnp.dtype(config.train.compute_dtype))
    train_step = steps.make_train_step(
        model, optimizer, scale, seed=config.train.seed, freeze_backbone=freeze
    )
    compiled = steps.compiled_train_steps(train_step, devices.replicated(mesh))

    def train_steps(state: "TrainState", batches: Any, count: int) -> Any:
        return compiled(state, devices.split(mesh, batches), count)

    return create_state(variables, optimizer), train_steps, report


def _record(job: Job, report: "WeightsReport | None", seconds: float) -> None:
    """Writes config.json, run.json and splits.csv."""
    from msa_flax.training import record

    earlier = record.read_json(job.workdir / "run.json")
    if earlier and earlier["data_fingerprint"] != job.examples.fingerprint:
        raise record.WorkdirError(
            "the images or labels are not those that this workdir's run was started with "
            f"(fingerprint {earlier['data_fingerprint'][:12]}, now "
            f"{job.examples.fingerprint[:12]}); restore them or use another --workdir"
        )
    info = {
        **record.environment(),
        "msa_flax": __version__,
        "name": job.config.name,
        "seed": job.config.train.seed,
        "data_fingerprint": job.examples.fingerprint,
        "images": len(job.examples),
        "bad_files": [list(item) for item in job.examples.bad_files],
        "weights": report.to_dict() if report else None,
        "stamps": job.stamps,
        "seconds": earlier.get("seconds", {"setup": 0.0, "train": 0.0}),
    }
    info["seconds"]["setup"] += seconds
    record.write_json(job.workdir / "config.json", {"config": job.config.to_dict()})
    record.write_json(job.workdir / "run.json", info)
    job.splits.write(job.workdir / "splits.csv")


def _loop(job: Job, train_steps: Any, checkpoints: "Checkpoints", monitor: "Monitor") -> "Loop":
    from msa_flax import api
    from msa_flax.data import pipeline
    from msa_flax.evaluation.predictions import predict_logits
    from msa_flax.models import create_model
    from msa_flax.training import devices, hosts
    from msa_flax.training.loop import Loop, loss_and_accuracy

    config, splits = job.config, job.splits
    training = job.examples.take(splits.indices("train"))
    validation = job.examples.take(splits.indices("validation"))
    predict_step = api.compiled_predict_step(create_model(config.model), config)

    def validate(variables: Any) -> dict[str, float]:
        predict = functools.partial(predict_step, devices.local(variables))
        logits = predict_logits(predict, validation.images, batch_size=config.eval.batch_size)
        return loss_and_accuracy(validation.label, logits)

    def dispatches(epoch: int, start_step: int) -> Iterator[Any]:
        return pipeline.train_dispatches(
            training.images,
            training.label,
            batch_size=config.train.batch_size,
            steps_per_dispatch=config.train.steps_per_dispatch,
            seed=config.train.seed,
            epoch=epoch,
            start_step=start_step,
        )

    return Loop(
        train_steps=train_steps,
        dispatches=dispatches,
        validate=validate,
        steps_per_epoch=job.steps_per_epoch,
        epochs=config.train.epochs,
        workdir=job.workdir,
        checkpoints=checkpoints,
        monitor=monitor,
        describe=lambda rows: training.example_id[rows].tolist(),
        writes=hosts.is_first(),
    )


def _monitor(job: Job, step: int) -> "TerminalMonitor":
    from clu import metric_writers

    from msa_flax.training.monitor import TerminalMonitor

    return TerminalMonitor(
        metric_writers.SummaryWriter(str(job.workdir)),
        start_step=step,
        steps_per_epoch=job.steps_per_epoch,
        epochs=job.config.train.epochs,
        batch_size=job.config.train.batch_size,
        log_every=job.config.train.log_every,
    )


def _conclude(job: Job) -> None:
    """Evaluates both held-out splits, explains some test images, draws the figures."""
    from msa_flax import api, evaluate, explain
    from msa_flax.evaluation import figures
    from msa_flax.training import loop

    trained, data = api.restore(job.workdir), (job.examples, job.splits, job.stamps)
    results = {s: evaluate.evaluate_split(trained, *data, s) for s in ("validation", "test")}
    rows = loop.read_rows(job.workdir / "metrics.jsonl")
    figures.learning_curves(rows, job.workdir / "figures/learning_curves.png", stamps=job.stamps)
    evaluate.report(trained, results)
    explain.explain_split(trained, *data, limit=explain.FIGURE_CASES)
    log.info("figures, predictions and everything else: %s", job.workdir)


def _describe(job: Job, report: "WeightsReport | None", state: "TrainState") -> None:
    """Logs what is about to be trained on what; paper 1's Table 1 among it."""
    from clu import parameter_overview

    from msa_flax.data import splits as splitting

    cli.log_to_file(job.workdir / "train.log")
    log.info("%s: %s", job.config.name, cli.NOTICE)
    if job.config.data.source == "phantom":
        log.info("data: a synthetic phantom; a result on it says nothing about patients")
    alpha, size = job.config.model.alpha, job.config.data.image_size
    if alpha != 1.0 or size != 224:
        log.info("model: smaller than the paper's: width %g, %d x %d pixels", alpha, size, size)
    log.info("%s", splitting.table(job.examples, job.splits, job.config.data.classes))
    for stamp in job.stamps:
        log.warning("stamp: %s", stamp)
    for name, reason in job.examples.bad_files[:20]:
        log.warning("left out: %s: %s", name, reason)
    if report:
        log.info(
            "weights: %d tensors from %s, sha256 %s", report.tensors, report.source, report.hash
        )
    overview = parameter_overview.get_parameter_overview(state.params)
    logging.getLogger("msa_flax.file").info("%s", overview)


def _draw_samples(job: Job) -> None:
    import numpy as np

    from msa_flax.evaluation import figures

    labels, rows = job.examples.label, job.splits.indices("train")
    shuffled = np.random.default_rng(job.config.train.seed).permutation(rows)
    chosen = np.concatenate([shuffled[labels[shuffled] == k][:8] for k in (0, 1)])
    figures.sample_sheet(
        job.examples.images[chosen],
        labels[chosen],
        job.examples.example_id[chosen].tolist(),
        job.workdir / "figures/samples.png",
        job.config.data.classes,
        stamps=job.stamps,
    )


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
