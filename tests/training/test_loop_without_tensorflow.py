"""The training part needs no TensorFlow: batches come from any iterator of NumPy arrays."""

import json
import subprocess
import sys

SCRIPT = """
import sys

for name in ("tensorflow", "tensorflow_datasets", "clu"):
    sys.modules[name] = None  # importing any of them raises ImportError

import json, pathlib
import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
from msa_flax.config import OptimConfig
from msa_flax.models import Classifier, Head, MultiScaleSpatialAttention
from msa_flax.models.layers import BatchNorm, Conv
from msa_flax.training import devices, loop, optim, steps, workdir
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.compile import compile_train_steps


class Backbone(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        x = Conv(6, 3, 4, use_bias=False, channels=3, name="conv")(images)
        return BatchNorm("relu6", name="bn")(x, train=train)


model = Classifier(Backbone(), MultiScaleSpatialAttention(), Head("logit", 0.0))
optimizer = optim.create_optimizer(OptimConfig(), total_steps=6)
scale = lambda images: jnp.stack([images] * 3, -1).astype(jnp.float32) / 255
mesh = devices.mesh(4)
train_step = steps.make_train_step(model, optimizer, scale, seed=0)
train_steps = compile_train_steps(train_step, mesh)
predict = jax.jit(steps.make_predict_step(model, scale))
variables = jax.device_get(model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False))


def dispatches(epoch, start):
    for step in range(start, 3):
        rng = np.random.default_rng([epoch, step])
        yield {
            "image": rng.integers(0, 256, (1, 4, 16, 16), dtype=np.uint8),
            "label": rng.integers(0, 2, (1, 4)).astype(np.float32),
            "weight": np.ones((1, 4), np.float32),
        }, 1


def validate(variables):
    batch, _ = next(dispatches(9, 0))
    logits = predict(devices.local(variables), batch["image"][0])
    return loop.loss_and_accuracy(batch["label"][0], np.asarray(logits))


def run(folder, epochs):
    folder.mkdir(exist_ok=True)
    fresh, checkpoints = steps.create_state(variables, optimizer), Checkpoints(folder)
    state, progress = checkpoints.restore_last(fresh) or (fresh, {})
    began = int(state.step)
    state = loop.Loop(
        train_steps=train_steps,
        dispatches=dispatches,
        validate=validate,
        steps_per_epoch=3,
        epochs=epochs,
        workdir=folder,
        checkpoints=checkpoints,
    ).run(devices.replicate(mesh, state), progress)
    return [began, int(state.step)]


root = pathlib.Path(sys.argv[1])
workdir.environment()
runs = [run(root / "whole", 2), run(root / "parts", 1), run(root / "parts", 2)]
assert sys.modules["tensorflow"] is None
print(json.dumps(runs))
"""


def test_a_generator_of_numpy_batches_is_trained_on_saved_and_resumed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[0, 6], [0, 3], [3, 6]]
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "parts"))
    assert whole == parts
    assert len(whole.splitlines()) == 4
