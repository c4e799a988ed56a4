"""Many devices compute what one device computes: BatchNorm over the whole batch included."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from simulated_devices import run_on_four_devices

from msa_flax.training import devices

# Training amplifies rounding: in float32 two correct orders of the same sums part within steps.
# In float64 they stay together, and what is left is whether they are the same sums.
SIMULATED = """
import functools, json
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from msa_flax.config import ModelConfig, OptimConfig
from msa_flax.models import create_model, scale_images
from msa_flax.training import devices, optim, steps
from msa_flax.training.compile import compile_train_steps

STEPS, BATCH = 4, 8
model = create_model(ModelConfig(alpha=0.25, pretrained="none", dropout=0.3))
optimizer = optim.create_optimizer(OptimConfig(), total_steps=STEPS)
exact = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
scale = functools.partial(scale_images, preprocess="paper", backbone="mobilenet_v1")
variables = exact(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3), jnp.float32)))
rng = np.random.default_rng(0)
batches = {
    "image": rng.integers(0, 256, (STEPS, BATCH, 64, 64), dtype=np.uint8),
    "label": rng.integers(0, 2, (STEPS, BATCH)).astype(np.float32),
    "weight": np.ones((STEPS, BATCH), np.float32),
}
batches["image"][:, BATCH // 2 :] //= 4  # statistics of a part are not those of the whole
batches["weight"][-1, -3:] = 0


def trainer(mesh):
    step = steps.make_train_step(model, optimizer, lambda x: scale(x).astype(float), seed=0)

    def step32(state, batch):
        state, sums = step(state, batch)
        return state, jax.tree.map(lambda x: x.astype(jnp.float32), sums)

    run = compile_train_steps(step32, mesh)

    def train(batches):
        state = devices.replicate(mesh, steps.create_state(variables, optimizer))
        for first in (0, STEPS // 2):
            chunk = {key: x[first : first + STEPS // 2] for key, x in batches.items()}
            state, sums = run(state, chunk, STEPS // 2)
        return devices.local({**state.variables, "sums": sums})

    return train


def differ(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), a, b)))


on_one = trainer(Mesh(np.array(jax.devices()[:1]), (devices.AXIS,)))
one, all_ = on_one(batches), trainer(devices.mesh(BATCH))(batches)
# A half twice has the half's statistics and gradients.
twice = lambda x: np.concatenate([x, x], axis=1)
parts = [
    on_one({key: twice(np.split(x, 2, axis=1)[half]) for key, x in batches.items()})
    for half in (0, 1)
]
apart = jax.tree.map(lambda x, y: (x + y) / 2, *parts)
print(json.dumps({
    "devices": len(jax.devices()),
    "moved": differ(one["params"], variables["params"]),
    "same": {key: differ(one[key], all_[key]) for key in one},
    "parts": {key: differ(one[key], apart[key]) for key in ("params", "batch_stats")},
}))
"""


@pytest.fixture(scope="module")
def found():
    values = run_on_four_devices(SIMULATED)
    assert values["devices"] == 4
    return values


def test_several_devices_take_the_steps_of_one(found):
    assert found["moved"] > 1e-3
    assert found["same"]["params"] < 1e-9  # measured: 1e-13 after these steps
    assert found["same"]["batch_stats"] < 1e-9
    assert found["same"]["sums"] < 1e-5  # float32


def test_averages_of_steps_on_parts_of_the_batch_would_be_seen(found):
    assert found["parts"]["batch_stats"] > 1e-3
    assert found["parts"]["params"] > 1e-3


def test_on_one_device_nothing_is_changed_by_the_mesh():
    mesh = devices.mesh(3)
    weights = jax.random.normal(jax.random.key(0), (64, 64))
    batches = {"x": np.random.default_rng(0).standard_normal((2, 3, 64)).astype(np.float32)}

    def f(weights, batches):
        return jax.numpy.tanh(batches["x"] @ weights).sum((0, 1))

    plain = jax.jit(f)(weights, batches)
    placed = jax.jit(f, out_shardings=devices.replicated(mesh))(
        devices.replicate(mesh, weights), devices.split(mesh, batches)
    )
    np.testing.assert_array_equal(plain, placed)
    np.testing.assert_array_equal(devices.local(placed), placed)


@pytest.mark.parametrize(
    ("size", "advice"), [(16, "use 15 or 18"), (2, "use 3"), (4, "use 3 or 6")]
)
def test_a_batch_that_cannot_be_shared_is_refused_in_one_sentence(monkeypatch, size, advice):
    monkeypatch.setattr(jax, "devices", lambda: [None] * 3)
    with pytest.raises(devices.DevicesError, match=rf"3 devices .* got {size}; {advice}") as caught:
        devices.mesh(size)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_the_command_refuses_such_a_batch_before_any_work(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "msa_flax.train", "--workdir", str(tmp_path / "run")),
            "--config.train.batch_size=9",
        ],
        capture_output=True,
        text=True,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "MSA_FLAX_CACHE": str(tmp_path / "cache"),
        },
        check=False,
    )
    assert done.returncode == 2
    assert "train.batch_size: expected a multiple of the 2 devices" in done.stderr
    assert list(tmp_path.iterdir()) == []
