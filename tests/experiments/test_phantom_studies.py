import csv
import hashlib
import pathlib

import command_line
import numpy as np
import pydicom
import pytest
from phantom_studies import SYNTAXES, has_fracture, main

from msa_flax.config import DataConfig
from msa_flax.data.rsna import list_rsna

SMALL = ["--studies", "4", "--matrix", "64", "--boxed", "1"]


def write(folder, *more):
    assert main(["--out", str(folder), *SMALL, "--segmented", "0", *more]) == 0
    return folder


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return write(tmp_path_factory.mktemp("studies") / "rsna")


@pytest.fixture(scope="module")
def series(studies):
    """The slices of a study with a fracture, by number."""
    study = next(r["StudyInstanceUID"] for r in rows(studies / "train.csv") if r["C1"] == "1" or 1)
    files = (studies / "train_images" / study).iterdir()
    return {int(path.stem): pydicom.dcmread(path) for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(studies, tmp_path):
    assert digests(write(tmp_path / "again")) == digests(studies)
    other = digests(write(tmp_path / "other", "--seed", "1"))
    assert not set(other.values()) & {
        digest for name, digest in digests(studies).items() if "train_images" in name
    }


def test_tables_have_the_columns_of_the_challenge_and_agree(studies):
    truth = {row["StudyInstanceUID"]: row for row in rows(studies / "train.csv")}
    boxes = rows(studies / "train_bounding_boxes.csv")
    labels = rows(studies / "labels.csv")
    levels = [f"C{k}" for k in range(1, 8)]
    assert all(
        list(row) == ["StudyInstanceUID", "patient_overall", *levels] for row in truth.values()
    )
    assert list(boxes[0]) == ["StudyInstanceUID", "x", "y", "width", "height", "slice_number"]
    assert list(labels[0]) == ["path", "label", "group", "study", "family", "slice_index"]
    assert all(row["patient_overall"] == max(row[k] for k in levels) for row in truth.values())
    assert sorted(row["patient_overall"] for row in truth.values()) == ["0", "0", "1", "1"]
    broken = {(r["study"], r["slice_index"]) for r in labels if r["label"] == "fracture"}
    assert {(r["StudyInstanceUID"], r["slice_number"]) for r in boxes} == broken
    assert {study for study, _ in broken} == {
        study for study, row in truth.items() if row["patient_overall"] == "1"
    }
    files = {str(p.relative_to(studies)) for p in studies.glob("train_images/*/*.dcm")}
    assert {row["path"] for row in labels} == files


def test_boxes_and_masks_are_in_the_same_place(studies):
    for row in rows(studies / "train_bounding_boxes.csv"):
        found = np.load(studies / "masks" / f"{row['StudyInstanceUID']}.npz")
        mask = found["mask"][found["slice_number"].tolist().index(int(row["slice_number"]))]
        y, x = np.nonzero(mask)
        left, top = float(row["x"]), float(row["y"])
        assert left >= 0
        assert top >= 0
        assert left <= x.min()
        assert x.max() + 1 <= left + float(row["width"]) <= 64
        assert top <= y.min()
        assert y.max() + 1 <= top + float(row["height"]) <= 64


def test_slices_are_ct_images_in_hounsfield_units_from_head_to_chest(series):
    assert sorted(series) == list(range(1, len(series) + 1))
    places = [float(series[n].ImagePositionPatient[2]) for n in sorted(series)]
    np.testing.assert_allclose(np.diff(places), -1.0, atol=1e-6)
    first = series[1]
    assert first.SOPClassUID == pydicom.uid.CTImageStorage
    assert (first.RescaleSlope, first.RescaleIntercept, first.RescaleType) == (1, -1024, "HU")
    hu = pydicom.pixels.apply_modality_lut(first.pixel_array, first)
    assert hu.min() < -800
    assert hu.max() > 900
    assert len({ds.SOPInstanceUID for ds in series.values()}) == len(series)
    assert len({ds.SeriesInstanceUID for ds in series.values()}) == 1


@pytest.mark.parametrize("syntax", sorted(set(SYNTAXES) - {"explicit"}))
def test_compressed_slices_hold_the_same_pixels(studies, tmp_path, syntax):
    if SYNTAXES[syntax][1]:
        pytest.importorskip(SYNTAXES[syntax][1].replace("pyjpegls", "jpeg_ls"))
    arguments = [*SMALL, "--studies", "1", "--segmented", "0", "--syntax", syntax]
    assert main(["--out", str(tmp_path / "one"), *arguments]) == 0
    for path in sorted((tmp_path / "one").glob("train_images/*/*.dcm"))[:3]:
        packed = pydicom.dcmread(path)
        plain = pydicom.dcmread(studies / path.relative_to(tmp_path / "one"))
        assert packed.file_meta.TransferSyntaxUID == SYNTAXES[syntax][0]
        assert packed.SOPInstanceUID == plain.SOPInstanceUID
        np.testing.assert_array_equal(packed.pixel_array, plain.pixel_array)


def test_segmentations_lie_where_the_slices_are(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    arguments = [*SMALL, "--studies", "1", "--segmented", "1"]
    assert main(["--out", str(tmp_path / "one"), *arguments]) == 0
    image = nibabel.load(next((tmp_path / "one" / "segmentations").iterdir()))
    labels = np.asarray(image.dataobj)
    assert set(np.unique(labels)) == set(range(9))
    assert "".join(nibabel.aff2axcodes(image.affine)) == "RAS"
    slices = map(pydicom.dcmread, (tmp_path / "one").glob("train_images/*/*.dcm"))
    for ds in slices:  # the patient's coordinates in DICOM point left and back
        corner = np.array([float(v) for v in ds.ImagePositionPatient]) * (-1, -1, 1)
        voxel = np.linalg.solve(image.affine, [*corner, 1])[:3]
        np.testing.assert_allclose(voxel[:2], 63, atol=1e-3)  # written with 4 decimals, in mm
        bone = labels[::-1, ::-1, round(voxel[2])].T > 0
        hu = ds.pixel_array.astype(int) - 1024
        assert not bone.any() or np.median(hu[bone]) > 200


def test_a_table_s_layout_has_the_slices_the_labels_and_the_masks(tmp_path):
    arguments = ["--layout", "table", "--studies", "2", "--every", "5"]
    folder = write(tmp_path / "table", *arguments)
    assert sorted(p.name for p in folder.iterdir()) == ["images", "labels.csv", "masks"]
    listed = rows(folder / "labels.csv")
    assert all((folder / row["path"]).exists() for row in listed)
    numbers = [int(r["slice_index"]) for r in listed if r["group"] == listed[0]["group"]]
    assert set(np.diff(numbers)) == {5}
    assert len(numbers) == pytest.approx(
        len([*(folder / listed[0]["path"]).parent.iterdir()]) / 5, abs=1
    )


def test_a_few_slices_are_those_in_the_middle_as_they_are_in_the_whole(studies, tmp_path):
    folder = write(tmp_path / "few", "--slices", "3")
    for study in (folder / "train_images").iterdir():
        whole = studies / "train_images" / study.name
        numbers = sorted(int(path.stem) for path in study.iterdir())
        assert len(numbers) == 3
        assert sum(numbers) // 3 == pytest.approx(len([*whole.iterdir()]) / 2, abs=1)
        for path in study.iterdir():
            assert path.read_bytes() == (whole / path.name).read_bytes()


def test_at_least_half_of_the_studies_have_no_fracture():
    class Options:
        class settings:
            seed = 3

    for studies in (1, 2, 7, 40):
        Options.studies = studies
        broken = [has_fracture(Options, k) for k in range(studies)]
        assert sum(broken) == studies // 2
    assert 5 < sum(broken[::2]) < 15  # the number of a study does not tell: 20 fair coins


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--studies", "0"], "expected 1 or more"),
        (["--boxed", "2"], "expected a share from 0 to 1"),
        (["--slices", "-1"], "expected 0 (all) or more"),
        (["--step", "5"], "step: expected a number from 0.2 to 1.0"),
        (["--syntax", "zip"], "invalid choice"),
        (["--out", "."], "expected a new or empty folder"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("something").touch()
    assert command_line.call(main, ["--out", "new", "--segmented", "0", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not pathlib.Path("new").exists()


def test_the_reader_of_the_challenge_labels_the_slices_as_they_were_drawn(studies):
    listing = list_rsna(DataConfig(source="rsna2022", root=str(studies)))
    assert listing.bad_files == ()
    known = {row["path"]: row["label"] for row in rows(studies / "labels.csv")}
    found = {file.example_id: listing.classes[file.label] for file in listing.files}
    assert found.items() <= known.items()
    left_out = {known[path] for path in known.keys() - found.keys()}
    assert left_out == {"normal"}  # of studies with a fracture
    far = list_rsna(DataConfig(source="rsna2022", root=str(studies), rsna_beyond=0.5))
    assert {file.example_id for file in far.files} == known.keys()
