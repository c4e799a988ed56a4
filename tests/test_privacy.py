"""Names and numbers of patients: only in DICOM objects, which return to the archive."""

import re

import pytest
from commands import call
from dicom_files import ct_slice, write
from tiny_training import tiny_config

from msa_flax.data.phantom import draw_slice
from msa_flax.evaluation import Predictions

NAME, NUMBER = "Quillfeather^Zebulon", "ZX-99887766"
ABOUT = {"PatientSex": "M", "PatientAge": "083Y", "PatientBirthDate": "19430517"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A table of labels to train with, and a series to predict; every file names its patient."""
    root = tmp_path_factory.mktemp("dicom")
    table = ["path,label"]
    for patient in range(12):
        for i in range(2):
            for label, kind in enumerate(("normal", "fracture")):
                image = draw_slice(0, patient, 2 * i + label, fractured=bool(label)).image
                path = root / f"train/{patient}-{i}{label}.dcm"
                table.append(f"{path.name},{kind}")
                path.parent.mkdir(parents=True, exist_ok=True)
                about = {"patient": f"{NUMBER}{patient}", "name": NAME, "study": str(patient)}
                write(path, ct_slice(image, position=4.0 * i + 2 * label, **about, **ABOUT))
    (root / "train/labels.csv").write_text("\n".join(table))
    (root / "new").mkdir()
    for i in range(4):
        about = {"patient": NUMBER, "name": NAME, "position": 2.0 * i}
        write(root / f"new/{i}.dcm", ct_slice(draw_slice(0, 50, i).image, **about, **ABOUT))
    return root


def test_no_artefact_names_a_patient(folders, tmp_path, capsys):
    from msa_flax.results.training import train_run

    table = str(folders / "train/labels.csv")
    config = tiny_config(source="manifest", manifest=table, protocol="kfold", folds=3)
    workdir, out, results = (tmp_path / name for name in ("run", "out", "results"))
    train_run(workdir, config.validate())
    assert call("evaluate", "--workdir", workdir, "--calibrate") == 0
    group = Predictions.read(workdir / "eval/test/predictions.csv").group
    assert len(set(group)) == 4  # of twelve patients; pseudonyms
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in group)
    given = ("--workdir", workdir, "--out", out, "--dicom_out", results)
    assert call("predict", *given, folders / "new") == 0
    assert call("report", "--workdir", workdir) == 0
    said = capsys.readouterr()
    artefacts = [path for path in tmp_path.rglob("*") if path.is_file()]
    # These go back to the archive, which knows a study by its patient.
    objects = [path for path in artefacts if path.suffix == ".dcm"]
    assert objects
    assert all(path.parent.parent == results for path in objects)
    assert all(NUMBER.encode() in path.read_bytes() for path in objects)
    artefacts = [path for path in artefacts if path not in objects]
    assert {"slices.csv", "report.html", "predictions.csv", "train.log"} <= {
        path.name for path in artefacts
    }
    for word in ("Quillfeather", "Zebulon", NUMBER, "083Y", "19430517"):
        assert word.encode() in (folders / "new/0.dcm").read_bytes()
        named = [path for path in artefacts if word.encode() in path.read_bytes()]
        assert named == []
        assert word not in said.out + said.err + "".join(map(str, objects))
    # Whoever asks for identifiers gets them, and nothing but them.
    own = tmp_path / "own"
    assert (
        call("predict", "--workdir", workdir, "--out", own, "--identifiers", folders / "new") == 0
    )
    assert NUMBER in (own / "slices.csv").read_text()
    assert "Zebulon" not in "".join(path.read_text() for path in own.glob("*.csv"))
