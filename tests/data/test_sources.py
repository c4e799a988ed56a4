import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_flax.data.sources import connected, divided, find_sources


@given(
    st.integers(0, 12).flatmap(
        lambda n: st.tuples(
            st.just(n),
            st.lists(st.tuples(*[st.integers(0, max(n - 1, 0))] * 2), max_size=15 if n else 0),
        )
    )
)
@settings(max_examples=100, deadline=None)
def test_what_is_connected_has_the_name_of_its_first(case):
    count, links = case
    expected = list(range(count))  # by its definition: names fall until no link divides
    for _ in range(count):
        for i, j in links:
            expected[i] = expected[j] = min(expected[i], expected[j])
    assert connected(np.array(links, int).reshape(-1, 2), count).tolist() == expected


LETTERS = st.sampled_from(["w", "x", "y", "z"])


@given(st.lists(st.tuples(LETTERS, st.integers(0, 5)), max_size=12))
@settings(max_examples=100, deadline=None)
def test_images_of_one_value_in_any_column_are_one_source_and_so_are_those_between(rows):
    names, numbers = (np.array([row[i] for row in rows]) for i in (0, 1))
    expected = list(range(len(rows)))
    for _ in rows:
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                if one[0] == other[0] or one[1] == other[1]:
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert find_sources(names, numbers).tolist() == expected


def test_a_unit_is_divided_if_it_holds_two_values_and_the_unknown_one_is_none():
    unit = np.array(["a", "a", "b", "b", "", "", "c"])
    value = np.array([0, 1, 2, 2, 0, 1, 0])
    assert divided(unit, value) == ["a"]
    assert divided(np.array([0, 0, 1]), np.array(["x", "y", "x"])) == [0]
