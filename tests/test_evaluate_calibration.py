"""evaluate --calibrate as a user runs it: fitted on validation, stored, used, and nothing else."""

import csv
import json
import shutil
import signal

import pytest

from msa_flax import cli, evaluate, run
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.evaluation.metrics import confusion
from msa_flax.evaluation.predictions import Predictions
from msa_flax.results.scores import evaluate_split
from msa_flax.run import restore
from msa_flax.training.checkpoint import Checkpoints

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
).validate()


def call(module, *arguments):
    return cli.call(module.main, module.define_flags, module.__doc__, ["x", *map(str, arguments)])


def metrics(workdir, split="test"):
    return json.loads((workdir / f"eval/{split}/metrics.json").read_text())


def as_it_is(workdir, split="test"):
    """What the network alone says: the predictions, and the metrics without the new sections."""
    values = metrics(workdir, split)
    for name in ("seconds", "calibration", "conformal"):
        values.pop(name, None)
    return (workdir / f"eval/{split}/predictions.csv").read_bytes(), values


@pytest.fixture(scope="module")
def trained(tmp_path_factory, untrained_run):
    """An untrained run with its two evaluations."""
    workdir = tmp_path_factory.mktemp("runs") / "phantom"
    untrained_run(workdir, CONFIG)
    for split in ("validation", "test"):
        evaluate_split(restore(workdir), split)
    return workdir


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msa_flax.plots.figures.roc_and_confusion", lambda *_, **__: None)
        yield


@pytest.fixture(scope="module")
def calibrated(trained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("calibrated") / "phantom"
    shutil.copytree(trained, workdir)
    assert call(evaluate, f"--workdir={workdir}", "--calibrate") == 0
    return workdir


@pytest.fixture
def workdir(calibrated, tmp_path):
    return shutil.copytree(calibrated, tmp_path / "run")


def stored(workdir, which="best"):
    return workdir / "checkpoints" / f"calibration-{which}.json"


def test_without_a_stored_calibration_nothing_is_added(trained):
    assert not {"calibration", "conformal"} & set(metrics(trained))
    assert not list(trained.rglob("calibrat*"))


def test_what_the_network_says_stays_as_it_was(trained, calibrated):
    for split in ("validation", "test"):
        assert as_it_is(calibrated, split) == as_it_is(trained, split)


def test_calibration_is_stored_with_what_it_belongs_to_and_orbax_does_not_mind(trained, calibrated):
    values = json.loads(stored(calibrated).read_text())
    run = json.loads((calibrated / "run.json").read_text())
    assert values["data_fingerprint"] == run["data_fingerprint"]
    assert values["images"]["all"] == metrics(calibrated, "validation")["n"]
    assert values["groups"]["all"] == metrics(calibrated, "validation")["groups"]
    for which in ("best", "last"):
        steps = [
            Checkpoints(folder, read_only=True)._managers[which].all_steps()
            for folder in (trained, calibrated)
        ]
        assert steps[0] == steps[1] != []
    assert values["step"] in Checkpoints(calibrated, read_only=True)._managers["best"].all_steps()
    assert len(list((calibrated / "checkpoints").iterdir())) == 3


def test_test_images_are_calibrated_and_validation_images_are_not(calibrated):
    values = metrics(calibrated)
    assert set(values["calibration"]) == {
        *("fitted_on", "uncalibrated", "temperature", "isotonic", "venn_abers")
    }
    assert values["conformal"]["alpha"] == 0.1
    assert values["conformal"]["guarantee"] is False
    assert "chosen by its loss on the validation images" in values["conformal"]["reason"]
    assert "images of one group are alike" in values["conformal"]["reason"]
    with (calibrated / "eval/test/calibrated.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == values["n"]
    share = sum(row["set"] in ("both", "neither") for row in rows) / len(rows)
    assert values["conformal"]["abstained"]["value"] == pytest.approx(share)
    assert not (calibrated / "eval/validation/calibrated.csv").exists()
    for name in ("calibration", "conformal"):
        assert "would be optimistic" in metrics(calibrated, "validation")[name]["reason"]


def test_a_later_evaluation_uses_what_is_stored_and_prints_it(workdir, capsys):
    before = metrics(workdir)
    assert call(evaluate, f"--workdir={workdir}") == 0
    printed = capsys.readouterr()
    assert "test: ECE " in printed.out
    assert "abstaining on" in printed.out
    after = metrics(workdir)
    assert {**after, "seconds": 0} == {**before, "seconds": 0}
    assert call(evaluate, f"--workdir={workdir}", "--conformal_alpha=0.3") == 0
    wider = metrics(workdir)["conformal"]
    assert wider["alpha"] == 0.3
    assert (
        wider["coverage"]["overall"]["value"] <= after["conformal"]["coverage"]["overall"]["value"]
    )
    assert call(evaluate, f"--workdir={workdir}", "--split=train") == 0
    assert "was trained on these images" in metrics(workdir, "train")["conformal"]["reason"]
    assert call(evaluate, f"--workdir={workdir}", "--split=validation") == 0
    assert "optimistic" in metrics(workdir, "validation")["conformal"]["reason"]


def test_labels_of_other_splits_do_not_matter_to_what_is_fitted(workdir, monkeypatch):
    real = run.read_data
    before = stored(workdir).read_bytes()

    def other_labels(split):
        def read_data(*arguments):
            data = real(*arguments)
            rows = data.splits.indices(split)
            data.examples.label[rows] = 1 - data.examples.label[rows]
            return data

        return read_data

    for split, same in (("test", True), ("train", True), ("validation", False)):
        stored(workdir).unlink()
        monkeypatch.setattr(run, "read_data", other_labels(split))
        assert call(evaluate, f"--workdir={workdir}", "--calibrate", "--split=validation") == 0
        assert (stored(workdir).read_bytes() == before) is same


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"step": ', '"step": 1'), "this is step"),
        (lambda text: text[:100], "expected a stored calibration"),
    ],
)
def test_a_calibration_that_does_not_belong_is_not_used_and_that_is_said(
    change, said, workdir, capsys
):
    stored(workdir).write_text(change(stored(workdir).read_text()))
    assert call(evaluate, f"--workdir={workdir}") == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if "not used" in line]
    assert len(warned) == 1
    assert said in warned[0]
    assert "--calibrate" in warned[0]
    assert not (workdir / "eval/test/calibrated.csv").exists()
    assert said in metrics(workdir)["calibration"]["reason"]
    assert as_it_is(workdir)[1]["metrics"]


def test_the_last_checkpoint_has_a_calibration_of_its_own(workdir):
    before = stored(workdir).read_bytes()
    arguments = (f"--workdir={workdir}", "--checkpoint=last", "--calibrate")
    assert call(evaluate, *arguments) == 0
    assert json.loads(stored(workdir, "last").read_text())["checkpoint"] == "last"
    assert stored(workdir).read_bytes() == before
    reason = metrics(workdir, "test-last")["conformal"]["reason"]
    assert "validation images are of" in reason
    assert "chosen" not in reason


def test_other_images_are_calibrated_without_a_guarantee(workdir, tmp_path):
    cv2 = pytest.importorskip("cv2")
    np = pytest.importorskip("numpy")
    rng = np.random.default_rng(0)
    for name in ("fracture", "normal"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            image = rng.integers(0, 255, (40, 40), dtype=np.uint8)
            assert cv2.imwrite(str(tmp_path / "set" / name / f"{name}{i}.png"), image)
    stored(workdir).unlink()
    assert call(evaluate, f"--workdir={workdir}", f"--data_root={tmp_path / 'set'}") == 0
    assert "conformal" not in metrics(workdir, "external")
    arguments = (f"--workdir={workdir}", f"--data_root={tmp_path / 'set'}", "--calibrate")
    assert call(evaluate, *arguments) == 0
    found = metrics(workdir, "external")["conformal"]
    assert not found["guarantee"]
    assert "groups unknown; these images come from elsewhere" in found["reason"]
    assert (workdir / "eval/external/calibrated.csv").exists()
    assert found["coverage"]["overall"]["method"] in ("wilson", "none")


# --- the threshold for a wanted sensitivity -------------------------------------------------------

WANTED = 0.2  # few patients of the phantom are in the validation split; they allow no more


def stored_threshold(workdir):
    return json.loads(stored(workdir).read_text())["operating_point"]["threshold"]


@pytest.fixture(scope="module")
def sensitive(calibrated, tmp_path_factory):
    """The calibrated run with an operating point; its test split was evaluated by one call."""
    workdir = tmp_path_factory.mktemp("sensitive") / "phantom"
    shutil.copytree(calibrated, workdir)
    assert call(evaluate, f"--workdir={workdir}", "--calibrate", f"--sensitivity={WANTED}") == 0
    return workdir


def test_an_operating_point_is_stored_beside_what_was_stored_before(calibrated, sensitive):
    before, after = (json.loads(stored(folder).read_text()) for folder in (calibrated, sensitive))
    point = after.pop("operating_point")
    assert after == before
    validation = metrics(calibrated, "validation")
    assert point["sensitivity"] == WANTED
    assert point["counted"] == "groups"
    assert point["n"] == validation["metrics"]["recall"]["groups"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_operating_point_is_the_threshold_of_the_metrics(split, calibrated, sensitive):
    before, after = metrics(calibrated, split), metrics(sensitive, split)
    assert before["threshold"] == 0.5
    assert (
        after["threshold"] == after["operating_point"]["threshold"] == stored_threshold(sensitive)
    )
    assert after["operating_point"]["chosen_on"]["split"] == "validation"
    table = Predictions.read(sensitive / f"eval/{split}/predictions.csv")
    assert after["confusion"] == confusion(table.label, table.probability, after["threshold"])
    assert after["confusion"] != before["confusion"]
    # What does not depend on a threshold stays as it was.
    for name in ("auc", "brier", "ece"):
        assert after["metrics"][name] == before["metrics"][name]
    predictions = f"eval/{split}/predictions.csv"
    assert (sensitive / predictions).read_bytes() == (calibrated / predictions).read_bytes()


def test_a_later_evaluation_uses_the_operating_point_and_says_so(sensitive, tmp_path, capsys):
    workdir = shutil.copytree(sensitive, tmp_path / "run")
    before = metrics(workdir)
    assert call(evaluate, f"--workdir={workdir}") == 0
    assert {**metrics(workdir), "seconds": 0} == {**before, "seconds": 0}
    printed = capsys.readouterr().out
    assert "test: images with a probability of 0." in printed
    assert "finds every 'fracture' image of at least 20 % of new groups" in printed
    assert "not guaranteed: the checkpoint was chosen by its loss" in printed
    # Another checkpoint knows nothing of it, and neither does this one once it is fitted again.
    assert call(evaluate, f"--workdir={workdir}", "--checkpoint=last") == 0
    assert metrics(workdir, "test-last")["threshold"] == 0.5
    assert call(evaluate, f"--workdir={workdir}", "--calibrate") == 0
    assert metrics(workdir)["threshold"] == 0.5
    assert "operating_point" not in stored(workdir).read_text()
    assert "operating_point" not in metrics(workdir)


def test_a_sensitivity_that_so_few_fractures_cannot_guarantee_is_refused(workdir, capsys):
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    assert call(evaluate, f"--workdir={workdir}", "--calibrate", "--sensitivity=0.95") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    (error,) = [line for line in lines if line.startswith("error: ")]
    assert "takes at least 59 groups with 'fracture', got " in error
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sensitivity=0.9"],
        ["--calibrate", "--level=study", "--sensitivity=0.9"],
        *(["--calibrate", f"--sensitivity={value}"] for value in ("0", "1", "-0.2", "nan", "high")),
    ],
)
def test_a_sensitivity_alone_or_that_is_no_share_is_bad_usage(arguments, trained, capsys):
    before = sorted(trained.rglob("*"))
    assert call(evaluate, f"--workdir={trained}", *arguments) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "sensitivity" in error
    assert sorted(trained.rglob("*")) == before


@pytest.mark.parametrize("alpha", ["0", "1", "-0.2", "nan", "ten"])
def test_an_alpha_that_is_no_share_is_bad_usage(alpha, trained, capsys):
    before = sorted(trained.rglob("*"))
    assert call(evaluate, f"--workdir={trained}", "--calibrate", f"--conformal_alpha={alpha}") == 2
    error = capsys.readouterr().err
    assert "conformal_alpha" in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(trained.rglob("*")) == before


def test_an_interrupt_while_results_are_written_leaves_all_of_them(workdir, monkeypatch):
    assert call(evaluate, f"--workdir={workdir}", "--split=test") == 0
    (workdir / "eval/test/metrics.json").unlink()
    write = Predictions.write

    def interrupted(self, path):
        signal.raise_signal(signal.SIGINT)
        write(self, path)

    monkeypatch.setattr(Predictions, "write", interrupted)
    assert call(evaluate, f"--workdir={workdir}", "--split=test") == 130
    table = Predictions.read(workdir / "eval/test/predictions.csv")
    assert metrics(workdir)["predictions_sha256"] == table.digest()
