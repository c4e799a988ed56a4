"""DICOM slices go wherever PNG files go: class folders, copies, audits and paths."""

import shutil

import numpy as np
import pytest
from public_dicom import dataset, public, saved

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.dicom import read_header, windowed
from msa_flax.data.folder import list_folder, read
from msa_flax.data.images import ImageError, decode, preprocess, read_image

NAMES = ("a.dcm", "b.DICOM", "c.ima", "d", "1.2.840.113619.5", "IM 7")
WINDOW = {"window_centre": 50.0, "window_width": 400.0}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "set"
    for part in ("train", "val"):
        for label in ("normal", "fracture"):
            (root / part / label).mkdir(parents=True)
            for i, name in enumerate(NAMES):
                ds = dataset(SOPInstanceUID=f"1.2.{i}", RescaleIntercept=-1024 + 10 * i)
                (root / part / label / name).write_bytes(saved(ds))
    return root


def expected(path, **options):
    config = DataConfig(**options)
    window = {"centre": config.window_centre, "width": config.window_width}
    return preprocess(windowed(read_header(path)[0], **window), size=64)


@pytest.mark.parametrize("options", [{}, WINDOW], ids=["bone", "soft"])
def test_class_folders_of_dicom_files_are_read_with_the_window(root, options):
    config = DataConfig(root=str(root), image_size=64, allow_leakage=True, **options)
    examples = data.load(config)
    assert len(examples) == 4 * len(NAMES)
    for name, image in zip(examples.example_id, examples.images, strict=True):
        assert np.array_equal(image, expected(root / name, **options))
    outside = data.load_external(root, config)
    assert np.array_equal(outside.images, examples.images)


def test_another_window_is_another_copy(root):
    config = DataConfig(root=str(root), image_size=64)
    one = data.load(config)
    other = data.load(DataConfig(root=str(root), image_size=64, **WINDOW))
    assert (one.images != other.images).any()
    assert np.array_equal(data.load(config).images, one.images)


def test_paths_of_files_are_read_like_folders(root):
    names = [str(root / "val/normal" / name) for name in NAMES]
    examples = data.load_files(names, DataConfig(image_size=64, **WINDOW))
    found = dict(zip(examples.example_id.tolist(), examples.images, strict=True))
    assert all(np.array_equal(found[name], expected(name, **WINDOW)) for name in names)


def test_an_audit_has_facts_about_dicom_files(root):
    examples = data.inspect(list_folder(root, DataConfig(), layout="any"))
    assert len(examples) == 4 * len(NAMES)
    assert set(examples.facts["channels"]) == {1}
    size = (root / "train/normal/a.dcm").stat().st_size
    metadata = examples.facts["metadata"][examples.example_id.tolist().index("train/normal/a.dcm")]
    assert size - 40_000 < metadata < size - 128 * 128 * 2 + 12


def test_files_that_are_no_slices_are_named_with_their_reason(root):
    place = root / "train/normal"
    shutil.copy(public("MR_small.dcm"), place / "mr.dcm")
    shutil.copy(public("eCT_Supplemental.dcm"), place / "perfusion.dcm")
    shutil.copy(public("dicomdirtests/98892001/CT5N/2062"), place / "tiny")
    shutil.copy(public("DICOMDIR"), place / "DICOMDIR")
    (place / "text.dcm").write_text("not an image")
    (place / "README").write_text("not an image")
    listing = list_folder(root, DataConfig(), layout="parts")
    bad = read(listing, lambda image: preprocess(image, size=32)).bad_files
    assert {name.rpartition("/")[2]: reason for name, reason in bad} == {
        "README": "wrong extension, expected .png, .jpg, .jpeg, .dcm, .dicom, .ima",
        "mr.dcm": "not a CT image: MR Image Storage",
        "perfusion.dcm": "not a CT slice: its image type is PERFUSION",
        "text.dcm": "not a PNG, JPEG or DICOM image",
        "tiny": "16 x 16 pixels, expected 32 or more a side",
    }


def test_the_tilt_of_the_configuration_is_the_limit():
    path = public("J2K_pixelrep_mismatch.dcm")
    assert read_image(path).shape == (512, 512)
    with pytest.raises(ImageError, match="not axial: tilted by 22 degrees, at most 10 are read"):
        read_image(path, DataConfig(max_tilt=10))


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_the_name_of_another_image_is_refused(name):
    with pytest.raises(ImageError, match="wrong extension: a DICOM image named"):
        decode(saved(dataset()), name)
