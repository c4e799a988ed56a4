"""What is called external is compared with the training images, recorded, and never lost."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from noisy_slices import noisy_slice, write_slices

from msa_flax import cli, evaluate
from msa_flax.config import Config, DataConfig, ModelConfig

NAMES = ("normal", "fracture")


def call(*arguments):
    arguments = ["x", *map(str, arguments)]
    return cli.call(evaluate.main, evaluate.define_flags, evaluate.__doc__, arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, untrained_run):
    """A run on 16 training and 4 test images whose names tell nothing."""
    folder = tmp_path_factory.mktemp("external")
    slices = {
        f"{part}/{NAMES[i % 2]}/{i}.png": noisy_slice(i, label=i % 2)
        for part, numbers in (("train", range(16)), ("val", range(16, 20)))
        for i in numbers
    }
    root = write_slices(folder / "set", slices)
    config = Config(
        model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
        data=DataConfig(source="folder", root=str(root), protocol="published", image_size=64),
    )
    untrained_run(folder / "run", config.validate())
    return folder / "run"


@pytest.fixture
def workdir(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("msa_flax.plots.figures.roc_and_confusion", lambda *_, **__: None)


def external(workdir, root, *more, name="hospital"):
    code = call(f"--workdir={workdir}", f"--data_root={root}", f"--external={name}", *more)
    return code, json.loads((workdir / f"eval/{name}/metrics.json").read_text())


def images_of(workdir):
    config = json.loads((workdir / "config.json").read_text())
    return pathlib.Path(config["config"]["data"]["root"])


def others(root, count=4, start=100):
    slices = {f"{NAMES[i % 2]}/{i}.png": noisy_slice(start + i, label=i % 2) for i in range(count)}
    return write_slices(root, slices)


def test_the_training_images_themselves_are_stamped_with_their_count(workdir, tmp_path):
    root = tmp_path / "hospital"
    for name in NAMES:
        shutil.copytree(images_of(workdir) / "train" / name, root / name)
    code, values = external(workdir, root)
    assert code == 0
    assert values["stamps"][-1] == (
        "16 of 16 images are training or validation images of this run or copies of them "
        "(16 pixel for pixel)"
    )
    assert values["root"] == str(root)
    assert len(values["fingerprint"]) == 64


def test_images_of_the_run_with_the_other_label_are_stamped_test_images_among_them(
    workdir, tmp_path
):
    root = others(tmp_path / "hospital")
    for part, name, other in (("train", *NAMES), ("val", *NAMES[::-1])):
        shutil.copytree(images_of(workdir) / part / name, root / other, dirs_exist_ok=True)
    _, values = external(workdir, root)
    assert values["stamps"][-1] == (
        "10 of 14 images are images of this run, pixel for pixel, with the other label; are the "
        "classes swapped?"
    )


def test_a_picture_in_both_classes_is_refused(workdir, tmp_path, capsys):
    root = others(tmp_path / "hospital")
    shutil.copy(root / "normal/0.png", root / "fracture/copy.png")
    assert call(f"--workdir={workdir}", f"--data_root={root}") == 2
    assert "1 pictures are in both classes" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--external=hospital", "--replace"])
def test_what_only_other_images_need_is_refused_without_them(workdir, flag, capsys):
    assert call(f"--workdir={workdir}", flag) == 2
    assert "expected other images with it, --data_root or --manifest" in capsys.readouterr().err


@pytest.mark.parametrize("label", [0, 1])
def test_a_set_of_one_class_is_evaluated_and_says_what_is_undefined(workdir, tmp_path, label):
    assert call(f"--workdir={workdir}", "--calibrate") == 0
    slices = {f"{NAMES[label]}/{i}.png": noisy_slice(50 + i, label=label) for i in range(3)}
    code, values = external(workdir, write_slices(tmp_path / "hospital", slices))
    assert code == 0
    assert values["n"] == 3
    undefined, defined = ("recall", "specificity")[:: 1 - 2 * label]
    assert values["metrics"][undefined]["value"] is None
    assert f"there is no {NAMES[1 - label]!r}" in values["metrics"][undefined]["reason"]
    assert "one class only" in values["metrics"]["auc"]["reason"]
    assert values["metrics"][defined]["value"] is not None
    assert values["conformal"]["coverage"][NAMES[1 - label]]["value"] is None


def test_a_set_of_a_misspelt_class_or_of_none_is_refused(workdir, tmp_path, capsys):
    slices = {"fractures/1.png": noisy_slice(50, label=1), "normal/2.png": noisy_slice(51, label=0)}
    write_slices(tmp_path / "hospital", slices)
    assert call(f"--workdir={workdir}", f"--data_root={tmp_path / 'hospital'}") == 2
    assert "unknown folder fractures/ (1 files)" in capsys.readouterr().err
    (tmp_path / "empty/normal").mkdir(parents=True)
    assert call(f"--workdir={workdir}", f"--data_root={tmp_path / 'empty'}") == 2
    assert "normal/ has no images" in capsys.readouterr().err


def test_turned_copies_under_other_names_are_found_among_others(workdir, tmp_path):
    root = others(tmp_path / "hospital")
    turned = {
        f"{NAMES[i % 2]}/copy{i}.png": np.rot90(noisy_slice(i, label=i % 2)) for i in range(3)
    }
    _, values = external(workdir, write_slices(root, turned))
    assert values["stamps"][-1].startswith("3 of 7 images are training or validation images")
    assert values["stamps"][-1].endswith("(0 pixel for pixel)")


def test_images_from_elsewhere_and_the_run_s_test_images_are_not_stamped(workdir, tmp_path):
    root = others(tmp_path / "hospital")
    shutil.copytree(images_of(workdir) / "val", root, dirs_exist_ok=True)
    _, values = external(workdir, root)
    assert values["stamps"] == ["groups unknown"]
    assert values["n"] == 8


def test_a_result_of_other_images_is_replaced_only_if_that_is_asked_for(workdir, tmp_path, capsys):
    first, second = others(tmp_path / "a"), others(tmp_path / "b", start=200)
    _, values = external(workdir, first)
    assert external(workdir, second) == (2, values)
    said = capsys.readouterr().err
    assert str(first) in said
    assert "--replace" in said
    code, again = external(workdir, first)  # the same images may be evaluated again
    assert (code, again["root"]) == (0, str(first))
    code, replaced = external(workdir, second, "--replace")
    assert (code, replaced["root"]) == (0, str(second))
    assert f"replacing the result of other images, of {first}" in capsys.readouterr().err


def test_where_the_training_images_are_gone_that_is_said(workdir, tmp_path):
    run = json.loads((workdir / "run.json").read_text())
    run["data_fingerprint"] = "0" * 64
    (workdir / "run.json").write_text(json.dumps(run))
    _, values = external(workdir, others(tmp_path / "hospital"))
    assert (
        "not compared with the training images, which are gone or were changed" in values["stamps"]
    )


@pytest.mark.parametrize("name", ["test", "test-last", "a-last", "../up", ""])
def test_a_name_that_would_be_another_result_s_is_refused(workdir, tmp_path, name):
    assert call(f"--workdir={workdir}", f"--data_root={tmp_path}", f"--external={name}") == 2
