"""The command predict as a user gives it."""

import os
import subprocess
import sys

import cv2
import pytest

from msa_flax import cli, predict, restore
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.data.phantom import draw_slice
from msa_flax.files import NOTICE
from msa_flax.prediction.inputs import PredictionError

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, untrained_run):
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    untrained_run(workdir, CONFIG.validate())
    assert restore(workdir).scorer.typicality  # as at the end of training
    return workdir


@pytest.mark.parametrize("text", ["{}", "damaged"])
def test_a_calibration_that_cannot_be_used_is_no_other_threshold(trained, images, text, capsys):
    path = trained / "checkpoints/calibration-best.json"
    path.write_text(text)
    try:
        assert call("--workdir", trained, "--out", images.parent / "out", images) == 2
        with pytest.raises(PredictionError, match=r"or delete .*calibration-best"):
            restore(trained).predict_files([images])
    finally:
        path.unlink()
    assert f"or delete {path}, and the configured threshold decides" in capsys.readouterr().err
    assert not (images.parent / "out").exists()


@pytest.fixture
def images(tmp_path):
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"in/{i}.png"), draw_slice(0, 990, i).image)
    return tmp_path / "in"


def call(*arguments):
    argv = ["predict", *map(str, arguments)]
    return cli.call(predict.main, predict.define_flags, predict.__doc__, argv)


def test_it_loads_no_tensorflow_and_writes_into_its_folder_alone(trained, images, tmp_path):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    code = (
        "import sys; from msa_flax import cli, predict\n"
        "code = cli.call(predict.main, predict.define_flags, '', ['predict', *sys.argv[1:]])\n"
        "heavy = {'tensorflow', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(code or (str(heavy) if heavy else 0))"
    )
    out = tmp_path / "results"
    arguments = [str(images), "--workdir", str(trained), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "3 slices of 1 series" in done.stdout.splitlines()[-1]
    assert done.stdout.rstrip().endswith(NOTICE)
    assert {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()} == before
    assert sorted(os.listdir(tmp_path)) == ["in", "results"]


def test_without_out_the_results_are_in_the_folder_of_the_run(trained, images, capsys):
    assert call("--workdir", trained, images) == 0
    assert (trained / "predict/slices.csv").exists()
    assert call("--workdir", trained, images / "0.png") == 2
    assert "name another folder with --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "expected files or folders to predict, got nothing"),
        (("/none/at/all",), "not there: /none/at/all"),
        (("--out=/dev/null", "."), "--out: expected a folder, got the file '/dev/null'"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, said, trained, elsewhere, capsys):
    assert call("--workdir", trained, *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
    assert not list(elsewhere.iterdir())
