"""DICOM files in a table of labels: who is whom stays secret, and where slices lie is read."""

import re
import shutil

import numpy as np
import pydicom
import pytest
from dicom_slices import write_slice
from image_folders import write_image
from pydicom.data import get_testdata_file

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.manifest import list_manifest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))


def write(folder, header="path,label", more=lambda k, i: "", patients=3):
    """Three patients of four slices each, the highest slice first."""
    rows = []
    for k in range(patients):
        for i in range(4):
            image = np.random.default_rng([k, i]).integers(0, 256, (40, 40), np.uint8)
            write_slice(folder / f"{k}/{i}", image, patient=f"Ada {k}", position=-2.5 * i)
            rows.append(f"{k}/{i},{i % 2}{more(k, i)}\n")
    path = folder / "t.csv"
    path.write_text(f"{header}\n" + "".join(rows))
    return path


def config(path, **options):
    return DataConfig(source="manifest", manifest=str(path), image_size=40, **options)


def test_a_file_tells_patient_study_and_place_and_no_identifier(tmp_path):
    path = write(tmp_path)
    files = list_manifest(path, config(path)).files
    assert len({file.group for file in files}) == len({file.study for file in files}) == 3
    for file in files:
        k, i = map(int, file.example_id.split("/"))
        assert re.fullmatch("[0-9a-f]{16}", file.group)
        assert file.group == files[4 * k].group
        assert file.study not in ("", file.group)
        assert file.family == ""
        assert file.slice_index == 3 - i
    assert [f.group for f in list_manifest(path, config(path)).files] == [f.group for f in files]


def test_what_the_table_says_counts_unless_it_is_an_identifier(tmp_path):
    write(tmp_path)
    study = pydicom.dcmread(tmp_path / "1/0").StudyInstanceUID

    def more(k, i):
        return (",A,CT 1,f,7", f",Ada 1,{study},,", ",,,,")[k]

    path = write(tmp_path, "path,label,group,study,family,slice_index", more)
    files = list_manifest(path, config(path)).files
    first, second, third = files[::4]
    assert (first.group, first.study, first.family) == ("A", "CT 1", "f")
    assert first.slice_index == 7
    for file in (second, third):
        assert re.fullmatch("[0-9a-f]{16}", file.group)
        assert re.fullmatch("[0-9a-f]{16}", file.study)
        assert file.slice_index == 3


def test_slices_are_read_through_the_window_beside_other_images(tmp_path):
    path = write(tmp_path)
    write_image(tmp_path / "x.png", seed=5)
    path.write_text(path.read_text() + "x.png,1\n")
    examples = data.load(config(path))
    assert len(examples) == 13
    image = np.random.default_rng([0, 0]).integers(0, 256, (40, 40), np.uint8)
    # Stored in whole Hounsfield units, of which a grey value spans seven: rounding moves it by one.
    assert np.abs(examples.images[0].astype(int) - image).max() <= 1
    assert examples.group[-1] == ""
    wider = data.load(config(path, window_width=3600.0))
    assert wider.images[:12].std() < 0.6 * examples.images[:12].std()


def test_files_that_are_no_slices_are_bad_files_with_their_reason(tmp_path):
    path = write(tmp_path)
    for name, label in (("eCT_Supplemental.dcm", 1), ("CT_small.dcm", 0)):
        shutil.copy(get_testdata_file(name, download=False), tmp_path / name)
        path.write_text(path.read_text() + f"{name},{label}\n")
    listing = list_manifest(path, config(path))
    ((name, reason),) = listing.bad_files
    assert name == "eCT_Supplemental.dcm"
    assert "PERFUSION" in reason
    with pytest.raises(data.DataError, match="1 of 14 files cannot be used: eCT_Supplemental"):
        data.load(config(path))
    assert len(data.load(config(path, on_bad_file="skip"))) == 13
    assert data.inspect(listing).bad_files == listing.bad_files
