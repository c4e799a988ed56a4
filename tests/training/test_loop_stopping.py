"""Early stopping: Keras's epochs, and a run that is interrupted stops where it would have."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msa_flax.config import OptimConfig
from msa_flax.training import optim
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.loop import InterruptedRunError, Loop, read_rows
from msa_flax.training.progress import Monitor
from msa_flax.training.steps import create_state

STEPS_PER_EPOCH, DISPATCH, EPOCHS = 5, 2, 12
CONFIG = OptimConfig(name="sgd", learning_rate=0.5, schedule="plateau", plateau_patience=1)
OPTIMIZER = optim.create_optimizer(CONFIG, total_steps=EPOCHS * STEPS_PER_EPOCH)
PATIENCE = 3


class KilledError(Exception):
    """Stands for kill -9: nothing of the loop's own runs after it."""


class Killing(Monitor):
    """A monitor that counts dispatches and ends the process at a step."""

    def __init__(self, at=None):
        self.at, self.steps = at, []

    def dispatch(self, step, sums, seconds):
        self.steps.append(step)
        if step == self.at:
            raise KilledError


class Kept(Checkpoints):
    """Remembers which steps were the best, and writes nothing."""

    def __init__(self):
        self.best = []

    def save_best(self, state, progress):
        self.best.append(int(state.step))

    def save_last(self, state, progress):
        pass


# --- which epoch


def losses_of(seed):
    rng = np.random.default_rng(seed)
    return np.round(1 / (1 + np.arange(EPOCHS)) + rng.normal(0, 0.3, EPOCHS), 1).tolist()


def keras_epochs(losses, patience):
    """Returns how many epochs Keras trains and which it takes the weights of, from 1."""
    import keras

    callback = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
    model = SimpleNamespace(stop_training=False, get_weights=list, set_weights=len)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        if model.stop_training:
            break
    return epoch + 1, callback.best_epoch + 1


def our_epochs(losses, patience, workdir):
    remaining, checkpoints = iter(losses), Kept()
    loop = Loop(
        train_steps=lambda state, batch, count: (
            state.replace(step=state.step + count),
            {"loss": 1.0, "correct": 1.0, "count": 1.0},
        ),
        dispatches=lambda epoch, start: iter([({}, 2)]),
        validate=lambda variables: {"loss": next(remaining), "accuracy": 0.5},
        steps_per_epoch=2,
        epochs=len(losses),
        workdir=workdir,
        checkpoints=checkpoints,
        monitor=Monitor(),
        patience=patience,
    )
    state = create_state({"params": {"w": jnp.zeros(1)}}, optax.sgd(0.1))
    return int(loop.run(state, {}).step) // 2, checkpoints.best[-1] // 2


@pytest.mark.parametrize("patience", [1, 2, 3, 4])
def test_training_stops_after_the_epoch_at_which_keras_stops(patience, tmp_path):
    found = []
    for seed in range(8):
        expected = keras_epochs(losses_of(seed), patience)
        found.append(expected[0])
        assert our_epochs(losses_of(seed), patience, tmp_path) == expected
    assert min(found) < EPOCHS
    assert len(set(found)) > 2  # the sequences are awake


def test_another_patience_would_be_seen(tmp_path):
    pairs = [(keras_epochs(losses_of(s), 2), our_epochs(losses_of(s), 3, tmp_path)) for s in (0, 1)]
    assert any(theirs != ours for theirs, ours in pairs)


def test_without_patience_all_epochs_are_trained(tmp_path):
    rising = list(np.arange(1.0, EPOCHS + 1))
    assert our_epochs(rising, 0, tmp_path) == (EPOCHS, 1)
    assert our_epochs(rising, 1, tmp_path) == (2, 1)


# --- continuing


def dispatches(epoch, start):
    targets = np.random.default_rng([0, epoch]).standard_normal((STEPS_PER_EPOCH, 3))
    for first in range(start, STEPS_PER_EPOCH, DISPATCH):
        chunk = targets[first : first + DISPATCH].astype(np.float32)
        yield {"target": chunk}, len(chunk)


@jax.jit
def one_step(state, target):
    difference = state.params["w"] - target
    updates, opt_state = OPTIMIZER.update({"w": difference}, state.opt_state)
    params = optax.apply_updates(state.params, updates)
    loss = jnp.sum(difference**2)
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), loss


def train_steps(state, batch, count):
    total = 0.0
    for target in batch["target"][:count]:
        state, loss = one_step(state, target)
        total += float(loss)
    return state, {"loss": total, "correct": float(count), "count": float(count)}


def after_epoch(state, loss):
    return state.replace(opt_state=optim.after_epoch(state.opt_state, loss, CONFIG))


def start_or_continue(workdir, monitor=None, **fields):
    workdir.mkdir(exist_ok=True)
    fresh = create_state({"params": {"w": jnp.zeros(3)}, "batch_stats": {}}, OPTIMIZER)
    state, progress = Checkpoints(workdir).restore_last(fresh) or (fresh, {})
    values = {"patience": PATIENCE, "after_epoch": after_epoch, "epochs": EPOCHS} | fields
    loop = Loop(
        train_steps=train_steps,
        dispatches=dispatches,
        validate=lambda v: {"loss": float(jnp.sum(v["params"]["w"] ** 2)), "accuracy": 0.5},
        steps_per_epoch=STEPS_PER_EPOCH,
        workdir=Path(workdir),
        checkpoints=Checkpoints(workdir),
        monitor=monitor or Monitor(),
        **values,
    )
    before = loop.finished(int(state.step), progress)
    return before, loop.run(state, progress)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run in one go: its folder and its last state."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finished, state = start_or_continue(folder)
    assert not finished
    epochs = int(state.step) // STEPS_PER_EPOCH
    assert PATIENCE + 1 < epochs < EPOCHS  # it stopped early, after an improvement
    assert float(state.opt_state[-1].factor) < 0.02  # more than one plateau
    return folder, state


def assert_same(folder, state, whole):
    jax.tree.map(np.testing.assert_array_equal, state, whole[1])
    rows = [(path / "metrics.jsonl").read_bytes() for path in (folder, whole[0])]
    assert rows[0] == rows[1]
    best = [Checkpoints(w).restore_variables("best", state.variables) for w in (folder, whole[0])]
    assert best[0][1:] == best[1][1:]
    jax.tree.map(np.testing.assert_array_equal, best[0][0], best[1][0])


@pytest.mark.parametrize("at", [4, 9, 12, 20])
def test_a_killed_run_stops_where_it_would_have(tmp_path, at, whole):
    with pytest.raises(KilledError):
        start_or_continue(tmp_path / "run", Killing(at))
    finished, state = start_or_continue(tmp_path / "run")
    assert not finished
    assert_same(tmp_path / "run", state, whole)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_killed_between_its_two_checkpoints_does_the_epoch_again(tmp_path, epochs, whole):
    seen = []

    def kill(state, loss):
        seen.append(loss)
        if len(seen) == epochs:
            raise KilledError
        return after_epoch(state, loss)

    with pytest.raises(KilledError):
        start_or_continue(tmp_path / "run", after_epoch=kill)
    assert_same(tmp_path / "run", start_or_continue(tmp_path / "run")[1], whole)


def test_a_run_that_stopped_early_stays_stopped_even_if_more_epochs_are_asked_for(tmp_path, whole):
    start_or_continue(tmp_path / "run")
    monitor = Killing()
    finished, state = start_or_continue(tmp_path / "run", monitor, epochs=2 * EPOCHS)
    assert finished
    assert monitor.steps == []
    assert_same(tmp_path / "run", state, whole)


def test_a_run_of_fewer_epochs_is_finished_and_more_extend_it(tmp_path, whole):
    for epochs, was_finished in ((2, False), (2, True)):
        finished, _ = start_or_continue(tmp_path / "run", epochs=epochs)
        assert finished is was_finished
    assert_same(tmp_path / "run", start_or_continue(tmp_path / "run")[1], whole)


def test_the_loss_after_an_epoch_is_the_validation_loss_of_its_row(tmp_path):
    seen = []

    def look(state, loss):
        seen.append((int(state.step), loss))
        return state

    start_or_continue(tmp_path / "run", after_epoch=look, epochs=3)
    rows = read_rows(tmp_path / "run/metrics.jsonl")
    assert seen == [(r["step"], r["loss"]) for r in rows if r["split"] == "validation"]


def test_what_a_signal_leaves_at_an_epochs_end_has_the_new_rate(tmp_path):
    class Signalled(Monitor):
        def epoch(self, step, rows):
            if step == 2 * STEPS_PER_EPOCH:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError, match="step 10"):
        start_or_continue(tmp_path / "run", Signalled())
    fresh = create_state({"params": {"w": jnp.zeros(3)}, "batch_stats": {}}, OPTIMIZER)
    state, _ = Checkpoints(tmp_path / "run").restore_last(fresh)
    expected = fresh.opt_state
    for row in read_rows(tmp_path / "run/metrics.jsonl"):
        if row["split"] == "validation":
            expected = optim.after_epoch(expected, row["loss"], CONFIG)
    assert expected[-1].best < np.inf
    jax.tree.map(np.testing.assert_array_equal, state.opt_state[-1], expected[-1])
