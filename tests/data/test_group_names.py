import re

import pytest

from msa_flax.data.group_names import group_hint


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (["P01_1.png", "P01_2.png", "P02_1.png", "P03_1.png"], "P01"),
        (["a/B7 (1).png", "b/B7 (2).png", "b/B8 (1).png", "b/B9 (1).png"], "B7"),
        (
            ["case_07_im_1.png", "case_07_im_2.png", "case_08_im_1.png", "case_09_im_1.png"],
            "case_07",
        ),
        (["x1-1.png", "x1-2.png", "x2-1.png", "x3-1.png"], "x1"),
    ],
)
def test_a_pattern_is_suggested_that_finds_the_groups_of_these_names(names, group):
    hint = group_hint(names)
    pattern = re.search("'(.*?)' finds", hint)[1]
    found = [re.search(pattern, name.rpartition("/")[2])["group"] for name in names]
    assert found[0] == group == found[1]
    assert len(set(found)) == 3
    assert f"finds 3 groups, such as {group!r} in {names[0].rpartition('/')[2]!r}" in hint


@pytest.mark.parametrize(
    "names",
    [
        ["img01.png", "img02.png", "img03.png", "img04.png"],  # each its own
        ["normal_1.png", "normal_2.png", "fracture_3.png", "fracture_4.png"],  # the classes
        ["a_1.png", "b_1.png", "c_1.png", "c_2.png", "other.png"],  # not all of them
    ],
)
def test_nothing_is_suggested_where_names_tell_nothing(names):
    assert group_hint(names).startswith(f"nothing in names such as {names[0]!r} repeats")
