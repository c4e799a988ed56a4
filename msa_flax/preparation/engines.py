"""Who does the tasks: processes of this machine, or a cluster that Apache Beam talks to.

Both call the one function :func:`msa_flax.preparation.tasks.write_study`, and carry nothing but
tasks and counts: pixels go from file to file.
"""

import contextlib
import io
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tqdm import tqdm

from msa_flax.data.folder import listed
from msa_flax.preparation.tasks import PreparationError, Task, write_study

log = logging.getLogger("msa_flax")

Engine = Callable[[Sequence[Task]], None]


def pool(processes: int) -> Engine:
    """Returns an engine of so many processes of this machine."""

    def run(tasks: Sequence[Task]) -> None:
        count = min(processes, len(tasks))
        context = multiprocessing.get_context("spawn")  # threads of TensorFlow survive no fork
        with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker) as workers:
            doing = [workers.submit(write_study, task) for task in tasks]
            try:
                _watch(doing)
            except BrokenProcessPool as error:
                raise PreparationError(
                    "one of the processes was ended from outside, perhaps because memory is full; "
                    "give the same command again, perhaps with fewer --processes"
                ) from error
            finally:  # after an error or Ctrl-C, studies that were begun are finished
                workers.shutdown(cancel_futures=True)

    return run


def _watch(doing: Sequence[Future[Any]]) -> None:
    """Shows how many studies are done: a bar on a terminal, elsewhere a line now and then."""
    said = time.monotonic()
    with tqdm(total=len(doing), unit=" studies", leave=False, disable=None) as bar:
        for count, done in enumerate(as_completed(doing), 1):
            done.result()
            bar.update()
            if bar.disable and time.monotonic() - said > 60:
                said = time.monotonic()
                log.info("%d of %d studies", count, len(doing))


def cores() -> int:
    """Returns how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _start_worker() -> None:
    """Leaves Ctrl-C to the main process, and ends with it, even if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def beam(runner: str, options: Sequence[str]) -> Engine:
    """Returns an engine that is a runner of Apache Beam.

    Args:
        runner: such as "FnApiRunner" or "FlinkRunner".
        options: Beam's own flags, such as "--flink_master=host:8081".

    Raises:
        PreparationError: Beam is not installed, or knows no such runner, flag or value.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise PreparationError(
            '--runner needs Apache Beam, which is not installed; pip install "msa_flax[beam]", in '
            "an environment of its own"
        ) from error
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            known = PipelineOptions([]).get_all_options().keys()
            chosen = PipelineOptions([f"--runner={runner}", *options])
            unknown = chosen.get_all_options(retain_unknown_options=True).keys() - known
        pipeline = apache_beam.Pipeline(options=chosen)
    except (ValueError, ImportError) as error:
        raise PreparationError(f"--runner: {' '.join(str(error).split())}") from error
    except SystemExit as error:
        raise PreparationError(f"flag of Beam: {said.getvalue().splitlines()[-1]}") from error
    if unknown:
        raise PreparationError(f"flags of Beam: it has no {listed(sorted(unknown))}")

    def run(tasks: Sequence[Task]) -> None:
        with pipeline:
            studies = pipeline | apache_beam.Create(tasks) | apache_beam.Reshuffle()
            _ = studies | apache_beam.Map(write_study)

    return run
