"""Tools that judge DICOM results, where they are installed, and a made-up model and series."""

import shutil
import subprocess

import pytest

from msa_flax.archive.origin import Instance, Origin

ABOUT = {
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "StudyID": "7",
    "AccessionNumber": "A-77",
    "PatientBirthDate": "19430517",
    "PatientSex": "F",
    "ReferringPhysicianName": "Doe^Jane",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.77",
}


def origin_of(ds, count=3, **more):
    """A made-up model, and a series of some images whose header is a data set."""
    given = {
        "header": ds,
        "series_uid": str(ds.SeriesInstanceUID),
        "instances": [Instance(str(ds.SOPClassUID), f"1.2.3.{i}") for i in range(count)],
        "model": "small (lenet_alexnet)",
        "version": "0.1.0",
        "fingerprint": "ab" * 32,
        "settings": "settings",
        "remarks": ["Research use only", "threshold 0.25"],
    }
    return Origin(**given | more)


def errors_of(path):
    """The errors that dicom3tools finds in a file; the test skips where it is not installed."""
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy of dicom3tools is not installed")
    command = ["dciodvfy", "-new", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("latin-1").splitlines()
    assert lines, "it says at least what kind of object it is"
    return [line for line in lines if line.startswith("Error")]


def dump_of(path):
    """A report as dcmtk prints it; the test skips where it is not installed."""
    if not shutil.which("dsrdump"):
        pytest.skip("dsrdump of dcmtk is not installed")
    command = ["dsrdump", "+Pl", str(path)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode("latin-1")
