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
    monkeypatch.setattr("msa_flax.data.prepared.decode", lambda *_: pytest.fail("decoded again"))
    assert data.load(config).fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", ["a pixel", "the end", "another shape", "no record"])
def test_a_file_that_is_not_what_was_written_is_written_again(config, tmp_path, damage, caplog):
    first = data.load(config).fingerprint
    (path,) = (tmp_path / "cache").rglob("32-none.npy")
    content = bytearray(path.read_bytes())
    if damage == "a pixel":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "the end":
        path.write_bytes(content[:-1])
    elif damage == "another shape":
        np.save(path, np.zeros((2, 2), np.uint8))
    else:
        path.with_suffix(".json").unlink()
    assert data.load(config).fingerprint == first
    assert "is not what was written, and is written again" in caplog.text
    caplog.clear()
    assert data.load(config).fingerprint == first
    assert not caplog.text


def test_the_masks_of_the_phantom_are_kept_beside_its_images(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    config = DataConfig(source="phantom", protocol="kfold", phantom_patients=10, image_size=32)
    examples: Examples = data.load(config)
    assert arrays(tmp_path) == ["32-none-masks.npy", "32-none.npy"]
    assert set(np.unique(examples.masks)) == {0, 1}
    assert (examples.masks.any(axis=(1, 2)) <= (examples.label == 1)).all()
    again = data.load(config)
    assert np.array_equal(again.masks, examples.masks)
