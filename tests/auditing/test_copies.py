import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msa_flax.auditing import composition, copies
from msa_flax.auditing.findings import SEVERITIES
from msa_flax.data.families import all_sources, names_by_pixels


def by_key(findings):
    assert len({finding.key for finding in findings}) == len(findings)
    return {finding.key: finding for finding in findings}


def every_finding(examples, families):
    return [
        composition.unreadable(examples),
        copies.duplicates(examples),
        *copies.family_findings(examples, families),
        *composition.group_findings(examples),
        composition.balance(examples),
        composition.sizes(examples, families.family),
    ]


# Equal pixels.


@pytest.mark.parametrize(
    ("rows", "severity", "counts", "examples"),
    [
        ("a 0 train\nb 1 train", "none", (0, 0, 0, 0), []),
        ("a 0 train - - p\nb 0 train - - p", "low", (1, 2, 0, 0), ["a", "b"]),
        ("a 0 train - - p\nb 1 train - - p", "high", (1, 2, 1, 0), ["a", "b"]),
        ("a 0 train - - p\nb 0 test - - p", "high", (1, 2, 0, 1), ["a", "b"]),
        (
            "a 0 train - - p\nb 0 train - - p\nc 0 train - - q\nd 1 test - - q\ne 0 test - - q",
            "high",
            (2, 5, 1, 1),
            ["c", "d", "e"],  # the worst are shown: those of two classes
        ),
    ],
)
def test_duplicates_are_counted_within_and_across_classes_and_splits(
    examples_from, rows, severity, counts, examples
):
    finding = copies.duplicates(examples_from(rows))
    names = ("sets", "files", "sets across classes", "sets across splits")
    assert finding.counts == dict(zip(names, counts, strict=True))
    assert finding.severity == severity
    assert bool(finding.advice) == (severity != "none")
    assert finding.examples == examples


def test_many_duplicates_are_one_finding_with_a_few_examples(examples_from):
    finding = copies.duplicates(examples_from("\n".join(f"{i} 0 train - - p" for i in range(1000))))
    assert finding.counts["files"] == 1000
    assert len(finding.examples) == 6
    assert finding.evidence.startswith("1000 files show 1 pictures, pixel for pixel;")


# Families.


def test_images_with_a_copy_have_the_name_of_the_first(ten_images, ten_families):
    assert names_by_pixels(ten_images, ten_families).tolist() == [
        "a",
        "a",
        "c",
        "c",
        "a",
        "",
        "",
        "c",
    ] + 2 * ["i"]


def test_families_are_counted_and_compared_with_those_that_names_tell(ten_images, ten_families):
    finding = by_key(copies.family_findings(ten_images, ten_families))["families"]
    assert finding.severity == "low"
    assert finding.counts == {
        "families by pixels": 5,  # a, c, f, g and i
        "with copies": 3,
        "images in them": 8,
        "largest": 3,
        "of two classes": 0,
        "families by name": 4,
        "names divided by pixels": 1,  # f3, into f and h
        "pixel families of several names": 1,  # c, of f2 and f3
    }
    assert finding.examples == ["a", "b", "e"]
    assert "8 of 10 images are copies of one another in 3 families, the largest of 3." in (
        finding.evidence
    )
    assert "File names tell 4 families of 9 images" in finding.evidence


def test_without_copies_and_names_nothing_is_found(examples_from, families_of):
    examples = examples_from("a 0 train\nb 1 train\nc 0 test")
    findings = by_key(copies.family_findings(examples, families_of(0, 1, 2)))
    assert list(findings) == ["families", "leakage by pixels", "random split, by pixels"]
    assert {finding.severity for finding in findings.values()} == {"open"}
    for finding in findings.values():
        assert "ot searched: copies that were bent" in finding.evidence
    assert findings["families"].counts == {
        "families by pixels": 3,
        "with copies": 0,
        "images in them": 0,
        "largest": 1,
        "of two classes": 0,
    }
    assert findings["families"].examples == []
    assert "tell no families" in findings["families"].evidence


def test_families_of_two_classes_are_contradictions(examples_from, families_of):
    examples = examples_from("a 0 train\nb 1 train\nc 0 train\nd 0 train\ne 1 train")
    finding = by_key(copies.family_findings(examples, families_of(0, 0, 2, 2, 4)))["families"]
    assert finding.severity == "high"
    assert finding.counts["of two classes"] == 1
    assert "1 families hold images of two classes." in finding.evidence


def test_images_with_a_copy_in_another_split_are_counted_by_name_and_by_pixels(
    ten_images, ten_families
):
    findings = by_key(copies.family_findings(ten_images, ten_families))
    sizes = {"validation": 3, "test": 3}
    by_name, by_pixels = findings["leakage by name"], findings["leakage by pixels"]
    assert by_name.counts == sizes | {
        "validation in train": 1,  # e, of f1
        "test in train": 0,
        "test in validation": 1,  # h, of f3
    }
    assert by_name.evidence == (
        "1 of 3 validation images have a copy in train; 1 of 3 test images have a copy in "
        "validation."
    )
    assert by_name.examples == ["e", "h"]
    assert by_pixels.counts == sizes | {
        "validation in train": 1,  # e
        "test in train": 1,  # h, whose pixels are of c and d
        "test in validation": 0,
    }
    assert by_pixels.examples == ["e", "h"]
    assert by_name.severity == by_pixels.severity == "high"
    assert by_name.advice == by_pixels.advice != ""


def test_whole_families_do_not_leak(examples_from, families_of):
    examples = examples_from(
        "a 0 train - f\nb 0 train - f\nc 0 test - g\nd 0 test - g\ne 0 test\nf 0 train"
    )
    findings = by_key(copies.family_findings(examples, families_of(0, 0, 2, 2, 4, 5)))
    for key in ("leakage by name", "leakage by pixels"):
        assert findings[key].severity == "open"  # e and f have no name, and no search finds all
        assert findings[key].advice == ""
        assert findings[key].counts == {"test in train": 0, "test": 3}
        assert findings[key].evidence.startswith("No copy of an image is in two of train, test")
    assert "2 images have no name of a family" in findings["leakage by name"].evidence
    named = examples_from("a 0 train - f\nb 0 test - g")
    by_name = by_key(copies.family_findings(named, families_of(0, 1)))["leakage by name"]
    assert by_name.severity == "none"
    assert by_name.evidence == "No copy of an image is in two of train, test."


def test_one_part_cannot_leak_but_a_random_split_of_it_would(examples_from, families_of):
    examples = examples_from("\n".join(f"{i} 0 - - f{i // 5}" for i in range(50)))
    findings = by_key(copies.family_findings(examples, families_of(*range(50))))
    assert findings.keys() >= {"families", "leakage by name", "random split, by name"}
    assert findings["leakage by name"].severity == "open"
    assert findings["leakage by name"].counts == {}
    assert "no split to leak" in findings["leakage by name"].evidence
    random = findings["random split, by name"]
    # Ten of fifty are held out, so of no family of five all: each has a copy among the rest.
    assert random.counts == {"held out": 10, "with a copy": 10}
    assert random.severity == "high"
    assert "Of the images, a random 20% (10 images, seed 0)" in random.evidence


def test_a_random_split_is_drawn_from_the_training_images_only(examples_from, families_of):
    # The copies lie in the test images, so a random part of the training images has none.
    rows = [f"t{i} 0 train" for i in range(20)] + [f"v{i} 0 test - f" for i in range(20)]
    finding = by_key(
        copies.family_findings(examples_from("\n".join(rows)), families_of(*range(20), *[20] * 20))
    )["random split, by pixels"]
    assert finding.counts == {"held out": 4, "with a copy": 0}
    assert (finding.severity, finding.advice) == ("open", "")
    assert "Of the train images" in finding.evidence


def test_a_random_split_leaks_little_where_there_are_few_copies(examples_from, families_of):
    # One pair among 200: at the most one of 40 is a copy, whichever are drawn.
    for pair in range(0, 200, 2):
        family = ["g" if i in (pair, pair + 1) else "-" for i in range(200)]
        rows = "\n".join(f"{i} 0 train - {family[i]}" for i in range(200))
        finding = by_key(copies.family_findings(examples_from(rows), families_of(*range(200))))[
            "random split, by name"
        ]
        assert finding.counts["held out"] == 40
        assert finding.severity == ("low" if finding.counts["with a copy"] else "open")


def test_a_single_image_can_be_split(examples_from, families_of):
    examples = examples_from("a 0 train - f")
    findings = copies.family_findings(examples, families_of(0))
    assert by_key(findings)["random split, by name"].counts == {"held out": 1, "with a copy": 0}


def test_images_that_may_be_neighbours_are_named_and_not_called_copies(examples_from, families_of):
    examples = examples_from("a 0 train\nb 0 train\nc 1 test")
    families = dataclasses.replace(families_of(0, 1, 2), unclear=np.array([[0, 1], [1, 2]]))
    findings = by_key(copies.family_findings(examples, families))
    finding = findings["copies or neighbours"]
    assert finding.severity == "medium"
    assert finding.counts == {"pairs": 2, "pairs in two splits": 1}
    assert finding.examples == ["a", "b", "b", "c"]
    assert "cannot be told" in finding.evidence
    assert findings["families"].counts["with copies"] == 0


# What belongs together.


def test_sources_join_equal_pixels_names_and_pixel_families_whatever_connects_them(
    examples_from, families_of, ten_images, ten_families
):
    # a-c have equal pixels, and so f1 and f2 are one; pixels join h with f2, and h has f's name.
    assert all_sources(ten_images, ten_families).tolist() == [0] * 6 + [6, 0, 8, 8]
    assert all_sources(ten_images, families_of(*range(10))).tolist() == [0] * 5 + [
        5,
        6,
        5,
        8,
        8,
    ]
    assert all_sources(examples_from("a 0 -\nb 0 -"), families_of(0, 1)).tolist() == [0, 1]


LETTERS = st.sampled_from(["", "x", "y", "z"])


@given(st.lists(st.tuples(LETTERS, LETTERS, LETTERS), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_sources_are_the_finest_partition_that_divides_nothing(examples_from, families_of, rows):
    names = [
        f"{i}-{column}" for i, row in enumerate(rows) for column in range(3) if not row[column]
    ]
    names = iter(names)
    columns = [[cell or next(names) for cell in row] for row in rows]
    examples = examples_from("\n".join(f"{i} 0 -" for i in range(len(rows))))
    examples = dataclasses.replace(
        examples,
        family=np.array([row[0] for row in rows]),
        file_hash=np.array([row[1] for row in columns]),
    )
    third = [row[2] for row in columns]
    families = families_of(*(third.index(cell) for cell in third))
    expected = list(range(len(rows)))
    for _ in rows:
        for i, one in enumerate(columns):
            for j, other in enumerate(columns):
                if any(a == b for a, b in zip(one, other, strict=True)):
                    expected[i] = expected[j] = min(expected[i], expected[j])
    assert all_sources(examples, families).tolist() == expected


@pytest.mark.parametrize("rows", ["a 0 -", "a 0 train\nb 1 x G f p\nc 1 y - f p", "ten"])
def test_every_finding_is_json_has_a_known_severity_and_advice_where_something_is_wrong(
    examples_from, families_of, ten_images, ten_families, rows
):
    examples = ten_images if rows == "ten" else examples_from(rows)
    families = ten_families if rows == "ten" else families_of(*range(len(examples)))
    for finding in by_key(every_finding(examples, families)).values():
        assert finding.severity in SEVERITIES
        assert finding.title
        assert finding.evidence.endswith(".")
        json.dumps(dataclasses.asdict(finding), allow_nan=False)
        if finding.severity == "high":
            assert finding.advice, finding.key
