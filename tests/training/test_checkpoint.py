"""Checkpoints: what comes back is what was saved, or it is refused."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.config import OptimConfig
from msa_flax.training.checkpoint import CheckpointError, Checkpoints, digest
from msa_flax.training.optim import create_optimizer
from msa_flax.training.steps import create_state

# Orbax leaves reads of a damaged file unfinished; Python complains when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    """Collects what Orbax left here, so that no later test is blamed for it."""
    yield
    gc.collect()


def state_of(seed, width=3):
    rng = np.random.default_rng(seed)
    leaf = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    variables = {
        "params": {"backbone": {"kernel": leaf(4096, width)}, "classifier": {"bias": leaf(1)}},
        "batch_stats": {"backbone": {"mean": leaf(width)}},
    }
    return create_state(variables, create_optimizer(OptimConfig(), total_steps=100))


def at_step(state, step):
    return state.replace(step=jnp.asarray(step, jnp.int32))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def flip_a_bit(folder):
    path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def test_the_last_state_comes_back_whole(tmp_path):
    state = at_step(state_of(0), 7)
    progress = {"totals": {"loss": 0.1}, "best": {"loss": 0.30000000000000004, "step": 5}}
    Checkpoints(tmp_path).save_last(state, progress)
    restored, came_back = Checkpoints(tmp_path).restore_last(state_of(1))
    same(restored, state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert came_back == progress


def test_no_checkpoint_is_no_error_for_training_but_one_for_evaluation(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_last(state_of(0)) is None
    with pytest.raises(CheckpointError, match="train this workdir first"):
        checkpoints.restore_variables("best", state_of(0).variables)


def test_best_replaces_best_and_holds_variables(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(at_step(state_of(0), 1), {})
    checkpoints.save_best(at_step(state_of(2), 2), {})
    variables, step = checkpoints.restore_variables("best", state_of(1).variables)
    assert step == 2
    same(variables, state_of(2).variables)
    assert [p.name for p in (tmp_path / "checkpoints/best").iterdir()] == ["2"]


def test_saving_a_step_again_is_allowed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for seed in (0, 1):
        checkpoints.save_last(at_step(state_of(seed), 3), {})
    same(checkpoints.restore_last(state_of(5))[0].params, state_of(1).params)


def test_a_flipped_bit_is_found_and_the_older_checkpoint_used(tmp_path, caplog):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save_last(at_step(state_of(step), step), {"step": step})
    flip_a_bit(tmp_path / "checkpoints/last/2")
    restored, progress = Checkpoints(tmp_path).restore_last(state_of(9))
    assert restored.step == 1
    assert progress == {"step": 1}
    assert "last/2 is damaged" in caplog.text


def test_a_deleted_file_is_found(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(at_step(state_of(0), 1), {})
    folder = tmp_path / "checkpoints/best/1/variables"
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    files[-1].unlink()
    with pytest.raises(CheckpointError, match="best/1 is damaged"):
        Checkpoints(tmp_path).restore_variables("best", state_of(0).variables)


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(tmp_path):
    Checkpoints(tmp_path).save_last(at_step(state_of(0), 1), {})
    flip_a_bit(tmp_path / "checkpoints/last/1")
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        Checkpoints(tmp_path).restore_last(state_of(0))


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(tmp_path):
    Checkpoints(tmp_path).save_last(at_step(state_of(0), 1), {})
    with pytest.raises(CheckpointError, match=r"kernel: model \(4096, 5\), checkpoint \(4096, 3\)"):
        Checkpoints(tmp_path).restore_last(state_of(0, width=5))
    other = state_of(0).variables
    other["params"]["attention"] = {"bias": jnp.zeros(1)}
    with pytest.raises(CheckpointError, match="checkpoint lacks it"):
        Checkpoints(tmp_path).restore_variables("last", other)


def test_the_digest_depends_on_values_shapes_and_types():
    a = {"x": np.arange(6, dtype=np.float32)}
    assert digest(a) == digest({"x": jnp.arange(6, dtype=jnp.float32)})
    assert digest(a) != digest({"x": a["x"].reshape(2, 3)})
    assert digest(a) != digest({"x": a["x"].view(np.int32)})
    assert digest(a) != digest({"x": a["x"] + np.float32(1e-7)})


def test_a_checkpoint_knows_nothing_of_the_devices_it_was_made_on(tmp_path):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("batch",))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = jax.device_put(at_step(state_of(0), 7), whole)
    Checkpoints(tmp_path).save_last(state, {})
    assert not list(tmp_path.rglob("*sharding*"))
    restored, _ = Checkpoints(tmp_path).restore_last(state_of(1))
    same(restored, state)
    assert {leaf.committed for leaf in jax.tree.leaves(restored)} == {False}
