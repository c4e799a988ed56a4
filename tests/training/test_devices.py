"""Many devices and many processes compute what one device computes."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from msa_flax.training import devices

# Sums over the batch in another order, after a few small steps of plain gradient descent. (Adam
# divides by the size of the gradients, and large steps from random weights are chaotic: both blow
# rounding up.)
TOLERANCE = 1e-5

SIMULATED = """
import functools, json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from msa_flax.config import ModelConfig, OptimConfig
from msa_flax.models import create_model, scale_images
from msa_flax.training import devices, optim, steps
from msa_flax.training.state import create_state

model = create_model(ModelConfig(alpha=0.25, pretrained="none"))
optimizer = optim.create_optimizer(OptimConfig(name="sgd", learning_rate=1e-4), total_steps=3)
scale = functools.partial(scale_images, preprocess="paper", backbone="mobilenet_v1")
variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
rng = np.random.default_rng(0)
batches = {
    "image": rng.integers(0, 256, (3, 8, 64, 64), dtype=np.uint8),
    "label": rng.integers(0, 2, (3, 8)).astype(np.float32),
    "weight": np.ones((3, 8), np.float32),
}
# The halves of a batch differ, so that statistics of a part would not be those of the whole.
batches["image"][:, 4:] //= 4


def trained(mesh, batches):
    step = steps.make_train_step(model, optimizer, scale, seed=0)
    run = steps.compiled_train_steps(step, devices.replicated(mesh))
    state = devices.replicate(mesh, create_state(variables, optimizer))
    state, sums = run(state, devices.split(mesh, batches), 3)
    return devices.local(state.variables), sums


def distance(a, b):
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(t)]) for t in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


assert len(jax.devices()) == 4
one, one_sums = trained(Mesh(np.array(jax.devices()[:1]), ("batch",)), batches)
four, four_sums = trained(devices.mesh(8), batches)
half, _ = trained(
    Mesh(np.array(jax.devices()[:1]), ("batch",)), {k: v[:, :4] for k, v in batches.items()}
)
found = {"half_" + k: distance(half[k], one[k]) for k in one}
found |= {k: distance(four[k], one[k]) for k in one}
found["sums"] = distance(four_sums, one_sums)
print(json.dumps(found))
"""


def environment(**variables):
    return os.environ | {"JAX_PLATFORMS": "cpu", **variables}


def test_four_devices_give_the_variables_and_the_loss_of_one():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", SIMULATED],
        capture_output=True,
        text=True,
        env=environment(XLA_FLAGS=flags),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["half_batch_stats"] > 50 * TOLERANCE  # the comparison is awake
    assert found["params"] < TOLERANCE
    assert found["batch_stats"] < TOLERANCE
    assert found["sums"] < TOLERANCE


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def train(workdir, cache, *arguments):
    small = (
        *("--config.data.phantom_patients=10", "--config.data.image_size=32"),
        *("--config.train.epochs=1", "--config.model.alpha=0.125"),
        *("--config.optim.name=sgd", "--config.optim.learning_rate=1e-5"),
    )
    return subprocess.Popen(
        [sys.executable, "-m", "msa_flax.train", "--workdir", str(workdir), *small, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(MSA_FLAX_CACHE=str(cache)),
    )


def test_two_processes_train_together_what_one_trains_alone(tmp_path):
    alone = train(tmp_path / "alone", tmp_path / "cache")
    _, said = alone.communicate(timeout=300)
    assert alone.returncode == 0, said
    told = ("--coordinator", f"localhost:{free_port()}", "--processes", "2", "--process")
    pair = [train(tmp_path / "pair", tmp_path / "cache", *told, str(i)) for i in (0, 1)]
    outputs = [process.communicate(timeout=300) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("alone", "pair")
    ]
    assert len(rows[0]) == len(rows[1]) == 2
    for one, two in zip(*rows, strict=True):
        assert (one["step"], one["split"]) == (two["step"], two["split"])
        np.testing.assert_allclose(two["loss"], one["loss"], rtol=TOLERANCE)
    # The first process tells and evaluates; the second does neither, and writes nothing.
    assert "validation" in outputs[0][0]
    assert "validation" not in "".join(outputs[1])
    assert len(list((tmp_path / "pair").glob("events.out.tfevents.*"))) == 1


def test_a_batch_that_cannot_be_split_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(devices.jax, "devices", lambda: [None] * 3)
    with pytest.raises(devices.DevicesError, match="multiple of the 3 devices, got 16; choose"):
        devices.mesh(16)


@pytest.mark.parametrize(
    ("told", "match"),
    [
        (("localhost:1", None, 0), "all three or none, got 'localhost:1', None, 0"),
        (("localhost:1", 2, 2), r"expected 0 \.\. 1, got 2"),
    ],
)
def test_processes_that_are_told_half_are_refused(told, match):
    with pytest.raises(devices.DevicesError, match=match):
        devices.join(*told)


def test_a_process_that_is_told_nothing_is_alone():
    devices.join(None, None, None)
    assert devices.is_first()
    assert devices.agree(15) == 15
