import os

import numpy as np
import pytest
from image_files import encoded, picture

from msa_flax.config import DataConfig
from msa_flax.prediction.inputs import PredictionError, find_inputs, prepare_slice

DATA = DataConfig(image_size=32)


def write(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture()) if data is None else data)
    return path


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("in/b/2.png", "in/b/10.png", "in/a/x.png", "in/.hidden/y.png"):
        write(tmp_path / name)
    write(tmp_path / "in/a/deep/z.jpg", encoded(picture(), "JPEG"))
    write(tmp_path / "in/notes.txt", b"hello")
    write(tmp_path / "in/empty.png", b"")
    return tmp_path / "in"


def test_a_tree_is_found_by_folders_in_natural_order(tree):
    found = find_inputs(["in"], DATA)
    assert [one.path for one in found.slices] == [
        *("in/a/x.png", "in/a/deep/z.jpg", "in/b/2.png", "in/b/10.png")
    ]
    assert [one.series for one in found.slices] == ["in/a", "in/a/deep", "in/b", "in/b"]
    assert found.refused == [
        ("in/empty.png", "empty file"),
        ("in/notes.txt", "not a PNG, JPEG or DICOM file"),
    ]


def test_what_is_named_twice_counts_once_and_a_folder_may_be_left_out(tree):
    found = find_inputs(["in/b/2.png", "in", "./in/a/../a/x.png"], DATA, leave_out=[tree / "a"])
    assert [one.path for one in found.slices] == ["in/a/x.png", "in/b/2.png", "in/b/10.png"]
    assert find_inputs(["in"], DATA, leave_out=[tree / "a"]).slices[0].path == "in/b/2.png"


def test_the_fingerprint_changes_with_a_name_and_with_a_file(tree):
    before = find_inputs(["in"], DATA).fingerprint
    assert find_inputs(["in"], DATA).fingerprint == before
    os.utime(tree / "a/x.png", ns=(1, 1))
    changed = find_inputs(["in"], DATA).fingerprint
    (tree / "a/x.png").rename(tree / "a/y.png")
    assert len({before, changed, find_inputs(["in"], DATA).fingerprint}) == 3


def test_what_is_not_there_is_named(tree):
    with pytest.raises(PredictionError, match=r"not there: in/none, no\\n"):
        find_inputs(["in", "in/none", "no\n"], DATA)


def test_links_in_a_circle_end(tree):
    (tree / "a/loop").symlink_to(tree)
    assert len(find_inputs(["in"], DATA).slices) == 4


def test_pipes_and_devices_are_refused_and_not_waited_for(tree):
    os.mkfifo(tree / "pipe.png")
    (tree / "zero.png").symlink_to("/dev/zero")
    odd = [(f"in/{name}.png", "no file: a pipe, a socket or a device") for name in ("pipe", "zero")]
    assert set(odd) <= {*find_inputs(["in"], DATA).refused}
    assert find_inputs(["in/pipe.png"], DATA).refused == odd[:1]


def test_a_slice_is_prepared_as_the_network_takes_it_or_refused_with_the_reason(tree):
    slices = {one.path: one for one in find_inputs(["in"], DATA).slices}
    image = prepare_slice(slices["in/a/x.png"], DATA)
    assert (image.dtype, image.shape) == (np.uint8, (32, 32))
    (tree / "a/x.png").write_bytes(encoded(picture())[:-20])
    assert "truncated" in prepare_slice(slices["in/a/x.png"], DATA)
    (tree / "a/x.png").unlink()
    assert "cannot be read" in prepare_slice(slices["in/a/x.png"], DATA)
