"""explain --layer --faithfulness as a user runs it, and what is refused before it writes."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from image_folders import write_image

from msa_flax import cli, explain, files, restore, saliency
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.training.xla import compiler_options

LAYER = "backbone/alexnet/conv5"  # 3 x 3 cells in these images; the last layer has one
CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="msa", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
).validate()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, untrained_run):
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    untrained_run(workdir, CONFIG)
    return workdir


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "msa_flax.explain", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},  # what is run once
        check=False,
    )


def call(*arguments):
    argv = ["explain", *map(str, arguments)]
    return cli.call(explain.main, explain.define_flags, explain.__doc__, argv)


def test_two_methods_at_a_layer_are_explained_and_tested(trained, tmp_path):
    out = tmp_path / "maps"
    done = command(
        *("--workdir", trained, "--split", "test", "--limit", 3, "--out", out, "--faithfulness"),
        *("--method", "Grad-CAM,eigen-cam", "--layer", LAYER),
    )
    assert done.returncode == 0, done.stderr
    assert "explained in" in done.stdout
    assert "| eigencam | ROAD (logit)" in done.stdout
    assert {"contact_sheet.png", "faithfulness.md", "gradcam_test.png"} <= {
        path.name for path in out.iterdir()
    }
    with (out / "explanations.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"gradcam", "eigencam"}
    for path in out.glob("*cam-fracture.npy"):
        assert np.load(path).shape == (3, 3)  # the layer's, not those of the last one
    values = json.loads((out / "faithfulness.json").read_text())
    assert values["layer"] == LAYER
    (table,) = values["tables"]
    # The attention belongs to another layer.
    assert {row["method"] for row in table["rows"]} == {
        *("gradcam", "eigencam", "random_map", "centre_prior")
    }
    # Of maps of two layers there would be no such correlation.
    assert set(table["random_weights"]) == {"gradcam", "eigencam"}
    assert (out / "faithfulness.md").read_text().rstrip().endswith(files.NOTICE)


def test_a_folder_of_other_things_such_as_a_data_set_is_left_alone(trained, tmp_path, capsys):
    (tmp_path / "set/train").mkdir(parents=True)
    assert call("--workdir", trained, "--out", tmp_path / "set", "--split", "test") == 2
    assert "holds other files, such as 'train'" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["train"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--method=gradcm",), "got 'gradcm'; did you mean gradcam?"),
        (("--layer=",), "--layer: expected a value"),
        (("--layer=backbone/alexnet/conv6",), "such as backbone/alexnet/conv"),
        (("--method=gradcam,score_cam", f"--layer={LAYER}"), "score_cam has no layer to choose"),
    ],
)
def test_unknown_names_are_one_sentence_with_the_choices_and_nothing_is_written(
    arguments, said, trained, tmp_path, capsys
):
    before = sorted(trained.rglob("*"))
    out = tmp_path / "maps"
    where = ("--workdir", trained, "--split", "test", "--limit", 3, "--faithfulness")
    for target in ((), ("--out", out)):
        assert call(*where, *target, *arguments) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "expected" in error
        assert len(error.strip().splitlines()) == 1
    assert not out.exists()
    assert sorted(trained.rglob("*")) == before


def test_explanations_are_compiled_so_that_many_branches_do_not_wait_for_each_other(
    trained, monkeypatch
):
    """Ordered for concurrency, seven methods stopped for good within a few hundred batches."""
    asked, options = [], compiler_options
    monkeypatch.setattr(
        "msa_flax.run.compiler_options", lambda **given: asked.append(given) or options(**given)
    )
    restore(trained).explain(np.zeros((2, 64, 64), np.uint8))
    assert asked == [{"many_branches": True}]
    monkeypatch.setattr("jax.default_backend", lambda: "cpu")
    assert options(many_branches=True).items() > options().items()


def test_an_unknown_method_ends_the_process_with_two(trained, tmp_path):
    done = command(
        "--workdir", trained, "--split", "test", "--method", "cam", "--out", tmp_path / "no"
    )
    assert done.returncode == 2
    assert all(name in done.stderr for name in saliency.METHODS)
    assert done.stdout == ""
    assert not (tmp_path / "no").exists()


def test_a_bad_file_is_named_and_the_others_are_explained(trained, tmp_path, capsys):
    for i in range(3):
        write_image(tmp_path / f"{i}.png", seed=i, size=64)
    (tmp_path / "slice.dcm").write_bytes(bytes(128) + b"DICM" + bytes(20))
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:-20])
    images = [tmp_path / name for name in ("0.png", "1.png", "2.png", "slice.dcm")]
    out = tmp_path / "maps"
    assert call("--workdir", trained, "--out", out, *images) == 2
    error = capsys.readouterr().err
    assert "2 of 4 files cannot be explained" in error
    assert "1.png: truncated" in error
    assert "slice.dcm: not a CT image" in error
    with (out / "explanations.csv").open(newline="") as file:
        explained = {row["example_id"] for row in csv.DictReader(file)}
    assert explained == {str(images[0]), str(images[2])}
    assert call("--workdir", trained, "--out", tmp_path / "none", images[1], images[3]) == 2
    assert "2 of 2 files cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_a_file_where_the_results_should_go_is_refused(trained, tmp_path, capsys, inside):
    (tmp_path / "file").write_text("mine")
    write_image(tmp_path / "0.png", size=64)
    out = tmp_path / "file" / inside
    assert call("--workdir", trained, "--out", out, tmp_path / "0.png") == 2
    assert "--out: expected a folder, got the file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_explained_by_one_picture_each_and_probabilities_are_printed(
    trained, tmp_path, capsys
):
    for i in range(2):
        write_image(tmp_path / f"in/deep/{i}.png", seed=i)
    (tmp_path / "in/notes.txt").write_text("no image")
    where = ("--workdir", trained, "--out", tmp_path / "maps", tmp_path / "in/deep")
    assert call(*where) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{tmp_path}/in/deep/0.png: probability of 'fracture' 0.")
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert sorted(name[-4:] for name in names) == [".csv", ".png", ".png"]
    assert not [name for name in names if name.endswith(".npy")]
    assert call(*where, "--maps") == 0
    assert len(list((tmp_path / "maps").glob("*.gradcam-fracture.npy"))) == 2
    capsys.readouterr()
    assert call("--workdir", trained, "--out", tmp_path / "more", tmp_path / "in") == 2
    assert "notes.txt: not a PNG, JPEG or DICOM file" in capsys.readouterr().err
    assert len(list((tmp_path / "more").glob("*.png"))) == 2
