import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from image_folders import write_data_set

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.examples import Examples


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    return DataConfig(root=str(write_data_set(tmp_path / "set")), image_size=32)


def same(a, b):
    names = [field.name for field in dataclasses.fields(a)]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def arrays(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*.npy"))


def test_images_are_kept_in_a_file_for_each_size_and_not_decoded_again(
    config, tmp_path, monkeypatch
):
    first = data.load(config)
    assert isinstance(first.images, np.memmap)
    assert first.images.shape == (8, 32, 32)
    assert data.load(config, for_search=True).images.shape == (8, 224, 224)
    config.equalize = "histogram"
    data.load(config)
    assert arrays(tmp_path) == ["32-histogram.npy", "32-none.npy", "search.npy"]
    config.equalize = "none"
    monkeypatch.setattr("msa_flax.data.copies.decode", lambda *_: pytest.fail("decoded again"))
    assert data.load(config).fingerprint == first.fingerprint


DAMAGES = [
    "a pixel",
    "the end",
    "another shape",
    "no table",
    "a column",
    "the table's end",
    "a name",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_what_was_written_is_written_again(config, tmp_path, damage, caplog):
    first = data.load(config).take(range(8))  # a copy, since the file will be damaged
    (path,) = (tmp_path / "cache").rglob("32-none.npy")
    table = path.with_suffix(".npz")
    content, columns = bytearray(path.read_bytes()), dict(np.load(table))
    if damage == "a pixel":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "the end":
        path.write_bytes(content[:-1])
    elif damage == "another shape":
        np.save(path, np.zeros((2, 2), np.uint8))
    elif damage == "no table":
        table.unlink()
    elif damage == "a column":
        del columns["group"]
        np.savez(table, **columns)
    elif damage == "the table's end":
        table.write_bytes(table.read_bytes()[:-30])
    else:
        columns["example_id"][0] = "another"
        np.savez(table, **columns)
    assert same(data.load(config), first)
    assert "is not what this version of msa_flax has written, and is written again" in caplog.text
    caplog.clear()
    assert same(data.load(config), first)
    assert not caplog.text


def test_a_later_start_does_without_tensorflow(config):
    first = data.load(config)
    code = (
        "import sys; from msa_flax import config, data; "
        f"print(data.load(config.DataConfig(**{dataclasses.asdict(config)!r})).fingerprint, "
        "'tensorflow' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.split() == [first.fingerprint, "False"]


@pytest.mark.parametrize("skip", [True, False])
def test_what_was_left_out_is_remembered_and_refused_as_configured(config, tmp_path, skip):
    (tmp_path / "set/val/normal/empty.png").write_bytes(b"")
    config.on_bad_file = "skip"
    first = data.load(config)
    if skip:
        assert same(data.load(config), first)
        assert first.bad_files == (("val/normal/empty.png", "empty file"),)
    else:
        config.on_bad_file = "error"
        with pytest.raises(
            data.DataError, match=r"1 of 9 files cannot be used: .*empty\.png: empty"
        ):
            data.load(config)


def test_the_masks_of_the_phantom_are_kept_beside_its_images(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    config = DataConfig(source="phantom", protocol="kfold", phantom_patients=10, image_size=32)
    examples: Examples = data.load(config)
    assert arrays(tmp_path) == ["32-none-masks.npy", "32-none.npy"]
    assert set(np.unique(examples.masks)) == {0, 1}
    assert (examples.masks.any(axis=(1, 2)) <= (examples.label == 1)).all()
    assert same(data.load(config), examples)
    (masks,) = (tmp_path / "cache").rglob("*-masks.npy")
    masks.unlink()
    assert same(data.load(config), examples)  # written again
