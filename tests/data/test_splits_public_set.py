import resource
import time

import numpy as np
import pytest

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data import DataError
from msa_flax.data.leakage import check_contradictions, check_leakage, find_stamps
from msa_flax.data.splits import assign_splits

_loaded = {}


@pytest.fixture
def public_set(realdata):
    """The public data set, loaded once for all tests; seconds from the prepared copy; KiB."""
    if not _loaded:
        from msa_flax.data import tfds  # noqa: F401  TensorFlow's own memory is not counted

        options = DataConfig(root=str(realdata / "data/spine-fracture-ct"))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data.load(options)
        began = time.perf_counter()
        examples = data.load(options)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        _loaded["set"] = examples, time.perf_counter() - began, grown
    return _loaded["set"]


@pytest.mark.realdata
def test_the_public_data_set_is_what_the_papers_say(public_set):
    examples, seconds, grown = public_set
    assert len(examples) == 4200
    assert examples.bad_files == ()
    for part, number in (("train", 1900), ("val", 200)):
        assert np.bincount(examples.label[examples.part == part]).tolist() == [number, number]
    assert len(set(examples.family)) == 199
    assert set(examples.group) == {"B10", "B11", "B12", "B13"}
    assert set(zip(examples.height.tolist(), examples.width.tolist(), strict=True)) == {
        (224, 224),
        (512, 512),
    }
    assert (examples.height == 512).sum() == 200
    assert ((examples.slice_index <= 77) == (examples.label == 1)).all()
    assert seconds < 60  # 7 s measured on two idle cores
    assert grown < 2**20  # KiB, so less than 1 GiB; 0.6 GiB measured, 0.2 GiB of it pixels


@pytest.mark.realdata
def test_the_published_split_of_the_public_data_set_leaks(public_set):
    examples, *_ = public_set
    splits = assign_splits(examples, DataConfig(), seed=0)
    assert splits.counts(examples.label) == {
        "train": (1520, 1520),
        "validation": (380, 380),
        "test": (200, 200),
    }
    assert find_stamps(examples, splits) == ["copies cross the split", "series cross the split"]
    with pytest.raises(DataError, match=r"all 760 validation .*, 22 of 400 test"):
        check_leakage(examples, splits, allow=False)
    check_contradictions(examples)


@pytest.mark.realdata
@pytest.mark.parametrize("seed", range(5))
def test_whole_families_of_the_public_data_set_do_not_leak(public_set, seed):
    examples, *_ = public_set
    splits = assign_splits(examples, DataConfig(protocol="family"), seed=seed)
    # Families have 21 images (one has 42). 20 of them lie in val/, two with 11 images only; of the
    # other 90 a class 18 are validation: 0.2 * 1890 images, to which whole families come exactly.
    assert splits.counts(examples.label) == {
        "train": (1512, 1512),
        "validation": (378, 378),
        "test": (210, 210),
    }
    for name in np.unique(examples.family):
        assert len(set(splits.split[examples.family == name])) == 1
    assert set(splits.split[examples.part == "val"]) == {"test"}
    assert find_stamps(examples, splits) == ["series cross the split"]
    check_leakage(examples, splits, allow=False)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("group", "fracture", "normal"),
    [("B10", 10, 34), ("B11", 7, 48), ("B12", 75, 18), ("B13", 8, 0)],
)
def test_each_series_of_the_public_data_set_can_be_held_out(public_set, group, fracture, normal):
    examples, *_ = public_set
    splits = assign_splits(examples, DataConfig(protocol="grouped", holdout_group=group), seed=0)
    assert splits.counts(examples.label)["test"] == (21 * normal, 21 * fracture)
    check_leakage(examples, splits, allow=False)
    assert find_stamps(examples, splits) == ["series cross the split"]
