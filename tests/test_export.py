"""The commands export and predict --model, as a user gives them."""

import os
import subprocess
import sys

import cv2
import pytest

from msa_flax import cli, export, predict
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.data.phantom import draw_slice
from msa_flax.files import NOTICE

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
)
# What a portable model is used without; the last ones are imported late, for training images.
WITHOUT = ("flax", "optax", "orbax", "tensorflow", "clu", "h5py", "tensorflow_datasets", "keras")
WITHOUT += ("sklearn", "tensorboard", "etils")
BLOCKED = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {WITHOUT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from msa_flax import cli, predict
sys.exit(cli.call(predict.main, predict.define_flags, "", ["predict", *sys.argv[1:]]))
"""


def call(command, *arguments):
    argv = [command.__name__, *map(str, arguments)]
    return cli.call(command.main, command.define_flags, command.__doc__, argv)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, untrained_run):
    folder = tmp_path_factory.mktemp("runs") / "run"
    untrained_run(folder, CONFIG.validate())
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), draw_slice(0, 990, i).image)
    return folder


@pytest.fixture(scope="module")
def model(workdir, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.zip"
    assert call(export, "--workdir", workdir, "--out", path, "--zip") == 0
    return path


def test_a_model_predicts_like_its_run_without_what_made_it(workdir, images, model, tmp_path):
    out = tmp_path / "model"
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, "--model", model, "--out", out, images],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(NOTICE)
    assert "synthetic phantom" in done.stdout
    assert call(predict, "--workdir", workdir, "--out", tmp_path / "run", images) == 0
    for name in ("slices.csv", "series.csv", "refused.csv"):
        assert (out / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_damaged_checkpoint_is_refused(workdir, tmp_path, capsys):
    files = [p for p in (workdir / "checkpoints/best").rglob("*") if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    largest.write_bytes(damaged)
    try:
        assert call(export, "--workdir", workdir, "--out", tmp_path / "model") == 2
    finally:
        largest.write_bytes(whole)
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model=x", "--workdir=y", "."), "expected no --workdir"),
        (("--model=x", "--moved_to=y", "."), "expected no --workdir"),
        (("--model=x", "--checkpoint=last", "."), "expected no --workdir"),
        (("--model=/none", "."), "where nothing is"),
        (("--model={model}",), "expected files or folders to predict"),
    ],
)
def test_bad_usage_of_a_model_is_one_sentence(arguments, said, model, elsewhere, capsys):
    assert call(predict, *(text.format(model=model) for text in arguments)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not list(elsewhere.iterdir())


def test_export_needs_a_place(workdir, capsys):
    assert call(export, "--workdir", workdir) == 2
    assert "--out: expected a new folder or file" in capsys.readouterr().err
    assert call(export, "--workdir", workdir, "--out", workdir) == 2
    assert "nothing was overwritten" in capsys.readouterr().err
