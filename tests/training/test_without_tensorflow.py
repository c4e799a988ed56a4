"""Training needs jax, flax, optax and orbax, and any iterator of NumPy batches."""

import subprocess
import sys

PROGRAM = """
import functools, pathlib, sys

for name in ("tensorflow", "tensorflow_datasets", "clu", "cv2", "sklearn"):
    sys.modules[name] = None  # an import of it fails

import jax, jax.numpy as jnp, numpy as np
from msa_flax.config import ModelConfig, OptimConfig
from msa_flax.models import create_model, scale_images
from msa_flax.training import devices, optim, steps
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.loop import Loop, loss_and_accuracy, read_rows
from msa_flax.training.state import create_state

rng = np.random.default_rng(0)
images = rng.integers(0, 256, (8, 32, 32), dtype=np.uint8)
labels = rng.integers(0, 2, 8).astype(np.float32)
model = create_model(ModelConfig(alpha=0.125, pretrained="none"))
scale = functools.partial(scale_images, preprocess="paper", backbone="mobilenet_v1")
optimizer = optim.create_optimizer(OptimConfig(), total_steps=4)
state = create_state(jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3))), optimizer)
mesh = devices.mesh(4)
train = steps.compiled_train_steps(
    steps.make_train_step(model, optimizer, scale, seed=0), devices.replicated(mesh)
)
predict = jax.jit(steps.make_predict_step(model, scale))


def dispatches(epoch, start_step):
    order = np.random.default_rng(epoch).permutation(8).reshape(2, 4)[start_step:]
    yield {
        "image": images[order],
        "label": labels[order],
        "weight": np.ones(order.shape, np.float32),
        "index": order.astype(np.int32),
    }, len(order)


class Silence:
    def dispatch(self, step, sums, seconds): ...
    def epoch(self, step, rows): ...


workdir = pathlib.Path(sys.argv[1])
for epochs in (1, 2):  # the second time it goes on where the first ended
    checkpoints = Checkpoints(workdir)
    restored, progress = checkpoints.restore_last(state) or (state, {})
    assert int(restored.step) == 2 * (epochs - 1)
    end = Loop(
        train_steps=lambda s, batches, count: train(s, devices.split(mesh, batches), count),
        dispatches=dispatches,
        validate=lambda variables: loss_and_accuracy(labels, predict(variables, images)),
        steps_per_epoch=2,
        epochs=epochs,
        workdir=workdir,
        checkpoints=checkpoints,
        monitor=Silence(),
    ).run(devices.replicate(mesh, restored), progress)
assert int(end.step) == 4
assert [row["step"] for row in read_rows(workdir / "metrics.jsonl")] == [2, 2, 4, 4]
"""


def test_the_loop_runs_and_goes_on_from_numpy_batches_without_tensorflow(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
