"""Files of explanations: names that stay in their folder, pictures, raw maps, the table."""

import csv
import errno
import os
import pathlib
import re

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msa_flax.files import UserError
from msa_flax.saliency.explain import Explanations
from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.outputs import (
    explanations_csv,
    mass_report,
    safe_stem,
    write_explanation,
    write_explanations,
)
from msa_flax.saliency.render import overlay

GREY = np.full((16, 16), 100, np.uint8)
RAMP = np.arange(16, dtype=np.float32).reshape(4, 4)
HOSTILE = [
    "../../x",
    "/etc/passwd",
    "a\0b",
    "x" * 300,
    "",
    ".",
    "..",
    "C:\\x",
    "a/../b",
    "-rf",
    "~",
]


ids = st.text(max_size=400) | st.sampled_from(HOSTILE)


@settings(max_examples=100, deadline=None)
@given(example_id=ids)
@example("../../x")
@example("a\0b")
@example("/" + "x" * 300)
def test_a_stem_is_a_short_plain_name_that_stays_in_its_folder(example_id):
    stem = safe_stem(example_id)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", stem)
    assert len(stem) <= 81
    path = pathlib.Path("/out") / f"{stem}.png"
    assert path.parent == pathlib.Path("/out") == pathlib.Path(os.path.normpath(path)).parent


@settings(max_examples=100, deadline=None)
@given(a=ids, b=ids)
@example("a/b", "a-b")
@example("A", "a")
@example("x" * 300, "x" * 301)
@example("../x", "x")
def test_different_ids_get_different_stems_even_where_case_is_ignored(a, b):
    assert (safe_stem(a).lower() == safe_stem(b).lower()) == (a == b)


def test_a_stem_starts_with_what_a_person_can_read_and_is_the_same_everywhere():
    stem = safe_stem("val/fracture/CSFDV1B10 (18)-rotated1.png")
    assert stem.startswith("val-fracture-CSFDV1B10-18-rotated1-png-")
    assert safe_stem("a").endswith("-ca978112ca1bbdca")  # SHA-256 of "a", a published test vector


def test_ids_that_are_not_valid_text_have_a_stem_too():
    assert safe_stem("caf\udce9") != safe_stem("caf\udce8")


SIGNED = RAMP - 8  # what speaks for the target and what speaks against it


def written(folder, stem="case", **changes):
    arguments = {
        "image": GREY,
        "maps": {
            "gradcam": {"fracture": RAMP, "normal": np.zeros((4, 4), np.float32)},
            "occlusion": {"fracture": SIGNED, "normal": -SIGNED},
        },
        "attention": {k: np.full((4, 4), k / 10, np.float32) for k in (3, 5, 7)},
    }
    return write_explanation(folder, stem, **(arguments | changes))


NAMES = sorted(
    [
        f"case.{method}-{target}.{ending}"
        for method in ("gradcam", "occlusion")
        for target in ("fracture", "normal")
        for ending in ("png", "npy")
    ]
    + [f"case.attention-{k}.{ending}" for k in (3, 5, 7) for ending in ("png", "npy")]
    + ["case.image.png"]
)


def test_an_explanation_is_its_overlays_its_raw_maps_and_its_attention(tmp_path):
    files = written(tmp_path / "new" / "folder")
    assert sorted(os.listdir(tmp_path / "new" / "folder")) == NAMES
    assert sorted(file.name for file in files) == NAMES
    raw = np.load(tmp_path / "new" / "folder" / "case.gradcam-fracture.npy", allow_pickle=False)
    np.testing.assert_array_equal(raw, RAMP)
    signed = np.load(tmp_path / "new" / "folder" / "case.occlusion-normal.npy", allow_pickle=False)
    np.testing.assert_array_equal(signed, -SIGNED)  # raw, with its sign
    picture = cv2.imread(str(tmp_path / "new" / "folder" / "case.gradcam-fracture.png"))
    np.testing.assert_array_equal(picture[:, :, ::-1], overlay(GREY, RAMP))


def test_the_image_itself_is_written_as_it_is(tmp_path):
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    written(tmp_path, image=image)
    picture = cv2.imread(str(tmp_path / "case.image.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(picture, np.repeat(image[:, :, None], 3, axis=2))


def test_the_same_explanation_has_the_same_bytes(tmp_path):
    for a, b in zip(written(tmp_path / "a"), written(tmp_path / "b"), strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_a_network_without_attention_has_no_attention_files(tmp_path):
    written(tmp_path, attention=None)
    assert sorted(os.listdir(tmp_path)) == [name for name in NAMES if "attention" not in name]


def test_a_map_that_cannot_be_shown_leaves_nothing_behind(tmp_path):
    with pytest.raises(SaliencyError, match=r"expected 0\.\.1"):
        written(tmp_path / "out", attention={3: np.full((4, 4), 2.0)})
    assert not (tmp_path / "out").exists()


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("msa_flax.files.os.replace", full_disk)
    with pytest.raises(UserError, match="no space"):
        written(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("example_id", HOSTILE)
def test_a_hostile_id_is_refused_as_a_stem_and_harmless_through_safe_stem(tmp_path, example_id):
    out = tmp_path / "a" / "b" / "out"
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", example_id):
        with pytest.raises(SaliencyError, match="safe_stem"):
            written(out, example_id)
    files = written(out, safe_stem(example_id))
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(everything) == sorted(files)
    assert {path.parent for path in everything} == {out}


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 16, 16), dtype=np.uint8)
LOGIT = np.array([-3, -1, 0, 1, 3], np.float32)


def explanations():
    """Five images by a method with coarse maps, one with signed fine maps, and attention."""
    draw = np.random.default_rng(1).normal
    coarse, fine = draw(size=(5, 4, 4)), draw(size=(5, 16, 16))
    maps = {
        "gradcam": {"fracture": np.maximum(coarse, 0), "normal": np.maximum(-coarse, 0)},
        "occlusion": {"fracture": fine, "normal": -fine},
    }
    return Explanations(logit=LOGIT, maps=maps, attention={3: np.full((5, 4, 4), 0.5)})


def masks_of_four():
    masks = np.zeros_like(IMAGES)
    masks[:4, 4:9, 4:9] = 1
    return masks


def test_the_table_has_a_row_per_image_and_method_and_says_what_lies_in_the_mask(tmp_path):
    found, ids = explanations(), np.array([f"case {i}" for i in range(5)])
    rows = write_explanations(
        tmp_path,
        found,
        example_id=ids,
        label=np.array([1, 1, 0, 0, -1]),
        images=IMAGES,
        masks=masks_of_four(),
    )
    read = list(csv.DictReader(explanations_csv(rows).splitlines()))
    assert [(row["example_id"], row["method"]) for row in read] == [
        (name, method) for name in ids.tolist() for method in found.maps
    ]
    assert {row["label"] for row in read} == {"1", "0", ""}
    assert [row["probability"] for row in read[::2]] == [
        f"{1 / (1 + np.exp(-logit)):.6f}" for logit in LOGIT.astype(float)
    ]
    for row in read[:2]:
        assert float(row["area_share"]) > 0
        assert 0 <= float(row["mass_inside"]) <= 1
        assert float(row["maximum_fracture"]) == pytest.approx(
            found.maps[row["method"]]["fracture"][0].max(), rel=1e-5
        )
    assert {row["mass_inside"] for row in read[-2:]} == {""}  # it has no mask
    files = {path.name for path in tmp_path.iterdir()}
    assert f"{safe_stem('case 4')}.occlusion-normal.png" in files
    assert len(files) == 5 * (4 * 2 + 2 * 1 + 1)


def test_the_mass_on_detected_fractures_is_said_beside_what_the_masks_cover():
    found, detected = explanations(), np.array([True, True, False, False, True])
    inside, area = found.mass(masks_of_four())[:2].mean(axis=0)
    said = mass_report(found, masks_of_four(), detected)
    assert f"on 3 detected 'fracture' images: {inside:.3f} of the map's mass" in said
    assert f"covers {area:.3f} of the image" in said
    assert "1 maps are all zero" in said  # the last image has no mask
    assert "none detected" in mass_report(found, masks_of_four(), np.zeros(5, bool))
