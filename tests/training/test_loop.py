"""The loop: resuming changes nothing, whatever ended the run."""

import dataclasses
import json
import math
import os
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msa_flax.files import UserError
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.loop import (
    InterruptedRunError,
    Loop,
    NonFiniteLossError,
    loss_and_accuracy,
    read_rows,
)
from msa_flax.training.progress import Monitor
from msa_flax.training.steps import TrainState, create_state

STEPS_PER_EPOCH, DISPATCH, EPOCHS = 5, 2, 3


class Silent(Monitor):
    """A monitor that may act after a given step."""

    def __init__(self, at=None, act=None):
        self.at, self.act, self.steps = at, act, []

    def dispatch(self, step, sums, seconds):
        self.steps.append(step)
        if self.act and step >= self.at:
            act, self.act = self.act, None
            act()


class KilledError(Exception):
    """Stands for kill -9: nothing of the loop's own runs after it."""


def fresh_state():
    return create_state({"params": {"w": jnp.zeros(3)}, "batch_stats": {}}, optax.sgd(0.1))


def dispatches(epoch, start):
    order = np.random.default_rng([0, epoch]).standard_normal((STEPS_PER_EPOCH, 3))
    for first in range(start, STEPS_PER_EPOCH, DISPATCH):
        chunk = order[first : first + DISPATCH].astype(np.float32)
        index = np.arange(first, first + len(chunk))[:, None]
        yield {"target": chunk, "index": index}, len(chunk)


def train_steps(state, batch, count):
    total = 0.0
    for target in batch["target"][:count]:
        difference = state.params["w"] - jnp.asarray(target)
        total += float(jnp.sum(difference**2))
        params = {"w": state.params["w"] - 0.1 * difference}
        state = TrainState(state.step + 1, params, state.batch_stats, state.opt_state)
    return state, {"loss": total, "correct": float(count), "count": float(count)}


def make_loop(workdir, monitor=None, steps=train_steps, epochs=EPOCHS):
    return Loop(
        train_steps=steps,
        dispatches=dispatches,
        validate=lambda v: {"loss": float(jnp.sum(v["params"]["w"] ** 2)), "accuracy": 0.5},
        steps_per_epoch=STEPS_PER_EPOCH,
        epochs=epochs,
        workdir=Path(workdir),
        checkpoints=Checkpoints(workdir),
        monitor=monitor or Silent(),
        describe=lambda rows: [f"image {row}" for row in rows],
    )


def start_or_continue(workdir, **kwargs):
    state, progress = Checkpoints(workdir).restore_last(fresh_state()) or (fresh_state(), {})
    return make_loop(workdir, **kwargs).run(state, progress)


@pytest.fixture
def uninterrupted(tmp_path):
    folder = tmp_path / "whole"
    folder.mkdir()
    return folder, start_or_continue(folder)


def assert_same_run(folder, state, uninterrupted):
    whole, expected = uninterrupted
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    best = [Checkpoints(w).restore_variables("best", expected.variables) for w in (folder, whole)]
    assert best[0][1] == best[1][1]
    jax.tree.map(np.testing.assert_array_equal, best[0][0], best[1][0])


def test_rows_count_every_step_once(uninterrupted):
    rows = read_rows(uninterrupted[0] / "metrics.jsonl")
    assert [(r["epoch"], r["split"], r["step"]) for r in rows] == [
        (e, s, e * STEPS_PER_EPOCH) for e in (1, 2, 3) for s in ("train", "validation")
    ]
    assert all(r["accuracy"] == 1.0 for r in rows if r["split"] == "train")


@pytest.mark.parametrize("at", [2, 4, 5, 7, 9, 10, 12])
def test_a_killed_run_continues_as_if_nothing_had_been(tmp_path, at, uninterrupted):
    folder = tmp_path / "killed"
    folder.mkdir()

    def kill():
        raise KilledError

    with pytest.raises(KilledError):
        start_or_continue(folder, monitor=Silent(at, kill))
    assert_same_run(folder, start_or_continue(folder), uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [4, 10])
def test_a_signal_leaves_a_checkpoint_and_the_run_continues(tmp_path, at, number, uninterrupted):
    folder = tmp_path / "stopped"
    folder.mkdir()
    with pytest.raises(InterruptedRunError, match=f"at step {at}") as caught:
        start_or_continue(folder, monitor=Silent(at, lambda: os.kill(os.getpid(), number)))
    assert caught.value.exit_code == 128 + number
    monitor = Silent()
    assert_same_run(folder, start_or_continue(folder, monitor=monitor), uninterrupted)
    assert monitor.steps[0] > at  # nothing is done twice


def test_a_signal_during_validation_ends_the_run_after_it(tmp_path):
    monitor = Silent()

    def validate(variables):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": 1.0, "accuracy": 0.5}

    loop = dataclasses.replace(make_loop(tmp_path, monitor), validate=validate)
    with pytest.raises(InterruptedRunError, match=f"at step {STEPS_PER_EPOCH};"):
        loop.run(fresh_state(), {})
    assert monitor.steps[-1] == STEPS_PER_EPOCH


def test_signal_handlers_are_put_back(tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    start_or_continue(tmp_path, epochs=1)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_that_is_finished_does_nothing_and_more_epochs_extend_it(tmp_path, uninterrupted):
    folder = tmp_path / "extended"
    folder.mkdir()
    start_or_continue(folder, epochs=1)
    monitor = Silent()
    start_or_continue(folder, epochs=1, monitor=monitor)
    assert monitor.steps == []
    assert_same_run(folder, start_or_continue(folder), uninterrupted)


def test_a_row_cut_off_by_a_kill_is_dropped(tmp_path):
    start_or_continue(tmp_path, epochs=1)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + json.dumps({"step": 10, "epoch": 2})[:-4])
    start_or_continue(tmp_path, epochs=1)
    assert path.read_text() == whole


def test_a_non_finite_loss_stops_with_steps_and_images(tmp_path):
    def poisoned(state, batch, count):
        state, sums = train_steps(state, batch, count)
        return state, sums | {"loss": float("nan") if int(state.step) > 5 else sums["loss"]}

    with pytest.raises(NonFiniteLossError, match="steps 6 to 7") as caught:
        start_or_continue(tmp_path, steps=poisoned)
    assert "image 0, image 1" in str(caught.value)
    assert Checkpoints(tmp_path).restore_last(fresh_state())[0].step == 5


def test_batches_without_an_index_are_trained_on_too(tmp_path):
    def plain(epoch, start):
        for batch, count in dispatches(epoch, start):
            yield {"target": batch["target"]}, count

    def poisoned(state, batch, count):
        return train_steps(state, batch, count)[0], {"loss": math.nan, "correct": 0, "count": 1}

    loop = dataclasses.replace(make_loop(tmp_path, steps=poisoned), dispatches=plain)
    with pytest.raises(NonFiniteLossError, match="images: unnamed"):
        loop.run(fresh_state(), {})


def test_loss_and_accuracy_are_those_worked_out_by_hand():
    values = loss_and_accuracy(np.array([1, 0, 1]), np.array([0.0, 2.0, 1000.0]))
    expected = (np.log(2) + np.log1p(np.exp(2.0)) + 0.0) / 3
    assert values["loss"] == pytest.approx(expected, rel=1e-12)
    assert values["accuracy"] == pytest.approx(2 / 3)
    weighted = loss_and_accuracy(
        np.array([1, 0, 1]), np.array([0.0, 2.0, 1000.0]), class_weights=(0.5, 4.0)
    )
    expected = (4 * np.log(2) + 0.5 * np.log1p(np.exp(2.0)) + 0.0) / 3
    assert weighted["loss"] == pytest.approx(expected, rel=1e-12)
    assert weighted["accuracy"] == values["accuracy"]


def test_with_class_weights_a_checkpoint_that_finds_no_fracture_is_not_the_best():
    labels = np.array([0] * 19 + [1])
    none = np.full(20, -3.0)
    finds = np.array([0.3] * 9 + [-0.3] * 10 + [0.5])
    plain, weighted = (
        [loss_and_accuracy(labels, logits, class_weights=pair)["loss"] for logits in (none, finds)]
        for pair in ((1.0, 1.0), (20 / 38, 20 / 2))
    )
    assert plain[0] < plain[1]
    assert weighted[0] > weighted[1]


def test_a_state_that_is_not_finite_is_not_saved_and_the_last_good_one_goes_on(tmp_path):
    def ruined(state, batch, count):
        state, sums = train_steps(state, batch, count)
        if int(state.step) == 10:
            state = state.replace(params=jax.tree.map(lambda x: x * math.nan, state.params))
        return state, sums

    start_or_continue(tmp_path / "whole")
    with pytest.raises(NonFiniteLossError, match="of step 5, is kept"):
        start_or_continue(tmp_path / "run", steps=ruined)
    assert Checkpoints(tmp_path / "run").restore_last(fresh_state())[0].step == 5
    start_or_continue(tmp_path / "run")
    a, b = (tmp_path / name / "metrics.jsonl" for name in ("whole", "run"))
    assert a.read_bytes() == b.read_bytes()


def test_a_validation_loss_that_is_not_finite_ends_training_and_is_null_in_the_file(tmp_path):
    loop = dataclasses.replace(
        make_loop(tmp_path), validate=lambda variables: {"loss": math.nan, "accuracy": 0.5}
    )
    with pytest.raises(NonFiniteLossError, match="no checkpoint was written before"):
        loop.run(fresh_state(), {})
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (row["loss"], row["loss_reason"]) == (None, "not finite: nan")
    assert Checkpoints(tmp_path).restore_last(fresh_state()) is None


@pytest.mark.parametrize("line", ["[1]", '{"a": 1}', "{", '{"step": "x", "epoch": 1}'])
def test_a_row_changed_by_hand_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: expected .* in line 1"):
        read_rows(path)
