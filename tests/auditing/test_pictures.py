import json

import cv2
import numpy as np
import pytest

from msa_flax.auditing import pictures
from msa_flax.files import SCHEMA_VERSION

SOURCES, COPIES = 40, 3
N = SOURCES * COPIES
FILES = {"audit.json", "audit.md", "audit.png", "families.png"}


def strict(path):
    def refuse(value):
        raise AssertionError(f"{value} is not JSON")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def no_pairs(case):
    case.change_families(
        family=np.arange(N),
        pairs=np.zeros((0, 2), int),
        similarity=np.zeros(0, np.float32),
        degrees=np.zeros(0, np.float32),
        mirrored=np.zeros(0, np.bool_),
    )


def no_positions(case):
    case.change(slice_index=np.full(N, -1))


def no_facts(case):
    no_positions(case)
    case.change(facts={})


def three_classes(case):
    source = np.repeat(np.arange(SOURCES), COPIES)
    case.change(label=source % 3, classes=("a", "b", "c"))


def nine_classes(case):
    source = np.repeat(np.arange(SOURCES), COPIES)
    case.change(label=source % 9, classes=tuple(f"fracture of type {i}" for i in range(9)))


def no_parts(case):
    case.change(part=np.full(N, ""))


def no_groups(case):
    case.change(group=np.full(N, ""))


def many_groups(case):
    case.change(group=np.array([f"group ${i}_" for i in range(N)]))


def one_source(case):
    case.change(family=np.full(N, "f"))


def odd_names(case):
    names = [f"$a_{i}^$|{'long' * 40} (é).png" for i in range(N)]
    case.change(example_id=np.array(names))
    case.change(bad_files=(("$x$.png", "no | image"),))


def long_names(case):
    uid = "1.2.826.0.1.3680043.8.498." + "7" * 38  # as long as DICOM allows
    case.change(group=np.array([f"{uid[:-2]}{i:02d}" for i in np.arange(N) // 12]))
    case.change(classes=("a class with a long name, as long as a line " * 2, "another " * 12))


def crossing(case):
    case.change(part=np.array(["train", "validation", "test"] * SOURCES))


ALL = [
    no_pairs,
    no_positions,
    no_facts,
    three_classes,
    nine_classes,
    no_parts,
    no_groups,
    many_groups,
    one_source,
    odd_names,
    long_names,
    crossing,
]


@pytest.mark.parametrize("change", ALL)
def test_all_files_are_written_whatever_is_not_known(simulated, change, tmp_path):
    case = simulated()
    change(case)
    result = case.audit()
    result.write(tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out"
    assert {path.name for path in out.iterdir()} == FILES
    for name in ("audit.png", "families.png"):
        assert cv2.imread(str(out / name)).std() > 0
    assert (out / "audit.md").read_text("utf-8") == result.markdown()
    values = strict(out / "audit.json")
    assert values == json.loads(json.dumps({"schema_version": SCHEMA_VERSION, **result.to_dict()}))
    assert values["n"] == N
    assert [finding["key"] for finding in values["findings"]] == [
        finding.key for finding in result.findings
    ]


# What is drawn.


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, in their order."""
    found = []
    from matplotlib.figure import Figure

    original = Figure.savefig

    def savefig(self, *args, **kwargs):
        original(self, *args, **kwargs)
        found.append(self)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def texts(figure):
    from matplotlib.text import Text

    return {text.get_text().replace("\n", " ") for text in figure.findobj(Text)}


@pytest.mark.parametrize("change", [three_classes, nine_classes, long_names, many_groups])
def test_every_legend_is_in_the_figure_and_every_slice_in_its_groups_row(
    simulated, change, tmp_path, figures
):
    case = simulated()
    change(case)
    result = case.audit()
    pictures.overview(result.examples, result.label_from, tmp_path / "a.png", title="a set")
    (figure,) = figures
    left, right = figure.axes
    for axes in (left, right):
        box = axes.get_legend().get_window_extent()
        assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
    assert len(left.get_legend().get_texts()) == len(case.examples.classes)
    groups = sorted(set(case.examples.group.tolist()))[:20]
    where = dict(zip(case.examples.group.tolist(), case.examples.slice_index.tolist(), strict=True))
    assert set(where) >= set(groups)
    drawn = set()
    for line in left.lines:
        for x, y in zip(*line.get_data(), strict=True):
            assert abs(y - round(y)) < 0.35
            drawn.add((groups[round(y)], x))
    rows = np.isin(case.examples.group, groups)
    expected = zip(
        case.examples.group[rows].tolist(), case.examples.slice_index[rows].tolist(), strict=True
    )
    assert drawn == set(expected)


def test_every_bar_is_an_accuracy_with_its_interval(simulated, tmp_path, figures):
    result = simulated().audit()
    pictures.overview(result.examples, result.label_from, tmp_path / "a.png", title="")
    right = figures[0].axes[1]
    names = [label.get_text() for label in right.get_yticklabels()]
    assert sorted(names) == ["bytes", "mean", "slice position"]  # all images have one size
    bars, whiskers = right.patches, right.collections
    for k, unit in enumerate(("family", "group")):
        for y, name in enumerate(names):
            value = result.label_from[name][unit]
            assert bars[3 * k + y].get_width() == pytest.approx(value.accuracy)
            start, end = whiskers[k].get_segments()[y][:, 0]
            assert start == pytest.approx(min(value.low, value.accuracy))
            assert end == pytest.approx(max(value.high, value.accuracy))


def test_what_is_not_known_is_said_in_the_figure(simulated, tmp_path, figures):
    case = simulated()
    no_facts(case)
    no_pairs(case)
    case.audit().write(tmp_path)
    overview, pairs = figures
    assert {"slice positions are not known", "nothing could be measured"} <= texts(overview)
    assert "no two images are alike" in texts(pairs)


def drawn_pairs(figure):
    """Returns, for each row of a figure of pairs, its name and the files that it shows."""
    found = {}
    for axes in figure.axes:
        if axes.get_ylabel():
            found[axes.get_ylabel().replace("\n", " ")] = files = []
        if axes.get_xlabel():
            files.append(axes.get_xlabel().replace("\n", " "))
    return found


def test_pairs_of_different_families_are_shown_the_most_telling_ones_first(
    simulated, tmp_path, figures
):
    case = simulated()
    made = len(case.families.pairs)
    likeness = case.families.similarity.copy()
    # The weakest links are those of 15 and 16, and of 30 and 31; 17 is of the first one's family.
    assert case.families.pairs[[10, 11, 20]].tolist() == [[15, 16], [15, 17], [30, 31]]
    likeness[[10, 11, 20]] = 0.71, 0.715, 0.72
    case.change_families(similarity=likeness)
    part, label = case.examples.part.copy(), case.examples.label.copy()
    part[31], label[16] = "validation", 1 - label[16]
    result = case.change(part=part, label=label).audit()
    pictures.pairs(result.examples, result.families, tmp_path / "a.png")
    found = drawn_pairs(figures[0])

    def files(*rows):
        return [str(case.examples.example_id[i]) for i in rows]

    assert list(found) == [
        "copies in two classes",
        "copies in two splits",
        "copies, weakest links",
        "not copies, most alike",
    ]
    assert found["copies in two classes"] == files(15, 16)
    assert found["copies in two splits"] == files(30, 31)
    assert found["copies, weakest links"][:4] == files(15, 16, 30, 31)
    assert len(found["copies, weakest links"]) == 2 * 5
    assert found["not copies, most alike"] == files(3, 6, 0, 3)  # 0.2, then 0.1
    assert made == len(result.families.pairs)
    assert {"0.71, 30°", "0.20, 30° mirrored"} <= texts(figures[0])


# What is written beside it.


def test_what_has_no_number_is_null_with_a_reason(simulated, tmp_path):
    case = simulated()
    case.change_facts(mean=np.zeros(N))
    case.audit().write(tmp_path)
    found = strict(tmp_path / "audit.json")["label_from"]["mean"]["family"]
    assert found["accuracy"] is found["low"] is found["high"] is None
    assert found["reason"] == "it is the same for every image"


def test_writing_twice_gives_the_same_bytes(simulated, rungs, scores, tmp_path):
    for name in "ab":
        simulated().audit(ladder=rungs, model=scores).write(tmp_path / name)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_audit_json_comes_last_and_not_at_all_if_something_else_fails(
    simulated, tmp_path, monkeypatch
):
    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(pictures, "pairs", fail)
    with pytest.raises(OSError, match="full"):
        simulated().audit().write(tmp_path)
    assert not (tmp_path / "audit.json").exists()
