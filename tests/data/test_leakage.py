import numpy as np
import pytest

from msa_flax.data.examples import DataError, from_rows
from msa_flax.data.leakage import check_contradictions, check_leakage, find_stamps
from msa_flax.data.splits import Splits

COPIES, SERIES, UNKNOWN = "copies cross the split", "series cross the split", "groups unknown"


def examples_and_splits(*rows, pictures=None):
    """Builds examples and their splits from "family group label split" a row; "-" is unknown.

    No two pictures are the same, but where ``pictures`` gives two rows the same number.
    """
    words = [["" if word == "-" else word for word in row.split()] for row in rows]
    columns = [
        {
            "example_id": f"{i:03}.png",
            "label": int(label),
            "group": group,
            "family": family,
            "slice_index": -1,
            "part": "",
            "height": 2,
            "width": 2,
        }
        for i, (family, group, label, _) in enumerate(words)
    ]
    images = np.zeros((len(rows), 2, 2), np.uint8)
    images[:, 1, 0] = range(len(rows)) if pictures is None else pictures
    examples = from_rows(columns, images)
    split = np.array([word[3] for word in words])
    return examples, Splits(
        example_id=examples.example_id, split=split, fold=np.full(len(rows), "")
    )


@pytest.mark.parametrize(
    ("rows", "pictures", "said"),
    [
        (("a A 0 train", "b B 1 validation", "c C 0 test"), None, []),
        (("a A 0 train", "a A 0 train", "c C 0 test"), None, []),
        (("a A 0 train", "a A 0 test"), None, [COPIES, SERIES]),
        (("a A 0 train", "a A 0 validation"), None, [COPIES, SERIES]),
        (("a A 0 train", "a B 0 test"), None, [COPIES]),
        (("a A 0 train", "b A 1 test"), None, [SERIES]),
        (("a A 0 train", "b B 0 test"), [7, 7], [COPIES]),
        (("a A 0 test", "b B 0 test"), [7, 7], []),
        (("a - 0 train", "a - 0 test"), None, [COPIES, UNKNOWN]),
        (("- - 0 train", "- - 0 test"), None, [UNKNOWN]),
        (("- A 0 train", "- A 0 test", "c - 1 test"), None, [SERIES, UNKNOWN]),
    ],
)
def test_copies_series_and_what_is_unknown_are_stamped_and_never_mixed_up(rows, pictures, said):
    assert find_stamps(*examples_and_splits(*rows, pictures=pictures)) == said


def leaky():
    """Both validation and 3 of 7 test images have a copy in training; none is in validation."""
    return examples_and_splits(
        *("a A 0 validation", "a A 0 train", "b A 1 validation", "b A 1 train"),
        *("c A 0 train", "c A 0 test", "c A 0 test", "c A 0 test"),
        *("d A 1 test", "d A 1 test", "d A 1 test", "d A 1 test"),
    )


def test_leakage_is_refused_with_counts_and_a_way_out():
    with pytest.raises(DataError) as caught:
        check_leakage(*leaky(), allow=False)
    assert str(caught.value) == (
        "copies cross the split: all 2 validation images have a copy in training, 3 of 7 test "
        "images have a copy in training (3 source slices and 0 identical pictures are divided); "
        "use protocol 'family', 'grouped' or 'kfold', or accept inflated numbers with "
        "data.allow_leakage=True"
    )
    assert caught.value.exit_code == 2


def test_leakage_may_be_allowed():
    check_leakage(*leaky(), allow=True)


def test_identical_pictures_are_copies_whatever_their_names_say():
    rows = ("a A 0 train", "b B 1 train", "c C 0 test", "d D 1 test", "e E 0 validation")
    check_leakage(*examples_and_splits(*rows), allow=False)
    with pytest.raises(DataError, match=r"1 of 2 test images .*0 source slices and 1 identical"):
        check_leakage(*examples_and_splits(*rows, pictures=[1, 2, 1, 3, 4]), allow=False)


def test_images_without_a_family_are_not_copies_of_each_other():
    rows = ("- A 0 train", "- A 0 train", "- A 0 test", "- A 0 test")
    check_leakage(*examples_and_splits(*rows), allow=False)
    with pytest.raises(DataError, match="1 of 2 test images"):
        check_leakage(*examples_and_splits(*rows, pictures=[1, 2, 2, 3]), allow=False)


def test_splits_of_another_data_set_are_refused():
    examples, splits = examples_and_splits("a A 0 train", "b B 1 validation", "c C 0 test")
    for other in (examples.take([0, 1]), examples.take([2, 1, 0])):
        with pytest.raises(DataError, match="different examples, or in another order"):
            find_stamps(other, splits)
        with pytest.raises(DataError, match="different examples, or in another order"):
            check_leakage(other, splits, allow=False)


def test_one_picture_in_both_classes_is_refused_with_counts():
    rows = [f"{family} A {label} train" for family, label in (("a", 0), ("b", 1)) for _ in range(4)]
    check_contradictions(examples_and_splits(*rows, pictures=[1, 1, 2, 2, 5, 6, 7, 8])[0])
    with pytest.raises(DataError, match=r"1 pictures are in both classes \(3 images\)") as caught:
        check_contradictions(examples_and_splits(*rows, pictures=[1, 1, 2, 2, 5, 6, 1, 8])[0])
    assert "000.png, 001.png, 006.png" in str(caught.value)
