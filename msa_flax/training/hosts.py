"""Several processes, usually one per machine, that train together as one program.

Each runs the same command on the same data. The first one leads: it alone reads and writes the
workdir, validates and prints. Every function here must be called by all of them at the same point;
where there is only one process, they do nothing.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from msa_flax.training.rendezvous import HostsError, meet, watch

SHUTDOWN_SECONDS = 30  # how long a process that fails alone waits before all of them are ended
T = TypeVar("T")


class PeerError(RuntimeError):
    """Another process ended; the exit code is that process's."""

    def __init__(self, process: int, exit_code: int) -> None:
        super().__init__(f"process {process} ended; its own message says why")
        self.exit_code = exit_code


def join(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the processes of one run and waits for them; does nothing if all three are None.

    Args:
        coordinator: HOST:PORT at which all of them reach process 0.
        processes: how many there are.
        process: which of them this is, 0 .. processes - 1.

    Raises:
        HostsError: only some of the three are given, they do not fit together, or the processes
            do not find each other.
    """
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [flag for flag, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if coordinator is None or processes is None or process is None:
        raise HostsError(f"expected {', '.join(given)} or none of them; missing: {missing[0]}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise HostsError(f"--coordinator: expected HOST:PORT of process 0, got {coordinator!r}")
    if not 0 <= process < processes:
        raise HostsError(f"--process: expected 0 .. --processes - 1, got {process} of {processes}")
    connections = meet(host.strip("[]"), int(port), processes, process)
    # This service would swallow SIGTERM, which the loop answers with a checkpoint.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator, processes, process, shutdown_timeout_seconds=SHUTDOWN_SECONDS
    )
    watch(connections)


def is_first() -> bool:
    """Returns whether this is the process that reads and writes the workdir."""
    return jax.process_index() == 0


def first(action: Callable[[], T]) -> T | None:
    """Lets the first process do something while the others wait; where it raises, all end.

    Returns:
        What the action returns, in the first process; None in the others.
    """
    with together():
        return action() if is_first() else None


@contextmanager
def together() -> Iterator[None]:
    """Makes the processes leave a block together: if one raises in it, all do.

    Raises:
        PeerError: another process raised, and this one did not.
    """
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        failure = error
    codes = _gather([0 if failure is None else getattr(failure, "exit_code", 1)])[:, 0]
    if failure is not None:
        raise failure
    if codes.any():
        raise PeerError(int(np.flatnonzero(codes)[0]), int(codes[codes > 0][0]))


def check_same(what: str, value: str) -> None:
    """Refuses processes that were given different work.

    Args:
        what: name of the value, for the message.
        value: must be the same in all of them.

    Raises:
        HostsError: it is not the same; all of them raise this.
    """
    digests = _gather(np.frombuffer(hashlib.sha256(value.encode()).digest(), np.int32))
    differ = np.flatnonzero((digests != digests[:1]).any(1))
    if len(differ):
        raise HostsError(
            f"{what}: expected the same in every process, got another in process {differ[0]} than "
            "in process 0; give all of them the same flags and data"
        )


def share(tree: PyTree) -> PyTree:
    """Returns the tree of arrays of the first process; the others give structure and shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def share_numbers(values: Sequence[int | float]) -> list[float]:
    """Returns the numbers of the first process, to the last bit; those of the others are not used.

    If one process decided by a rounded number, and the other by the number itself, they could
    decide differently.
    """
    halves = np.asarray(values, np.float64).view(np.int32)  # JAX would cut a float64 to float32
    return np.asarray(share(halves), np.int32).view(np.float64).tolist()


def first_signal(received: Sequence[int]) -> int:
    """Returns a signal that any of the processes has received, the same in all; 0 if none has."""
    return int(_gather([received[0] if received else 0]).max())


def _gather(values: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the values of every process, int32 [processes, n]."""
    row = np.asarray(values, np.int32)
    return row[None] if jax.process_count() == 1 else multihost_utils.process_allgather(row)
