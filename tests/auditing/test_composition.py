import dataclasses

import numpy as np
import pytest

from msa_flax.auditing import composition

# Unreadable files.


def test_no_unreadable_files_are_good_news(examples_from):
    finding = composition.unreadable(examples_from("\n".join(f"{i} 0 -" for i in range(7))))
    assert (finding.severity, finding.advice) == ("none", "")
    assert finding.counts == {"unreadable": 0, "files": 7}
    assert finding.evidence == "All 7 files are readable."


def test_ten_thousand_unreadable_files_are_one_finding_with_a_handful_of_reasons(examples_from):
    examples = examples_from("\n".join(f"{i} 0 -" for i in range(10_000)))
    bad = tuple((f"{i}.png", f"reason {min(i % 100, 7)}") for i in range(10_000))
    finding = composition.unreadable(dataclasses.replace(examples, bad_files=bad))
    assert finding.severity == "medium"
    assert finding.counts == {"unreadable": 10_000, "files": 20_000}
    assert finding.evidence == (
        "10000 of 20000 files cannot be used: reason 7: 9300; reason 0: 100; reason 1: 100; "
        "reason 2: 100; reason 3: 100; 3 other reasons. All are in audit.json."
    )
    assert list(finding.examples) == [f"{i}.png" for i in range(6)]


# Groups.


def by_key(findings):
    assert len({finding.key for finding in findings}) == len(findings)
    return {finding.key: finding for finding in findings}


def test_unknown_groups_are_said_not_guessed(examples_from):
    (finding,) = composition.group_findings(examples_from("a 0 train\nb 1 test"))
    assert finding.severity == "medium"
    assert finding.counts == {"groups": 0, "images without a group": 2}
    assert finding.advice


def test_groups_are_counted_by_class_and_split(ten_images):
    findings = by_key(composition.group_findings(ten_images))
    groups, single, across = (
        findings[key] for key in ("groups", "one-class groups", "groups across splits")
    )
    assert groups.counts == {"groups": 3, "images without a group": 0}
    assert groups.severity == "medium"  # three cannot say how results vary
    assert "(normal + fracture): A (2 + 1), B (2 + 2), C (2 + 1)." in groups.evidence
    assert single.counts == {"groups of one class": 0}
    assert single.severity == "none"
    assert across.severity == "high"
    assert across.counts == {
        "groups in train": 2,
        "groups in validation": 1,
        "groups in test": 1,
        "groups in two splits": 1,
    }
    assert across.evidence == (
        "In more than one split: 1 of 3 groups, B. All validation images are of one group, B. "
        "All test images are of one group, C."
    )


def test_whole_groups_in_every_split_are_good_news(examples_from):
    rows = [f"{g}{k} {k} {'test' if g >= 8 else 'train'} G{g}" for g in range(12) for k in (0, 1)]
    findings = by_key(composition.group_findings(examples_from("\n".join(rows))))
    assert findings["groups"].severity == "low"
    assert findings["groups"].counts["groups"] == 12
    assert "and 4 more." in findings["groups"].evidence
    assert findings["groups"].advice == ""
    across = findings["groups across splits"]
    assert (across.severity, across.evidence) == ("none", "No group is in two splits.")
    assert across.counts["groups in train"] == 8
    assert across.counts["groups in test"] == 4


def test_many_groups_are_few_as_long_as_an_image_has_none(examples_from):
    rows = [f"{g}{k} {k} - G{g}" for g in range(12) for k in (0, 1)]
    groups = by_key(composition.group_findings(examples_from("\n".join([*rows, "x 0 -"]))))[
        "groups"
    ]
    assert groups.severity == "medium"
    assert groups.counts == {"groups": 12, "images without a group": 1}


def test_a_single_training_group_is_no_finding_but_a_single_test_group_is(examples_from):
    rows = "a 0 train A\nb 1 train A\nc 0 test B\nd 1 test B\ne 0 test C"
    across = by_key(composition.group_findings(examples_from(rows)))["groups across splits"]
    assert across.severity == "none"
    rows = "a 0 train A\nb 1 train C\nc 0 test B\nd 1 test B"
    across = by_key(composition.group_findings(examples_from(rows)))["groups across splits"]
    assert across.severity == "high"
    assert across.evidence == "All test images are of one group, B."


def test_groups_of_one_class_are_named(examples_from):
    rows = "a 0 - A\nb 0 - A\nc 1 - B\nd 0 - C\ne 1 - C\nf 1 -"
    findings = by_key(composition.group_findings(examples_from(rows)))
    assert findings["one-class groups"].counts == {"groups of one class": 2}
    assert findings["one-class groups"].severity == "medium"
    assert findings["one-class groups"].examples == ["A", "B"]
    assert findings["groups"].counts == {"groups": 3, "images without a group": 1}
    assert findings["groups"].evidence.endswith(" 1 images have none.")
    across = findings["groups across splits"]
    assert (across.severity, across.evidence) == ("open", "The images are in one part.")


def test_images_without_a_group_do_not_make_a_group(examples_from):
    rows = "a 0 train A\nb 1 train -\nc 0 test B\nd 1 test -\ne 0 test C"
    across = by_key(composition.group_findings(examples_from(rows)))["groups across splits"]
    assert across.counts["groups in two splits"] == 0
    assert across.severity == "open"  # whose images b and d are is not known
    assert "2 images have no group" in across.evidence


def test_a_thousand_groups_are_a_sentence(examples_from):
    rows = "\n".join(f"{i} 0 {'test' if i % 2 else 'train'} G{i // 2:04d}" for i in range(2000))
    for finding in composition.group_findings(examples_from(rows)):
        assert len(finding.evidence) < 300
        assert len(finding.examples) <= 6


# Classes and sizes.


@pytest.mark.parametrize(
    ("labels", "severity"), [([5, 5], "none"), ([1, 3], "none"), ([1, 4], "low"), ([0, 4], "low")]
)
def test_balance_counts_classes(examples_from, labels, severity):
    rows = [f"{label}{i} {label} -" for label, n in enumerate(labels) for i in range(n)]
    finding = composition.balance(examples_from("\n".join(rows)))
    assert finding.counts == {"all": labels}
    assert finding.severity == severity
    assert finding.evidence == f"normal {labels[0]}, fracture {labels[1]}."


def test_balance_counts_classes_of_each_split_and_says_which_are_missing(examples_from, ten_images):
    finding = composition.balance(ten_images)
    assert finding.counts == {"all": [6, 4], "train": [2, 2], "validation": [2, 1], "test": [2, 1]}
    assert finding.severity == "none"
    assert finding.evidence.endswith("By split: train 2 + 2; validation 2 + 1; test 2 + 1.")
    rows = "a 0 train\nb 1 train\nc 2 train\nd 1 test"
    finding = composition.balance(examples_from(rows, classes=("x", "y", "z")))
    assert finding.counts == {"all": [1, 2, 1], "train": [1, 1, 1], "test": [0, 1, 0]}
    assert finding.severity == "high"
    assert finding.advice == "A class is missing in test."


@pytest.mark.parametrize(
    ("height", "source", "severity", "counts"),
    [
        ([8, 8, 8, 8], [0, 0, 2, 2], "none", (1, 0)),
        ([8, 8, 8, 9], [0, 1, 2, 3], "low", (2, 0)),
        ([9, 8, 9, 8], [0, 0, 2, 2], "medium", (2, 2)),  # the larger of each family is its original
        ([9, 8, 8, 8], [0, 0, 2, 2], "low", (2, 1)),  # not in more than half of the families
        ([9, 9, 8, 7], [0, 0, 0, 3], "low", (3, 0)),  # two are the largest
    ],
)
def test_sizes_tell_originals_from_copies_where_one_of_a_family_is_larger(
    examples_from, height, source, severity, counts
):
    examples = examples_from("a 0 -\nb 0 -\nc 1 -\nd 1 -", height=height)
    finding = composition.sizes(examples, np.array(source))
    assert finding.severity == severity
    names = ("sizes", "families with one largest image")
    assert finding.counts == dict(zip(names, counts, strict=True))


def test_the_larger_image_has_more_pixels_whichever_side_is_longer(examples_from):
    sides = {"height": [8, 8, 9, 8], "width": [9, 8, 8, 8]}
    examples = examples_from("a 0 -\nb 0 -\nc 1 -\nd 1 -", **sides)
    finding = composition.sizes(examples, np.array([0, 0, 2, 2]))
    assert finding.severity == "medium"
    assert finding.counts == {"sizes": 3, "families with one largest image": 2}


def test_many_sizes_are_a_sentence_width_first(examples_from):
    sides = {"height": 600 + np.arange(1000), "width": np.full(1000, 512)}
    examples = examples_from("\n".join(f"{i} 0 -" for i in range(1000)), **sides)
    finding = composition.sizes(examples, np.arange(1000))
    assert finding.evidence == (
        "Width x height: 512 x 600: 1, 512 x 601: 1, 512 x 602: 1, 512 x 603: 1 and 996 more sizes."
    )
    assert finding.examples == ["999", "998"]
