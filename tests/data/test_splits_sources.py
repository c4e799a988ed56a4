"""Which families are one source: those that share a picture, and what that does to a split."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msa_flax.config import DataConfig
from msa_flax.data.examples import DataError, from_rows
from msa_flax.data.leakage import check_leakage
from msa_flax.data.splits import SPLITS, assign_splits

FAMILY = DataConfig(protocol="family")
GROUPED = DataConfig(protocol="grouped", holdout_group="B")
KFOLD = DataConfig(protocol="kfold", folds=3)


def examples_of(families, *, copies=4):
    """Builds examples from (name, group, label, images in val/) of each; all pictures differ."""
    rows = [
        {
            "example_id": f"{name}-{copy}.png",
            "label": label,
            "group": group,
            "family": name,
            "slice_index": -1,
            "part": "val" if copy < inside else "train",
            "height": 2,
            "width": 2,
        }
        for name, group, label, inside in families
        for copy in range(copies)
    ]
    images = np.zeros((len(rows), 2, 2), np.uint8)
    images[:, 0, 0], images[:, 1, 1] = np.divmod(np.arange(len(rows)), 100)
    return from_rows(rows, images)


def six_groups(**inside):
    """Six groups, two classes, five families of four images each: A00 .. F14; 240 images.

    A00, A01, A10 and A11 lie in val/; ``inside`` says how many images of another family do.
    """
    inside = dict.fromkeys(["A00", "A01", "A10", "A11"], 4) | inside
    names = [(f"{group}{k}{i}", group, k) for group in "ABCDEF" for k in (0, 1) for i in range(5)]
    return examples_of([(name, group, k, inside.get(name, 0)) for name, group, k in names])


def with_shared_pictures(examples, *pairs):
    """Examples in which two families share their first picture; "A00 B00" is a pair."""
    examples = examples.take(range(len(examples)))
    for pair in pairs:
        first, second = (np.flatnonzero(examples.family == name)[0] for name in pair.split())
        examples.images[second] = examples.images[first]
    return examples


def splits_of(examples, splits, families):
    return set(splits.split[np.isin(examples.family, families.split())])


def sources(examples):
    """Returns a number an image, the same for images that families and equal pictures connect."""
    number = np.arange(len(examples))
    pixels = np.array([str(image.tolist()) for image in examples.images])
    while True:
        before = number.copy()
        for key in (examples.family, pixels):
            for name in np.unique(key):
                number[key == name] = number[key == name].min()
        if np.array_equal(number, before):
            return number


@st.composite
def data_sets(draw):
    """Two groups or more; some families are in val/, or partly; some of a class share pictures."""
    copies = draw(st.integers(1, 3))
    inside = st.sampled_from([0, 0, 0, 1, copies // 2, copies, copies])
    families = [(f"F{k}{i}", "G9", k, draw(inside)) for k in (0, 1) for i in range(4)]
    for g in range(draw(st.integers(2, 8))):
        for i in range(draw(st.integers(1, 5))):
            families.append((f"G{g}-{i}", f"G{g}", draw(st.integers(0, 1)), draw(inside)))
    examples = examples_of(families, copies=copies)
    for label in (0, 1):
        rows = st.sampled_from(np.flatnonzero(examples.label == label).tolist())
        for one, other in draw(st.lists(st.tuples(rows, rows), max_size=4)):
            examples.images[other] = examples.images[one]
    return examples


def assign_or_assume(examples, config, seed):
    """Leaves out the draws that the protocol refuses; other tests cover the refusals."""
    try:
        return assign_splits(examples, config, seed=seed)
    except DataError:
        assume(False)


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(data_sets(), SEEDS)
def test_family_never_divides_a_source_and_tests_what_lies_at_least_half_in_val(examples, seed):
    splits, source = assign_or_assume(examples, FAMILY, seed), sources(examples)
    half = np.array([(examples.part[source == number] == "val").mean() >= 0.5 for number in source])
    possible = half.any() and len(set(examples.label[~half])) == 2  # or else test is drawn
    for number in np.unique(source):
        found = set(splits.split[source == number])
        assert len(found) == 1
        assert not possible or (found == {"test"}) == half[source == number][0]
    assert all(splits.indices(split).size for split in SPLITS)
    assert set(splits.fold) == {""}
    check_leakage(examples, splits, allow=False)


@settings(max_examples=60, deadline=None)
@given(data_sets(), SEEDS)
def test_grouped_never_divides_a_source_outside_the_group_that_it_holds_out(examples, seed):
    config = dataclasses.replace(GROUPED, holdout_group="G0")
    splits, source = assign_or_assume(examples, config, seed), sources(examples)
    for number in np.unique(source):
        assert len(set(splits.split[source == number]) - {"test"}) <= 1
    assert np.array_equal(splits.split == "test", examples.group == "G0")
    assert all(splits.indices(split).size for split in SPLITS)


@settings(max_examples=60, deadline=None)
@given(
    data_sets(),
    st.randoms(use_true_random=False),
    SEEDS,
    st.sampled_from([FAMILY, dataclasses.replace(GROUPED, holdout_group="G0"), KFOLD]),
)
def test_shared_pictures_do_not_make_the_order_matter(examples, random, seed, config):
    order = list(range(len(examples)))
    random.shuffle(order)
    a, b = (
        assign_or_assume(examples, config, seed),
        assign_splits(examples.take(order), config, seed=seed),
    )
    assert np.array_equal(a.split[order], b.split)


@pytest.mark.parametrize(("inside", "tested"), [(0, 0), (1, 0), (2, 4), (3, 4), (4, 4)])
def test_a_family_is_test_if_at_least_half_of_it_is_in_val(inside, tested):
    examples = six_groups(C02=inside)
    splits = assign_splits(examples, FAMILY, seed=0)
    assert (splits.split[examples.family == "C02"] == "test").sum() == tested
    assert (splits.split == "test").sum() == 16 + tested


def test_families_with_one_picture_are_one_when_test_is_chosen():
    examples = with_shared_pictures(six_groups(), "A00 A03")  # 4 of 8 images are in val/
    splits = assign_splits(examples, FAMILY, seed=0)
    assert splits_of(examples, splits, "A00 A03") == {"test"}
    assert (splits.split == "test").sum() == 20
    examples = with_shared_pictures(examples, "A03 A04")  # the same picture in three: 4 of 12
    splits = assign_splits(examples, FAMILY, seed=0)
    assert splits_of(examples, splits, "A00 A03 A04") in ({"train"}, {"validation"})
    assert (splits.split == "test").sum() == 12


@pytest.mark.parametrize("config", [FAMILY, GROUPED])
@pytest.mark.parametrize("seed", range(10))
def test_families_with_one_picture_are_one_when_validation_is_chosen(config, seed):
    # One by one, a fifth of all families being validation would divide some of these ten pairs.
    pairs = [f"{a}{k}{i} {b}{k}{i}" for a, b in ("CD", "EF") for k in (0, 1) for i in (0, 1)]
    pairs += ["A02 A03", "A12 A13"]
    examples = with_shared_pictures(six_groups(), *pairs)
    splits = assign_splits(examples, config, seed=seed)
    for pair in pairs:
        assert len(splits_of(examples, splits, pair)) == 1
    check_leakage(examples, splits, allow=False)


def test_pictures_connect_families_through_others():
    pairs = ["C00 D00", "C01 D01", "C02 E02"]
    examples = with_shared_pictures(six_groups(), *pairs)
    second = [np.flatnonzero(examples.family == name)[1:3] for name in ("D00", "C01", "C02")]
    examples.images[second[1][0]] = examples.images[second[0][0]]  # D00 and C01
    examples.images[second[2][0]] = examples.images[second[1][1]]  # C01 and C02
    for seed in range(20):
        splits = assign_splits(examples, FAMILY, seed=seed)
        assert len(splits_of(examples, splits, "C00 D00 C01 D01 C02 E02")) == 1


def test_images_without_a_family_are_one_source_where_they_are_one_picture():
    examples = with_shared_pictures(six_groups(), "C00 D00", "E10 F10")
    twins = np.isin(examples.example_id, ["C00-0.png", "D00-0.png"])
    examples.family[examples.label == 0] = ""
    for seed in range(20):
        splits = assign_splits(examples, FAMILY, seed=seed)
        assert len(set(splits.split[twins])) == 1
        check_leakage(examples, splits, allow=False)


@pytest.mark.parametrize("config", [GROUPED, KFOLD])
def test_groups_with_one_picture_stay_two_and_the_copy_is_reported(config):
    examples = six_groups()
    before = assign_splits(examples, config, seed=0)
    train, test = (examples.group[before.indices(split)[0]] for split in ("train", "test"))
    examples = with_shared_pictures(examples, f"{train}00 {test}00")
    splits = assign_splits(examples, config, seed=0)
    assert np.array_equal(splits.split == "test", before.split == "test")
    with pytest.raises(DataError, match=r"0 source slices and 1 identical"):
        check_leakage(examples, splits, allow=False)


@pytest.mark.parametrize("first", [0, 1])
def test_where_every_family_is_in_both_parts_whole_families_are_drawn_for_test(first):
    examples = six_groups()
    examples.part[:] = "train"
    examples.part[first :: 2 + first] = "val"  # a half or a third of each family
    splits = assign_splits(examples, FAMILY, seed=0)
    check_leakage(examples, splits, allow=False)
    val = np.bincount(examples.label[examples.part == "val"], minlength=2)
    assert np.abs(np.array(splits.counts(examples.label)["test"]) - val).max() <= 3
    other = assign_splits(examples, FAMILY, seed=1)
    assert (other.split != splits.split).any()


def test_sources_that_leave_nothing_to_train_or_test_with_are_refused():
    examples = six_groups()
    examples.images[:] = 7  # a single picture, so a single source
    with pytest.raises(DataError, match="'family' leaves no images in train and "):
        assign_splits(examples, FAMILY, seed=0)
