import pathlib
import re

import cv2
import numpy as np
import pytest

import msa_flax.auditing
from msa_flax.auditing.audit import audit
from msa_flax.auditing.findings import SEVERITIES
from msa_flax.data.examples import Examples
from msa_flax.data.families import find_families
from msa_flax.files import NOTICE

SOURCES, COPIES = 40, 3
N = SOURCES * COPIES


def by_key(result):
    assert len({finding.key for finding in result.findings}) == len(result.findings)
    return {finding.key: finding for finding in result.findings}


def squeezed(text):
    return re.sub(r"\s", "", text)


# What is found.


def test_a_set_whose_label_is_tied_to_position_is_told_from_one_where_it_is_not(simulated):
    tied, independent = by_key(simulated().audit()), by_key(simulated(tied=False).audit())
    finding = tied["label from slice position"]
    assert finding.severity == "high"
    assert finding.counts["family"]["accuracy"] > 0.95
    assert finding.counts["group"]["accuracy"] > 0.95
    assert "in other families" in finding.evidence
    assert "in other groups" in finding.evidence
    assert "label from slice position" not in independent
    # Forty families are too few to say that position tells nothing.
    assert "slice position" in independent["label, cannot be told"].evidence
    for key in ("label, cannot be told", "label from other facts"):
        assert "slice position" not in tied[key].evidence
    # Nothing else differs: not one of the two sets has another shortcut.
    assert set(tied) - set(independent) == {"label from slice position"}
    assert set(independent) <= set(tied)


def test_the_worst_is_found_first(simulated):
    case = simulated()
    case.change(
        file_hash=np.where(np.arange(N) < 6, "same", case.examples.pixels),
        bad_files=(("x.png", "empty"),),
    )
    order = [finding.severity for finding in case.audit().findings]
    assert order == sorted(order, key=SEVERITIES.index)
    assert set(order) == set(SEVERITIES)


def test_unknown_positions_are_no_fact(simulated):
    case = simulated()
    case.examples.slice_index[7] = -1
    result = case.audit()
    assert "slice position" not in result.label_from
    assert set(result.label_from) == {"dimensions", "bytes", "mean"}


def test_height_and_width_are_one_fact_and_a_finding_where_both_are_known(simulated):
    result = simulated().audit()
    assert list(result.label_from) == ["slice position", "bytes", "mean", "dimensions"]
    assert "sizes" in by_key(result)
    result = simulated().change_facts(height=None, width=None).audit()
    assert "sizes" not in by_key(result)
    assert set(result.label_from) == {"slice position", "bytes", "mean"}


@pytest.mark.parametrize("group", ["unknown", "one unknown", "one", "known"])
def test_new_groups_are_asked_about_where_every_group_is_known(simulated, group):
    case = simulated()
    if group != "known":
        name = case.examples.group.copy()
        name[: N if group == "unknown" else 1] = ""
        case.change(group=np.full(N, "G") if group == "one" else name)
    for values in case.audit().label_from.values():
        assert set(values) == ({"family", "group"} if group == "known" else {"family"})


def test_a_fact_that_tells_the_split_is_found_and_none_without_splits(simulated):
    case = simulated()
    assert "split from bytes" not in by_key(case.audit())
    # Twelve families of forty in validation, so that the interval is above the commonest answer.
    source = np.repeat(np.arange(SOURCES), COPIES)
    case.change(part=np.where(source % 2 == 0, "train", "validation"))
    case.change_facts(bytes=1000.0 + source % 2)
    finding = by_key(case.audit())["split from bytes"]
    assert finding.severity == "medium"
    assert finding.counts["family"]["accuracy"] == 1.0
    for part in ("", "train"):
        result = case.change(part=np.full(N, part)).audit()
        assert result.split_from == {}
        assert not any(key.startswith("split from") for key in by_key(result))


def test_images_of_no_part_are_no_part_of_a_split(simulated):
    case = simulated()
    source = np.repeat(np.arange(SOURCES), COPIES)
    part = np.array(["", "test", "train"])[source % 3]
    case.change_facts(bytes=(source % 3).astype(float))
    found = case.change(part=part).audit().split_from["bytes"]["family"]
    # Three answers: were those without a part counted as test images, two would be enough.
    assert found.accuracy == 1.0
    assert found.majority == pytest.approx(14 / 40)


def test_copies_are_one_trial_whether_names_pixels_or_noise_tell_them(simulated):
    def width(case):
        found = case.audit().label_from["mean"]["family"]
        return found.high - found.low

    case = simulated()
    expected = width(case)
    source = np.array([f"f{i}" for i in np.repeat(np.arange(SOURCES), COPIES)])
    for column in ("family", "file_hash"):
        told = simulated().change_families(family=np.arange(N))
        assert width(told) < 0.8 * expected
        assert width(told.change(**{column: source})) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("mean", np.zeros(N), "mean (it is the same for every image)"),
        ("family", np.full(N, "f"), "mean (there is nothing to leave out)"),
        ("label", np.zeros(N, int), "mean (there is only one answer)"),
    ],
)
def test_a_fact_that_could_not_be_measured_says_why(simulated, column, value, reason):
    case = simulated().change(group=np.full(N, ""))
    if column == "mean":
        case.change_facts(mean=value)
    else:
        case.change(**{column: value})
    key = "label, cannot be told" if column == "family" else "label from other facts"
    assert reason in by_key(case.audit())[key].evidence


def test_a_small_set_is_audited_from_its_pixels_alone():
    rng = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(rng.normal(size=(224, 224)), (0, 0), 0.7) for _ in range(12)]
    images = np.stack([np.clip(128 + 40 * one, 0, 255).astype(np.uint8) for one in noise])
    images[6:9] = np.rot90(images[:3], axes=(1, 2))
    examples = Examples(
        example_id=np.array([f"{i}.png" for i in range(12)]),
        label=np.arange(12) % 2,
        group=np.full(12, ""),
        family=np.full(12, ""),
        slice_index=np.full(12, -1),
        part=np.repeat(["train", "val"], 6),
        height=np.full(12, 224),
        width=np.full(12, 224),
        images=images,
    )
    result = audit(examples, find_families(images), name="noise")
    finding = by_key(result)["leakage by pixels"]
    assert finding.severity == "high"
    assert finding.counts == {"val in train": 3, "val": 6}
    assert result.label_from == result.split_from == {}


def test_the_guide_s_python_finds_copies_in_two_splits(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("normal", "fracture"):
            (tmp_path / part / name).mkdir(parents=True)
            noise = cv2.GaussianBlur(rng.normal(size=(224, 224)), (0, 0), 0.7)
            image = np.clip(128 + 40 * noise, 0, 255).astype(np.uint8)
            assert cv2.imwrite(str(tmp_path / part / name / "1.png"), image)
    image = cv2.imread(str(tmp_path / "train/normal/1.png"), 0)
    assert cv2.imwrite(str(tmp_path / "val/normal/2.png"), np.rot90(image))
    guide = pathlib.Path(msa_flax.auditing.__file__).with_name("README.md").read_text("utf-8")
    (code,) = re.findall(r"<!-- from-python -->\n```python\n(.*?)```", guide, re.DOTALL)
    exec(code, {"folder": tmp_path})
    assert "copies in two splits, by pixels" in capsys.readouterr().out


# How it is told.


@pytest.mark.parametrize("tied", [True, False])
def test_text_and_markdown_hold_every_finding(simulated, rungs, scores, tied):
    case = simulated(tied=tied).change(bad_files=(("a|b.png", "half|written"),))
    result = case.audit(ladder=rungs, model=scores)
    text, markdown = squeezed(result.text()), squeezed(result.markdown())
    for finding in result.findings:
        for part in (finding.title, finding.evidence, finding.advice):
            assert squeezed(part) in text
            assert squeezed(part.replace("|", "\\|")) in markdown
    for said in (text, markdown):
        assert squeezed(NOTICE) in said
        assert squeezed("what the model adds to the best shortcut") in said
    assert "a set: 120 images" in result.text()
    findings, _, table = result.text().partition("\n\nshortcut ")
    assert table
    assert max(map(len, findings.splitlines())) <= 96


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_head(simulated, rungs, scores):
    case = simulated().change(bad_files=(("a|b.png", "half|written"),))
    result = case.audit(ladder=rungs, model=scores)
    tables = re.findall(r"(?:^\|.*\|$\n?)+", result.markdown(), re.MULTILINE)
    assert len(tables) == 4  # findings, label, split, ladder
    for rows in tables:
        cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows.strip().splitlines()}
        assert len(cells) == 1


def test_what_is_good_news_is_said_to_be_ok_and_examples_are_named_where_it_is_not(simulated):
    case = simulated()
    same = np.isin(np.arange(N), [0, 9])  # a fracture and a normal one
    case.change(file_hash=np.where(same, "same", case.examples.pixels))
    lines = case.audit().text().splitlines()
    assert any(line.startswith("OK      ") for line in lines)
    assert any(line.startswith("HIGH    ") for line in lines)
    assert "        for instance source 0 copy 0.png; source 3 copy 0.png" in lines
