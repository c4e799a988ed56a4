"""Two processes train together what one trains alone, and end together however they end."""

import functools
import json
import os
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import msa_flax
from msa_flax.models import initialise
from msa_flax.training import hosts

# What is run a few times only is compiled quickly, in every process alike.
CPU = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

JOIN = """
import json, os, pathlib, signal, sys
import jax, jax.numpy as jnp, numpy as np, optax
from msa_flax.config import OptimConfig
from msa_flax.training import devices, hosts, loop, optim, progress
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.steps import TrainState, create_state

coordinator, processes, process = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if processes > 1:
    hosts.join(coordinator, processes, process)
"""

TALK = """
said = []
for action in (
    lambda: hosts.check_same("the seed", "0"),
    lambda: hosts.check_same("the seed", str(process)),
):
    try:
        said.append(action())
    except hosts.HostsError as error:
        said.append(str(error))
try:
    with hosts.together():
        if process == 1:
            raise hosts.HostsError("the disk is full")
except (hosts.HostsError, hosts.PeerError) as error:
    said.append([str(error), error.exit_code])
with hosts.together():
    shared = hosts.share({"a": np.full(3, 0.1 + process), "n": np.int32(7 + process)})
said.append([shared["a"].tolist(), int(shared["n"])])
said.append(hosts.share_numbers([0.1 + process, -process]))
said.append([hosts.is_first(), hosts.first_signal([15] if process == 1 else [])])
print(json.dumps(said))
"""

# The loop on a small problem of its own: 5 steps an epoch, 2 a dispatch, batches of 4. Its
# validation loss rises from the first epoch on: a third of the rate after the second, the end after
# the third, as long as every process knows what only the first one has validated and restored.
TRAIN = """
workdir, stop_at = pathlib.Path(sys.argv[4]), int(sys.argv[5])
config = OptimConfig(
    name="sgd", learning_rate=0.1, schedule="plateau", plateau_factor=0.3, plateau_patience=1
)
optimizer = optim.create_optimizer(config, total_steps=30)
mesh = devices.mesh(4)


class Monitor(progress.Monitor):
    def dispatch(self, step, sums, seconds):
        if process == processes - 1 and step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def dispatches(epoch, start):
    x = np.random.default_rng(epoch).standard_normal((5, 4, 3)).astype(np.float32)
    for first in range(start, 5, 2):
        yield {"x": x[first : first + 2]}, len(x[first : first + 2])


@jax.jit
def steps(state, batches):
    def step(state, x):
        loss, slope = jax.value_and_grad(lambda w: jnp.mean((x @ w - x.sum(-1)) ** 2))(
            state.params["w"]
        )
        updates, opt_state = optimizer.update({"w": slope}, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, state.batch_stats, opt_state), loss

    state, losses = jax.lax.scan(step, state, batches["x"])
    return state, {"loss": losses.sum(), "correct": 0.0, "count": float(len(losses))}


fresh = create_state({"params": {"w": jnp.zeros(3)}, "batch_stats": {}}, optimizer)
checkpoints = Checkpoints(workdir) if hosts.is_first() else None
restored = checkpoints.restore_last(fresh) if checkpoints else None
state, saved = restored or (fresh, {})
state = devices.replicate(mesh, hosts.share(state))
print("from", int(state.step))
try:
    state = loop.Loop(
        patience=2,
        after_epoch=lambda state, loss: state.replace(
            opt_state=optim.after_epoch(state.opt_state, loss, config)
        ),
        train_steps=lambda state, batches, n: steps(state, devices.split(mesh, batches)),
        dispatches=dispatches,
        validate=lambda v: {"loss": float(devices.local(v)["params"]["w"].sum()), "accuracy": 0.0},
        steps_per_epoch=5,
        epochs=6,
        workdir=workdir,
        checkpoints=checkpoints,
        monitor=Monitor(),
    ).run(state, saved)
    weights, plateau = devices.local((state.params["w"], state.opt_state[-1]))
    print(json.dumps([*weights.tolist(), int(state.step), float(plateau.factor)]))
except loop.InterruptedRunError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def finish(processes):
    """Waits for all of them, leaves none behind; returns exit codes, outputs and errors."""
    try:
        pairs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [p.returncode for p in processes], [o for o, _ in pairs], [e for _, e in pairs]


def start(arguments, **variables):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | CPU | variables,
    )


def close(row, expected):
    """Compares rows of metrics.

    Products of half as many rows are summed in another order, and BatchNorm over a small map makes
    more of it: with one pixel 2.5e-4 was measured in one step of three, 1e-6 in the others.
    """
    numbers = {key: value for key, value in expected.items() if key != "split"}
    assert row.pop("split") == expected["split"]
    assert row == pytest.approx(numbers, rel=2e-4)


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def run(script, *arguments, processes=2, code=0):
    """Runs the script in each process; returns what each printed, line by line."""
    address = free_address()
    codes, outputs, errors = finish(
        [
            start(["-c", JOIN + script, address, processes, i, *(a[i] for a in arguments)])
            for i in range(processes)
        ]
    )
    assert codes == [code] * processes, errors
    return [[x for x in text.splitlines() if not x.startswith("[Gloo]")] for text in outputs]


def test_what_the_processes_say_to_each_other():
    (first,), (second,) = run(TALK)
    first, second = json.loads(first), json.loads(second)
    refused = "the seed: expected the same in every process, got another in process 1"
    assert first[0] is second[0] is None
    assert first[1] == second[1]
    assert first[1].startswith(refused)
    assert first[2] == ["process 1 ended; its own message says why", 2]
    assert second[2] == ["the disk is full", 2]
    assert first[3] == second[3] == [[np.float32(0.1)] * 3, 7]
    assert first[4] == second[4] == [0.1, 0]  # every bit of a float64
    assert (first[5], second[5]) == ([True, 15], [False, 15])


def test_a_signal_to_one_process_stops_both_at_one_step_and_they_continue(tmp_path):
    alone, lead, follower = tmp_path / "alone", tmp_path / "lead", tmp_path / "follower"
    for folder in (alone, lead, follower):
        folder.mkdir()
    ((_, expected),) = run(TRAIN, [alone], [-1], processes=1)
    stopped = run(TRAIN, [lead, follower], [9, 9], code=128 + signal.SIGTERM)
    said = "SIGTERM: checkpoint written at step 9; run the same command again to continue"
    assert stopped == [["from 0", said]] * 2
    ended = run(TRAIN, [lead, follower], [-1, -1])
    for began, weights in ended:
        assert began == "from 9"
        # two orders of a sum over four images, over fifteen steps
        np.testing.assert_allclose(json.loads(weights), json.loads(expected), rtol=1e-5)
    np.testing.assert_allclose(json.loads(expected)[-2:], [15, 0.3**2], rtol=1e-6)  # float32
    rows = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (alone, lead)]
    assert len(rows[0]) == len(rows[1]) == 6
    for a, b in zip(*rows, strict=True):
        close(json.loads(b), json.loads(a))
    assert list(follower.iterdir()) == []  # the one that follows needs no workdir


@pytest.mark.parametrize(
    ("told", "match"),
    [
        (("h:1", None, 0), "missing: --processes"),
        ((None, 2, 0), "missing: --coordinator"),
        (("h:1", 2, 2), r"expected 0 \.\. --processes - 1, got 2 of 2"),
        (("h:1", 2, -1), "got -1 of 2"),
        (("localhost", 2, 0), "expected HOST:PORT of process 0, got 'localhost'"),
    ],
)
def test_half_of_an_invitation_is_refused(told, match):
    with pytest.raises(hosts.HostsError, match=match) as caught:
        hosts.join(*told)
    assert caught.value.exit_code == 2


def test_a_process_that_is_told_nothing_is_alone():
    hosts.join(None, None, None)
    assert hosts.is_first()
    assert hosts.first_signal([]) == 0
    assert hosts.first_signal([15, 2]) == 15
    hosts.check_same("anything", "at all")
    tree = {"a": np.zeros(2)}
    assert hosts.share(tree) is tree
    with pytest.raises(KeyError), hosts.together():
        raise KeyError


# At 32 pixels the last feature map has one pixel, and BatchNorm over 64 numbers makes much of the
# rounding of two orders of the same sums; a larger map, batch and a low rate keep it small.
SMALL = (
    *("--config.data.phantom_patients=12", "--config.data.image_size=96"),
    *("--config.model.alpha=0.125", "--config.train.batch_size=64", "--config.train.epochs=2"),
    *("--config.optim.name=sgd", "--config.optim.learning_rate=1e-5"),
)


def train(cache, *workdirs, flags=((), ())):
    """Runs the command in as many processes as there are workdirs."""
    told = ("--coordinator", free_address(), "--processes", len(workdirs), "--process")
    return finish(
        [
            start(
                ["-m", "msa_flax.train", "--workdir", workdir, *SMALL, *flags[i]]
                + ([*told, i] if len(workdirs) > 1 else []),
                MSA_FLAX_CACHE=str(cache),
            )
            for i, workdir in enumerate(workdirs)
        ]
    )


def test_the_command_in_two_processes_gives_the_numbers_of_one(tmp_path):
    alone, pair, cache = tmp_path / "alone", tmp_path / "pair", tmp_path / "cache"
    assert train(cache, alone)[0] == [0]
    codes, outputs, errors = train(cache, pair, pair)
    assert codes == [0, 0], errors
    rows = [(path / "metrics.jsonl").read_text().splitlines() for path in (alone, pair)]
    assert len(rows[0]) == len(rows[1]) == 4
    for a, b in zip(*rows, strict=True):
        close(json.loads(b), json.loads(a))
    one, two = (msa_flax.restore(path, checkpoint_name="last") for path in (alone, pair))
    same = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    jax.tree.map(same, two.variables, one.variables)
    initial = initialise(one.model, seed=0)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), one.variables, initial)
    assert max(jax.tree.leaves(moved["params"])) > 1e-4  # the comparison is awake
    assert max(jax.tree.leaves(moved["batch_stats"])) > 1e-2
    # The first one writes and talks; the second one does neither.
    assert {path.name.split(".")[0] for path in pair.iterdir()} == {
        path.name.split(".")[0] for path in alone.iterdir()
    }
    assert len(list(pair.glob("events.out.tfevents.*"))) == 1
    assert json.loads((pair / "run.json").read_text())["processes"] == 2
    assert "detected 'fracture' images" in outputs[0]
    for text in (outputs[1], errors[1]):
        assert [line for line in text.splitlines() if not line.startswith("[Gloo]")] == []


def test_what_one_process_refuses_ends_both_with_its_exit_code(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/other.txt").write_text("not ours")
    codes, _, errors = train(tmp_path / "cache", tmp_path / "run", tmp_path / "run")
    assert codes == [2, 2], errors
    assert "holds other files" in errors[0]
    assert errors[1] == "error: process 0 ended; its own message says why\n"


def test_processes_with_different_configurations_are_refused(tmp_path):
    flags = ((), ("--config.train.seed=1",))
    codes, _, errors = train(tmp_path / "cache", *[tmp_path / "run"] * 2, flags=flags)
    assert codes == [2, 2], errors
    for text in errors:
        assert "the configuration: expected the same in every process" in text
    assert not (tmp_path / "run").exists()
