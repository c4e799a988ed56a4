"""The prepared phantom is what was drawn, in every size."""

import numpy as np
import pytest

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.copies import prepare
from msa_flax.data.images import preprocess
from msa_flax.data.phantom import draw_patient, draw_slice
from msa_flax.data.tfds import phantom_builder


def config(**options):
    chosen = {"image_size": 32, "phantom_patients": 10, "phantom_seed": 2} | options
    return DataConfig(source="phantom", protocol="kfold", **chosen)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """A cache of these tests, so that the phantom is drawn once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MSA_FLAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_drawings_are_stored_in_order(tmp_path):
    builder = phantom_builder(config(phantom_patients=2, phantom_seed=5), data_dir=tmp_path)
    prepare(builder)
    rows = list(builder.as_dataset(split="all").as_numpy_iterator())
    drawn = draw_patient(5, 0) + draw_patient(5, 1)
    assert builder.builder_config.name == "p2_s5"
    assert len(rows) == len(drawn)
    for row, s in zip(rows, drawn, strict=True):
        assert row["example_id"].decode() == f"phantom/{s.patient}/{s.slice_index:02d}"
        assert row["family"] == row["example_id"]
        assert row["group"].decode() == s.patient
        assert (row["label"], row["slice_index"]) == (s.label, s.slice_index)
        assert (row["height"], row["width"], 1) == row["image"].shape
        assert np.array_equal(row["image"][..., 0], s.image)
        assert np.array_equal(row["mask"][..., 0], s.mask)


def test_the_phantom_is_loaded_quietly_with_masks_and_patients(capfd):
    examples = data.load(config(image_size=64))
    assert capfd.readouterr() == ("", "")
    assert examples.images.shape == examples.masks.shape == (80, 64, 64)
    assert examples.groups_known
    assert len(set(examples.group)) == 10
    assert len(set(examples.family)) == 80
    assert set(examples.part) == {""}
    assert np.array_equal(examples.masks.any((1, 2)), examples.label == 1)
    assert data.load(config(image_size=64)).fingerprint == examples.fingerprint


def test_other_patients_and_another_seed_are_other_data_sets(tmp_path):
    options = [config(), config(phantom_patients=11), config(phantom_seed=3)]
    paths = {phantom_builder(one, data_dir=tmp_path).data_path for one in options}
    assert len(paths) == len(options)


def test_images_are_equalised_and_masks_are_not():
    plain, equalised = data.load(config()), data.load(config(equalize="histogram"))
    row = equalised.example_id.tolist().index("phantom/P0000/03")
    expected = preprocess(draw_slice(2, 0, 3).image, size=32, equalize="histogram")
    assert np.array_equal(equalised.images[row], expected)
    assert not np.array_equal(plain.images[row], expected)
    assert np.array_equal(plain.masks, equalised.masks)
