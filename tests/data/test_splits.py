import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msa_flax.config import Config, DataConfig
from msa_flax.data.examples import DataError, from_rows
from msa_flax.data.leakage import find_stamps
from msa_flax.data.splits import SPLITS, assign_splits


def examples_of(families, *, copies=4, val_families=(), known_groups=True, order=None):
    """Builds examples from (name, group, label) of each family, ``copies`` images each."""
    rows = []
    for name, group, label in families:
        for copy in range(copies):
            part = "val" if name in val_families else "train"
            rows.append(
                {
                    "example_id": f"{part}/{label}/{name}-{copy}.png",
                    "label": label,
                    "group": group if known_groups else "",
                    "family": name,
                    "slice_index": -1,
                    "part": part,
                    "height": 2,
                    "width": 2,
                }
            )
    images = np.zeros((len(rows), 2, 2), np.uint8)
    images.reshape(len(rows), 4)[:, :2] = np.arange(2 * len(rows)).reshape(-1, 2) % 251
    images[:, 1, 1] = np.arange(len(rows)) // 100  # no two pictures are the same
    examples = from_rows(rows, images)
    return examples if order is None else examples.take(order)


def six_groups(**options):
    """Six groups, two classes in each, five families a class and group: 240 images."""
    families = [
        (f"{group}{label}{i}", group, label)
        for group in "ABCDEF"
        for label in (0, 1)
        for i in range(5)
    ]
    return examples_of(families, **options)


PUBLISHED = DataConfig(protocol="published")
FAMILY = DataConfig(protocol="family")
GROUPED = DataConfig(protocol="grouped", holdout_group="B")
KFOLD = DataConfig(protocol="kfold", folds=3)
PROTOCOLS = [PUBLISHED, FAMILY, GROUPED, KFOLD]
VAL = [f"A{label}{i}" for label in (0, 1) for i in range(2)]


def parts_of(key, splits):
    return [set(splits.split[key == name]) for name in np.unique(key)]


@st.composite
def data_sets(draw):
    groups = draw(st.integers(2, 8))
    families = [
        (f"F{g}-{i}", f"G{g}", draw(st.integers(0, 1)))
        for g in range(groups)
        for i in range(draw(st.integers(1, 5)))
    ]
    return families, draw(st.integers(1, 3))


def assign_or_assume(examples, config, seed):
    """Leaves out the draws that the protocol refuses; other tests cover the refusals."""
    try:
        return assign_splits(examples, config, seed=seed)
    except DataError:
        assume(False)


@settings(max_examples=60, deadline=None)
@given(data_sets(), st.integers(0, 2**32 - 1))
def test_grouped_never_divides_a_family_and_holds_out_exactly_one_group(data, seed):
    examples = examples_of(data[0], copies=data[1])
    splits = assign_or_assume(examples, DataConfig(protocol="grouped", holdout_group="G0"), seed)
    assert all(len(found) == 1 for found in parts_of(examples.family, splits))
    assert np.array_equal(splits.split == "test", examples.group == "G0")
    assert set(splits.fold) == {"G0"}
    assert "copies cross the split" not in find_stamps(examples, splits)


@settings(max_examples=60, deadline=None)
@given(data_sets(), st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_kfold_never_divides_a_group_and_tests_every_example_once(data, seed, folds):
    examples = examples_of(data[0], copies=data[1])
    tested = np.zeros(len(examples), int)
    for fold in range(folds):
        config = DataConfig(protocol="kfold", fold=fold, folds=folds)
        splits = assign_or_assume(examples, config, seed)
        assert all(len(found) == 1 for found in parts_of(examples.group, splits))
        assert find_stamps(examples, splits) == []
        assert set(splits.fold) == {str(fold)}
        tested[splits.indices("test")] += 1
    assert (tested == 1).all()


@settings(max_examples=30, deadline=None)
@given(
    st.permutations(range(240)),
    st.integers(0, 2**32 - 1),
    st.sampled_from(PROTOCOLS),
)
def test_the_split_of_an_image_does_not_depend_on_the_order(order, seed, config):
    sorted_examples = six_groups(val_families=VAL)
    shuffled = six_groups(val_families=VAL, order=order)
    a, b = (
        assign_splits(sorted_examples, config, seed=seed),
        assign_splits(shuffled, config, seed=seed),
    )
    assert b.example_id.tolist() == shuffled.example_id.tolist()
    assert dict(zip(a.example_id, a.split, strict=True)) == dict(
        zip(b.example_id, b.split, strict=True)
    )


@pytest.mark.parametrize("config", PROTOCOLS)
def test_every_example_is_in_exactly_one_split(config):
    splits = assign_splits(six_groups(val_families=VAL), config, seed=0)
    rows = np.concatenate([splits.indices(split) for split in SPLITS])
    assert np.array_equal(np.sort(rows), np.arange(240))


@pytest.mark.parametrize("config", PROTOCOLS)
def test_the_seed_decides_and_decides_alone(config):
    examples = six_groups(val_families=VAL)
    first, again, other = (assign_splits(examples, config, seed=seed).split for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_fraction_is_rounded_to_the_nearest_image():
    examples = six_groups(val_families=VAL)
    config = DataConfig(protocol="published", validation_fraction=0.205)
    splits = assign_splits(examples, config, seed=3)
    assert splits.counts(examples.label)["validation"] == (23, 23)  # 0.205 * 112 = 22.96


def test_published_takes_the_exact_fraction_of_each_class_and_the_whole_of_val():
    examples = six_groups(val_families=VAL)
    splits = assign_splits(examples, PUBLISHED, seed=3)
    # 120 images a class, 8 of them in val/; round(0.2 * 112) = 22.
    assert splits.counts(examples.label) == {
        "train": (90, 90),
        "validation": (22, 22),
        "test": (8, 8),
    }
    assert np.array_equal(splits.split == "test", examples.part == "val")
    assert set(splits.fold) == {""}


def test_family_takes_whole_families_and_the_whole_of_val():
    examples = six_groups(val_families=VAL)
    splits = assign_splits(examples, FAMILY, seed=3)
    # Of 112 images a class that are not test 22.4 are wanted: 5 or 6 whole families of 4.
    assert splits.counts(examples.label) in [
        {"train": (112 - n, 112 - m), "validation": (n, m), "test": (8, 8)}
        for n in (20, 24)
        for m in (20, 24)
    ]
    assert np.array_equal(splits.split == "test", examples.part == "val")
    assert all(len(found) == 1 for found in parts_of(examples.family, splits))
    assert set(splits.fold) == {""}


def test_family_keeps_three_parts_and_gives_a_divided_family_to_where_most_of_it_is():
    examples = six_groups(val_families=VAL)
    examples.part[np.char.startswith(examples.family, "B")] = "test"
    moved = {"C00": ("val", 3), "C10": ("val", 1), "D00": ("test", 3), "D10": ("test", 1)}
    for name, (part, count) in moved.items():  # of four copies each
        examples.part[np.flatnonzero(examples.family == name)[:count]] = part
    splits = assign_splits(examples, FAMILY, seed=3)
    assert all(len(found) == 1 for found in parts_of(examples.family, splits))
    found = dict(zip(examples.family.tolist(), splits.split.tolist(), strict=True))
    expected = dict.fromkeys(found, "train") | dict.fromkeys(VAL, "validation")
    expected |= {name: "test" for name in found if name.startswith("B")}
    assert found == expected | {"C00": "validation", "D00": "test"}
    assert assign_splits(examples, FAMILY, seed=4).split.tolist() == splits.split.tolist()


@pytest.mark.parametrize("seed", range(5))
def test_grouped_validation_comes_within_half_a_family_of_the_fraction(seed):
    examples = six_groups()
    counts = assign_splits(examples, GROUPED, seed=seed).counts(examples.label)
    # 100 images a class are not test, 20 of them wanted: five whole families of 4.
    assert counts == {"train": (80, 80), "validation": (20, 20), "test": (20, 20)}


def test_an_example_without_a_family_is_its_own_family():
    examples = six_groups()
    examples.family[:] = ""
    splits = assign_splits(examples, GROUPED, seed=0)
    assert splits.counts(examples.label)["validation"] == (20, 20)
    assert find_stamps(examples, splits) == ["series cross the split"]


def test_units_larger_than_the_fraction_still_give_a_validation_split():
    families = [(f"{g}{k}", g, k) for g in "ABCDE" for k in (0, 1)]
    config = DataConfig(protocol="kfold", folds=2, validation_fraction=0.01)
    examples = examples_of(families)
    splits = assign_splits(examples, config, seed=0)
    assert len(np.unique(examples.group[splits.indices("validation")])) == 1


def test_kfold_balances_the_classes_of_mixed_groups():
    rng = np.random.default_rng(0)
    families = [(f"{g}-{i}", f"P{g}", int(rng.integers(2))) for g in range(60) for i in range(8)]
    examples = examples_of(families, copies=1)
    share = examples.label.mean()
    for fold in range(5):
        splits = assign_splits(examples, DataConfig(protocol="kfold", fold=fold), seed=0)
        for split in ("validation", "test"):
            label = examples.label[splits.indices(split)]
            assert abs(len(label) / len(examples) - {"test": 0.2, "validation": 0.16}[split]) < 0.02
            # Of groups of 8 images one decides 1 / 80 of the share; drawn blindly, 12 groups would
            # be off by 0.05 (one standard deviation of 96 coin throws).
            assert abs(label.mean() - share) < 0.025


def refused(examples, config, match):
    with pytest.raises(DataError, match=match) as caught:
        assign_splits(examples, config, seed=0)
    assert caught.value.exit_code == 2


def test_an_unknown_holdout_group_is_answered_with_the_known_ones():
    config = DataConfig(protocol="grouped", holdout_group="Z")
    refused(six_groups(), config, r"A \(40 images\), B \(40 images\), .*; got 'Z'")
    refused(six_groups(known_groups=False), config, "no group, none is known; got 'Z'")


def test_an_empty_holdout_group_is_not_the_unknown_group():
    config = DataConfig(protocol="grouped", holdout_group="")
    refused(six_groups(known_groups=False), config, "got ''")


def test_kfold_needs_known_groups_and_more_of_them_than_folds():
    refused(six_groups(), DataConfig(protocol="kfold", folds=6), "6 folds .* got 6 groups")
    refused(six_groups(known_groups=False), KFOLD, "240 images without one")
    rare = examples_of([(f"{g}{i}", g, int(g + str(i) == "A0")) for g in "ABCDEF" for i in (0, 1)])
    refused(rare, DataConfig(protocol="kfold", folds=5), "4 images of the rarer class")


@pytest.mark.parametrize("config", [PUBLISHED, FAMILY])
def test_published_and_family_need_the_parts(config):
    examples = six_groups(val_families=VAL)
    examples.part[:7] = ""
    refused(examples, config, f"'{config.protocol}' needs train/ and val/; 7 images are in neither")


@pytest.mark.parametrize("config", [PUBLISHED, FAMILY])
def test_an_empty_split_is_refused_with_the_counts(config):
    refused(six_groups(), config, r"no images in test; .*train 96 \+ 96, validation 24 \+ 24")


@pytest.mark.parametrize("config", PROTOCOLS)
def test_an_empty_data_set_is_refused(config):
    refused(six_groups().take([]), config, r"no images in|no group, none is known|got 0 groups")


@pytest.mark.parametrize("config", PROTOCOLS)
def test_every_protocol_can_be_configured(config):
    Config(data=dataclasses.replace(config, root="DIR")).validate()


def test_a_single_class_in_training_is_refused_but_not_in_test():
    one_sided = examples_of([("a", "A", 0), ("b", "A", 0), ("c", "B", 1), ("d", "B", 1)])
    config = DataConfig(protocol="grouped", holdout_group="B")
    refused(one_sided, config, "a single class in training")
    families = [(f"{g}{k}{i}", g, k) for g in "AB" for k in (0, 1) for i in range(5)]
    examples = examples_of([*families, ("c", "C", 1)])
    splits = assign_splits(examples, DataConfig(protocol="grouped", holdout_group="C"), seed=0)
    assert splits.counts(examples.label)["test"] == (0, 4)


def test_each_protocol_lets_cross_what_it_says():
    examples = six_groups(val_families=VAL)
    copies, series = "copies cross the split", "series cross the split"
    assert find_stamps(examples, assign_splits(examples, PUBLISHED, seed=0)) == [copies, series]
    assert find_stamps(examples, assign_splits(examples, FAMILY, seed=0)) == [series]
    assert find_stamps(examples, assign_splits(examples, GROUPED, seed=0)) == [series]
    assert find_stamps(examples, assign_splits(examples, KFOLD, seed=0)) == []
    unknown = six_groups(known_groups=False, val_families=VAL)
    assert find_stamps(unknown, assign_splits(unknown, PUBLISHED, seed=0)) == [
        copies,
        "groups unknown",
    ]
    assert find_stamps(unknown, assign_splits(unknown, FAMILY, seed=0)) == ["groups unknown"]


def test_the_same_splits_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        assign_splits(six_groups(val_families=VAL), PUBLISHED, seed=7).write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_unknown_split_has_no_rows_to_give():
    with pytest.raises(DataError, match="got 'val'"):
        assign_splits(six_groups(), GROUPED, seed=0).indices("val")


def test_the_text_table_has_paper_1s_rows_and_columns():
    examples = six_groups(val_families=VAL)
    splits = assign_splits(examples, PUBLISHED, seed=0)
    text = splits.as_text(examples.label, ("normal", "fracture"))
    assert [line.split() for line in text.splitlines()] == [
        ["class", "train", "validation", "test", "total"],
        ["fracture", "90", "22", "8", "120"],
        ["normal", "90", "22", "8", "120"],
    ]
