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
import json
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from absl import flags

from msa_flax import __version__, cli, files
from msa_flax.config import Config

if TYPE_CHECKING:
    from msa_flax.data.examples import Examples
    from msa_flax.job import Job, Parts
    from msa_flax.training.checkpoint import Checkpoints
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
    from msa_flax import api, job
    from msa_flax.training import hosts, record

    api.prepare_jax()
    job.check(args.config)

    hosts.join(args.coordinator, args.processes, args.process)
    with hosts.together():
        if hosts.is_first():
            record.check_workdir(workdir, args.config)
        else:
            log.setLevel(logging.ERROR)
    run(workdir, args.config)


def run(workdir: Path, config: Config, examples: "Examples | None" = None) -> None:
    """Trains to the last epoch, or continues, then evaluates, explains and draws the figures.

    Where several processes train together, the first one does all but the training by itself.

    Args:
        workdir: the run's folder.
        config: the run's configuration, validated.
        examples: its data, where a caller that makes many runs has loaded them.
    """
    from msa_flax import job as jobs
    from msa_flax.training import devices, hosts, record
    from msa_flax.training.checkpoint import Checkpoints

    began = time.perf_counter()
    hosts.check_same("the configuration", json.dumps(config.to_dict()))
    mesh = devices.mesh(config.train.batch_size)
    with hosts.together():
        job = jobs.read_data(workdir, config, examples)
    hosts.check_same("the images", job.examples.fingerprint)
    with contextlib.ExitStack() as held:
        with hosts.together():
            parts = jobs.build(job, mesh)
            if hosts.is_first():
                held.enter_context(record.locked(workdir))
                held.enter_context(cli.logging_to(workdir / "train.log"))
                _record(job, parts.report, time.perf_counter() - began)
                _describe(job, parts)
                _draw_samples(job)
            checkpoints = Checkpoints(workdir, read_only=not hosts.is_first())
            restored = checkpoints.restore_last(parts.state) if hosts.is_first() else None
        state, progress = restored if restored else (parts.state, {})
        state = devices.replicate(mesh, hosts.share(state))
        _train(job, parts, checkpoints, state, progress)
        with hosts.together():
            if hosts.is_first():
                _conclude(job)


def _train(
    job: "Job", parts: "Parts", checkpoints: "Checkpoints", state: "TrainState", progress: Any
) -> None:
    """Runs the loop from where the run stands, and records what it took, however it ends."""
    from msa_flax import job as jobs
    from msa_flax.training import hosts, memory
    from msa_flax.training.monitor import NoMonitor

    step, total = int(state.step), job.total_steps
    loop = jobs.make_loop(job, parts, checkpoints)
    if loop.finished(step, progress):
        log.info("training is finished: %d of %d steps are done", step, total)
        return
    if step:
        log.info("continuing after step %d of %d", step, total)
    began = time.perf_counter()
    monitor = _monitor(job, step) if hosts.is_first() else NoMonitor()
    try:
        state = dataclasses.replace(loop, monitor=monitor).run(state, progress)
    finally:
        monitor.close()
        memory.trim_memory()  # what training needed, evaluation does not
        if hosts.is_first():
            path = job.workdir / "run.json"
            info = files.read_json(path)
            info["seconds"]["train"] += time.perf_counter() - began
            info["seconds"]["step"] = getattr(monitor, "step_seconds", None)
            files.write_json(path, info | {"peak_memory_gib": memory.peak_memory_gib()})
    if int(state.step) < total:
        log.info(
            "stopped after step %d of %d: no lower validation loss for %d epochs",
            *(int(state.step), total, job.config.train.early_stopping),
        )


def _record(job: "Job", report: "WeightsReport | None", seconds: float) -> None:
    """Writes config.json, run.json and splits.csv."""
    from msa_flax.training import record

    earlier = files.read_json(job.workdir / "run.json")
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
    files.write_json(job.workdir / "config.json", {"config": job.config.to_dict()})
    files.write_json(job.workdir / "run.json", info)
    job.splits.write(job.workdir / "splits.csv")


def _monitor(job: "Job", step: int) -> "TerminalMonitor":
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


def _conclude(job: "Job") -> None:
    """Evaluates both held-out splits, explains some test images, draws the figures."""
    from msa_flax import api, evaluate, explain
    from msa_flax.plots import figures
    from msa_flax.training import loop

    trained, data = api.restore(job.workdir), (job.examples, job.splits, job.stamps)
    results = {s: evaluate.evaluate_split(trained, *data, s) for s in ("validation", "test")}
    rows = {job.config.name: loop.read_rows(job.workdir / "metrics.jsonl")}
    figures.learning_curves(rows, job.workdir / "figures/learning_curves.png", stamps=job.stamps)
    evaluate.report(trained, results)
    explain.explain_split(trained, *data, limit=explain.FIGURE_CASES)
    log.info("figures, predictions and everything else: %s", job.workdir)


def _describe(job: "Job", parts: "Parts") -> None:
    """Logs what is about to be trained on what; paper 1's Table 1 among it."""
    from clu import parameter_overview

    from msa_flax.data import splits as splitting

    log.info("%s: %s", job.config.name, files.NOTICE)
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
    if report := parts.report:
        log.info(
            "weights: %d tensors from %s, sha256 %s", report.tensors, report.source, report.hash
        )
    overview = parameter_overview.get_parameter_overview(parts.state.params)
    logging.getLogger("msa_flax.file").info("%s", overview)


def _draw_samples(job: "Job") -> None:
    import numpy as np

    from msa_flax.plots import sheets

    labels, rows = job.examples.label, job.splits.indices("train")
    shuffled = np.random.default_rng(job.config.train.seed).permutation(rows)
    chosen = np.concatenate([shuffled[labels[shuffled] == k][:8] for k in (0, 1)])
    sheets.sample_sheet(
        job.examples.images[chosen],
        labels[chosen],
        job.examples.example_id[chosen].tolist(),
        job.workdir / "figures/samples.png",
        job.config.data.classes,
        stamps=job.stamps,
    )


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
