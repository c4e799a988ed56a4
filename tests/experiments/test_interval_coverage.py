"""The quick form prints every table, and the intervals cover the truth."""

import contextlib
import io

import interval_coverage
import pytest


@pytest.fixture(scope="module")
def tables():
    """Title to rows, each a list of cells; the heads of the tables are left out."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert interval_coverage.main(["--quick"]) == 0
    found = {}
    for block in printed.getvalue().split("### ")[1:]:
        title, *lines = block.strip().splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line]
        assert {len(row) for row in rows} == {len(rows[0])}
        found[title] = rows[2:]
    return found


def numbers(row):
    return [float(cell) for cell in row]


def test_clopper_pearson_covers_every_proportion_and_wilson_nearly(tables):
    rows = tables["Proportions, exact"]
    assert [row[:2] for row in rows] == [
        *(["wilson", "50"], ["wilson", "400"]),
        *(["clopper-pearson", "50"], ["clopper-pearson", "400"]),
    ]
    # These are exact, so the bounds are those of theory: nominal, and Wilson's worst.
    assert min(min(numbers(row[2:])) for row in rows[2:]) >= 0.95
    assert min(min(numbers(row[2:])) for row in rows[:2]) >= 0.91
    wilson = [value for row in rows[:2] for value in numbers(row[2:])]
    assert sum(wilson) / len(wilson) >= 0.94


def test_delong_covers_the_truth_for_independent_images(tables):
    rows = tables["DeLong, independent images, 100 samples"]
    # Of 100 samples at 95 %, fewer than 85 hits have a chance of 1 in 20,000; the seed is fixed.
    assert min(min(numbers(row[1:])) for row in rows) >= 0.85


def test_clustered_intervals_cover_the_truth_more_often_than_those_that_know_no_groups(tables):
    (row,) = tables["Images in groups, 30 samples"]
    independent, _, clustered = numbers(row[2:5])
    assert clustered > independent
    # 30 samples at 95 %: fewer than 24 hits have a chance of 1 in 2,000; the seed is fixed.
    for value in (clustered, numbers(row[5:])[2]):
        assert value >= 0.8
    metrics = tables["Clustered interval, every metric; world, groups"]
    assert len(metrics) == 17
    assert min(float(coverage) for _, coverage in metrics) > 0.6
