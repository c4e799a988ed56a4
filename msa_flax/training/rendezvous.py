"""How the processes of one run find each other, and notice that one of them is gone.

Before JAX connects them they meet over plain sockets, because JAX ends a process with a C++ stack
where a port is taken or somebody is missing. The same connections stay open while they train: the
operating system closes those of a process that dies, and the others then end with one sentence.
"""

import atexit
import contextlib
import logging
import os
import socket
import sys
import threading
import time

from msa_flax.files import UserError

MEETING_SECONDS = 120.0  # how long a process waits for the others
LEAVING_SECONDS = 20.0  # how long a process may go on after another one has said goodbye
_ANSWER_SECONDS = 5.0  # how long somebody who connects may take to say who it is
_GO, _BYE = b"go\n", b"bye\n"
log = logging.getLogger("msa_flax")

_leaving = threading.Event()  # whether this process is at its end, whatever the others do

Connections = dict[int, socket.socket]  # by the number of the process at the other end


class HostsError(UserError):
    """The processes cannot work together."""


def meet(host: str, port: int, processes: int, process: int) -> Connections:
    """Waits until all processes of the run are there.

    Args:
        host: name or address of the machine of process 0.
        port: TCP port of that machine; it is free again afterwards, for JAX.
        processes: how many there are.
        process: the number of this one.

    Returns:
        To process 0 the connections to all others, to every other one that to process 0.

    Raises:
        HostsError: the port is taken, the machine is unknown, the numbers of the processes do not
            fit together, or somebody did not come within MEETING_SECONDS.
    """
    if not 0 < port < 2**16:
        raise HostsError(f"--coordinator: expected a port from 1 to 65535, got {port}")
    deadline = time.monotonic() + MEETING_SECONDS
    if process:
        return {0: _visit(host, port, f"{process} of {processes}", deadline)}
    return _receive(port, processes, deadline) if processes > 1 else {}


def watch(connections: Connections) -> None:
    """Ends this process with one sentence as soon as another one is gone without a goodbye.

    At the end of the program it says goodbye itself.
    """
    for number, connection in connections.items():
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a machine may be gone
        threading.Thread(target=_watch_one, args=(number, connection), daemon=True).start()
    atexit.register(_say_goodbye, connections)  # before JAX's own, which then may wait


def _receive(port: int, processes: int, deadline: float) -> Connections:
    log.info("waiting for the other processes: %d, at most %.0f s", processes - 1, MEETING_SECONDS)
    arrived: Connections = {}
    with _listen(port) as server:
        while missing := sorted(set(range(1, processes)) - arrived.keys()):
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                named = ", ".join(map(str, missing[:5])) + (", ..." if missing[5:] else "")
                _refuse(arrived, f"process {named} did not come within {MEETING_SECONDS:.0f} s")
            if said := _ask(connection):
                number, _, of = said.partition(" of ")
                arrived[int(number)] = _accepted(connection, int(number), of, processes, arrived)
    for connection in arrived.values():
        connection.sendall(_GO)
    return arrived


def _accepted(
    connection: socket.socket, number: int, of: str, processes: int, arrived: Connections
) -> socket.socket:
    """Returns the connection of a process that fits to the others, or refuses all of them."""
    everyone = {**{-1: connection}, **arrived}
    if of != str(processes):
        _refuse(everyone, f"--processes: process {number} was told {of}, process 0 {processes}")
    if number in arrived or number == 0:
        _refuse(everyone, f"--process: two processes were told that they are number {number}")
    return connection


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise HostsError(
            f"--coordinator: expected a free port of this machine, got {port} ({error.strerror}); "
            "choose another one, the same for all processes"
        ) from error


def _ask(connection: socket.socket) -> str:
    """Returns what a process says of itself; "" if it is none of ours."""
    connection.settimeout(_ANSWER_SECONDS)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        said = connection.recv(64).decode("ascii").strip()
        number, _, of = said.partition(" of ")
        if number.isdecimal() and of.isdecimal():
            return said
    connection.close()
    return ""


def _refuse(connections: Connections, reason: str) -> None:
    said = f"{reason}; start each process once, with the same --coordinator and --processes"
    for connection in connections.values():
        with contextlib.suppress(OSError):
            connection.sendall(f"{said}\n".encode())
            connection.close()
    raise HostsError(said)


def _visit(host: str, port: int, said: str, deadline: float) -> socket.socket:
    """Returns the connection to process 0, when it has said that all are there."""
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=_ANSWER_SECONDS)
            break
        except socket.gaierror as error:
            raise HostsError(
                f"--coordinator: expected the machine of process 0, got {host!r}, whose name "
                f"cannot be resolved ({error.strerror})"
            ) from error
        except OSError as error:
            if time.monotonic() > deadline:
                raise HostsError(
                    f"process 0 was not found at {host}:{port} within {MEETING_SECONDS:.0f} s "
                    f"({error.strerror or error}); start it with the same "
                    "--coordinator, and see that no firewall is between"
                ) from error
            time.sleep(0.2)
    connection.sendall(said.encode())
    connection.settimeout(max(0.01, deadline + _ANSWER_SECONDS - time.monotonic()))
    try:
        answer = connection.recv(1024)
    except OSError:
        answer = b""
    if answer != _GO:
        connection.close()
        reason = answer.decode("utf-8", "replace").strip() or f"process 0 at {host}:{port} is gone"
        raise HostsError(reason)
    return connection


def _watch_one(number: int, connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        if connection.recv(len(_BYE)) == _BYE:
            time.sleep(LEAVING_SECONDS)  # where all end together, this process is gone before
    if not _leaving.is_set():
        said = (
            f"error: process {number} has ended or cannot be reached; its own message says why; "
            "the same commands again go on after the last checkpoint"
        )
        print(said, file=sys.stderr, flush=True)
    os._exit(1)  # JAX would wait for it, and then end this process with a C++ stack


def _say_goodbye(connections: Connections) -> None:
    _leaving.set()
    for connection in connections.values():
        with contextlib.suppress(OSError):
            connection.sendall(_BYE)
