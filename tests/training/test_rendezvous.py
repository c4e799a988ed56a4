"""Processes find each other or say in a sentence why not, and none outlives another one."""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys

import pytest

from msa_flax.training import rendezvous
from msa_flax.training.rendezvous import HostsError, meet

WATCH = """
import sys, time
from msa_flax.training.rendezvous import meet, watch
port, process, seconds = map(float, sys.argv[1:])
watch(meet("localhost", int(port), 2, int(process)))
print("met", flush=True)
time.sleep(seconds)
"""


@pytest.fixture
def port():
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def all_meet(port, *told):
    """What comes of processes that are told (processes, process): numbers met, or the refusal."""

    def outcome(processes, process):
        try:
            connections = meet("localhost", port, processes, process)
        except HostsError as error:
            return str(error)
        for connection in connections.values():
            connection.close()
        return sorted(connections)

    with concurrent.futures.ThreadPoolExecutor(len(told)) as pool:
        return list(pool.map(lambda numbers: outcome(*numbers), told))


def test_all_meet_in_any_order(port):
    assert all_meet(port, (3, 2), (3, 1), (3, 0)) == [[0], [0], [1, 2]]


def test_one_process_need_not_wait(port):
    assert meet("localhost", port, 1, 0) == {}


def test_who_does_not_come_is_named(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "MEETING_SECONDS", 0.5)
    first, second = all_meet(port, (4, 0), (4, 2))
    assert "process 1, 3 did not come within" in first
    assert second == first


def test_process_0_that_is_not_there_is_named_with_its_place(port, monkeypatch):
    monkeypatch.setattr(rendezvous, "MEETING_SECONDS", 0.3)
    with pytest.raises(HostsError, match=f"process 0 was not found at localhost:{port}"):
        meet("localhost", port, 2, 1)


def test_two_processes_of_one_number_refuse_all(port):
    for said in all_meet(port, (3, 0), (3, 1), (3, 1)):
        assert "two processes were told that they are number 1" in said


def test_other_counts_refuse_all(port):
    for said in all_meet(port, (2, 0), (3, 1)):
        assert "process 1 was told 3, process 0 2" in said


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(HostsError, match=f"expected a free port of this machine, got {taken}"):
            meet("localhost", taken, 2, 0)


@pytest.mark.parametrize("process", [0, 1])
def test_a_port_that_cannot_be_is_named(process):
    with pytest.raises(HostsError, match="from 1 to 65535, got 99999"):
        meet("localhost", 99999, 2, process)


def test_a_machine_without_an_address_is_named(port):
    with pytest.raises(HostsError, match="nosuchhost"):
        meet("nosuchhost.invalid", port, 2, 1)


def test_strangers_at_the_port_are_passed_over(port):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(all_meet, port, (2, 0))
        for said in (b"GET / HTTP/1.1\r\n", b"\xff\xfe", b""):
            with connect(port) as stranger:
                stranger.sendall(said)
        assert all_meet(port, (2, 1)) == [[0]]
        assert first.result() == [[1]]


def connect(port):
    """A connection to process 0, as soon as it listens."""
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("localhost", port))


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_is_killed_ends_the_other_one_with_a_sentence(port, killed):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WATCH, str(port), str(number), "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for number in (0, 1)
    ]
    try:
        assert [process.stdout.readline() for process in processes] == ["met\n"] * 2
        processes[killed].kill()
        said = processes[1 - killed].communicate(timeout=30)[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert processes[1 - killed].returncode == 1
    assert said.startswith(f"error: process {killed} has ended or cannot be reached")
    assert said.count("\n") == 1


def test_processes_that_end_by_themselves_say_goodbye(port):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WATCH, str(port), str(number), str(seconds)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for number, seconds in ((0, 0.1), (1, 0.8))
    ]
    said = [process.communicate(timeout=30)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said == ["", ""]
