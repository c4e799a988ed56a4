"""Checkpoints: what comes back is what was saved, or it is refused."""

import gc
import shutil

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


@pytest.mark.parametrize("name", ["[2026] study", "a*b?", "{x}", "back\\slash", "Zürich\n患者"])
def test_any_path_that_a_file_system_allows_works(tmp_path, name):
    for step in (1, 2, 3):
        Checkpoints(tmp_path / name).save_last(at_step(state_of(step), step), {"at": step})
    restored, progress = Checkpoints(tmp_path / name).restore_last(state_of(9))
    same(restored.params, state_of(3).params)
    assert progress == {"at": 3}
    kept = sorted(p.name for p in (tmp_path / name / "checkpoints/last").iterdir())
    assert kept == ["2", "3"]


def test_an_older_checkpoint_goes_only_when_the_new_one_has_been_read_back(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save_best(at_step(state_of(1), 1), {})

    def unreadable(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(checkpoints, "_check_saved", unreadable)
    with pytest.raises(CheckpointError, match=r"step 2 cannot be written .*Input/output error"):
        checkpoints.save_best(at_step(state_of(2), 2), {})
    assert (tmp_path / "checkpoints/best/1").is_dir()


def test_what_is_not_finite_is_never_saved(tmp_path):
    ruined = at_step(state_of(0), 1)
    ruined.opt_state[0].mu["classifier"]["bias"] *= np.nan
    with pytest.raises(CheckpointError, match="not finite"):
        Checkpoints(tmp_path).save_last(ruined, {})


def progress_file(workdir, folder):
    return workdir / "checkpoints" / folder / "progress/metadata"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"loss": 0.3', '"loss": 0.2'),
        ('"digests"', '"digestr"'),
        ('"optimizer": "', '"optimizes": "'),
        ('"digest": ', '"digesu": '),
        ('"best"', '"bess"'),
        ('"step": 2', '"step": 3'),
    ],
)
def test_a_flip_in_what_steers_the_run_costs_one_checkpoint(tmp_path, caplog, old, new):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        best = {"loss": 0.3, "step": step}
        checkpoints.save_last(at_step(state_of(step), step), {"best": best})
    path = progress_file(tmp_path, "last/2")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    restored, progress = Checkpoints(tmp_path).restore_last(state_of(9))
    assert (int(restored.step), progress["best"]["step"]) == (1, 1)
    assert "last/2 is damaged" in caplog.text


def test_a_renamed_step_and_a_checkpoint_of_another_configuration_are_not_believed(tmp_path):
    for step in (1, 2):
        Checkpoints(tmp_path, run="a").save_last(at_step(state_of(step), step), {})
    (tmp_path / "checkpoints/last/2").rename(tmp_path / "checkpoints/last/999")
    assert Checkpoints(tmp_path, run="a").restore_last(state_of(9))[0].step == 1
    with pytest.raises(CheckpointError, match="another configuration"):
        Checkpoints(tmp_path, run="b").restore_last(state_of(9))


def test_a_lost_best_checkpoint_is_replaced_by_a_last_one_of_the_same_step(tmp_path, caplog):
    checkpoints, like = Checkpoints(tmp_path), state_of(9).variables
    best = {"best": {"loss": 0.3, "step": 2}}
    checkpoints.save_best(at_step(state_of(2), 2), best)
    checkpoints.save_last(at_step(state_of(2), 2), best)
    shutil.rmtree(tmp_path / "checkpoints/best/2")
    variables, step = Checkpoints(tmp_path, read_only=True).restore_variables("best", like)
    assert step == 2
    same(variables, state_of(2).variables)
    assert "last/2 is of the same step and is used" in caplog.text
    for step in (3, 4):
        checkpoints.save_last(at_step(state_of(step), step), best)
    with pytest.raises(CheckpointError, match="--checkpoint last"):
        Checkpoints(tmp_path, read_only=True).restore_variables("best", like)
