"""Numbers are rounded in the page as its script rounds them."""

import pytest

from msa_flax.reporting.text import interval, plain, shown, with_interval


@pytest.mark.parametrize(
    ("value", "text"),
    # Ties as JavaScript's toFixed rounds them; what only looks like a tie goes where it belongs.
    [
        (0.90625, "0.9063"),
        (0.96875, "0.9688"),
        (-0.03125, "-0.0313"),
        (0.00015, "0.0001"),  # 0.000149999... in binary
        (0.0, "0.0000"),
        (1, "1.0000"),
        (2 / 3, "0.6667"),
    ],
)
def test_numbers_are_rounded_as_in_the_page(value, text):
    assert shown(value) == text


def test_an_interval_that_is_not_there_is_empty():
    assert interval({"value": 1.0, "low": None, "high": None}) == ""
    assert interval({"low": 0.25, "high": 0.75}) == "[0.2500, 0.7500]"


def test_a_value_is_shown_with_its_interval_where_it_has_one():
    assert with_interval({"value": 0.5, "low": 0.25, "high": 0.75}) == "0.5000 [0.2500, 0.7500]"
    assert with_interval({"value": 0.5, "low": None, "high": None}) == "0.5000"
    assert with_interval({"value": None}) == "undefined"


def test_what_is_undefined_is_said_to_be():
    assert shown(None) == shown(float("nan")) == "undefined"


def test_of_a_long_list_the_first_twelve_members_are_shown():
    assert plain(list(range(14))).endswith("10, 11 and 2 more")
    assert plain([]) == "none"
    assert (plain(0.1 + 0.2), plain(3), plain("x")) == ("0.3", "3", "x")
