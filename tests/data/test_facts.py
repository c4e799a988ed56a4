import dataclasses
import io

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data.examples import from_rows
from msa_flax.data.facts import (
    SIZE,
    comparable,
    facts_of_file,
    facts_of_pixels,
    name_order,
    with_facts,
)
from msa_flax.data.folder import list_folder
from msa_flax.data.images import decode

FILE_FACTS = ["bytes", "height", "width", "channels", "metadata"]
PIXEL_FACTS = ["mean", "spread", "border", "black"]


def picture(seed=0, h=40, w=40):
    return np.random.default_rng(seed).integers(0, 256, (h, w), dtype=np.uint8)


def smooth(h=48, w=64):
    y, x = np.mgrid[:h, :w]
    return (128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)).astype(np.uint8)  # JPEG keeps it


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


GREY, COLOUR = smooth(), np.dstack([smooth(), 255 - smooth(), smooth() // 2])
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("Scanner", "A" * 100)


@pytest.mark.parametrize(
    ("content", "suffix", "channels", "metadata"),
    [
        (encoded(GREY), ".png", 1, 0),
        (encoded(COLOUR), ".png", 3, 0),
        (encoded(GREY, pnginfo=TEXT), ".png", 1, 108),  # keyword, a zero, text
        # JFIF's own segment is 16 bytes long; a comment has 2 bytes of length.
        (encoded(GREY, "JPEG"), ".jpg", 1, 16),
        (encoded(COLOUR, "JPEG"), ".jpeg", 3, 16),
        (encoded(GREY, "JPEG", comment=b"B" * 50), ".jpg", 1, 16 + 52),
    ],
    ids=["grey", "colour", "text", "grey JPEG", "colour JPEG", "comment"],
)
def test_facts_of_a_file_are_its_own_and_then_those_of_its_pixels(
    content, suffix, channels, metadata
):
    image = decode(content, f"1{suffix}")
    facts = facts_of_file(content, f"1{suffix}", image)
    assert list(facts) == FILE_FACTS + PIXEL_FACTS
    assert list(facts.values())[:5] == [len(content), 48, 64, channels, metadata]
    assert {name: facts[name] for name in PIXEL_FACTS} == facts_of_pixels(image)


def test_facts_of_the_pixels():
    framed = np.full((100, 50), 200, np.uint8)
    framed[2:-2, 2:-2] = picture(h=96, w=46)  # the border is 4 % of the shorter side wide
    facts = facts_of_pixels(framed)
    assert facts["border"] == 200
    expected = {"mean": framed.mean(), "spread": framed.std(), "black": (framed == 0).mean()}
    assert {name: facts[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    flat = facts_of_pixels(np.zeros((32, 32), np.uint8))
    assert flat == {"mean": 0, "spread": 0, "border": 0, "black": 1}


def test_the_order_of_names_counts_numbers_by_value_inside_each_group():
    names = ["i10.png", "i9.png", "I1.png", "²1.png", "x.png"]
    group = ["a", "a", "a", "a", "b"]
    assert name_order(names, group).tolist() == pytest.approx([2 / 3, 1 / 3, 0, 1, 0])
    assert name_order(["b2", "b10"], ["", ""]).tolist() == [0, 1]


def test_images_are_compared_at_one_size():
    same, large, small = picture(0, SIZE, SIZE), picture(1, 2 * SIZE, 2 * SIZE), smooth()
    assert np.array_equal(comparable(same), same)
    means = large.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))
    assert np.abs(comparable(large) - means).max() <= 0.5  # rounding
    back = cv2.resize(comparable(small), (64, 48), interpolation=cv2.INTER_AREA)
    # Cubic interpolation of this smooth picture overshoots by less than 2 grey values.
    assert np.abs(back.astype(int) - small)[2:-2, 2:-2].max() <= 2


def test_images_in_memory_have_the_same_columns_as_files_but_no_facts_of_files(tmp_path):
    names = ["x/S1 (1).png", "x/S1 (2).png", "y/S2 (3).png", "y/S2 (4).png"]
    for i, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture(i)))
    read = data.inspect(list_folder(tmp_path, DataConfig(), layout="any"))
    fields = ("label", "group", "study", "family", "slice_index", "part", "height", "width")
    rows = [
        {"example_id": name, **{field: getattr(read, field)[i] for field in fields}}
        for i, name in enumerate(names)
    ]
    images = np.stack([picture(i) for i in range(4)])
    found = with_facts(from_rows(rows, images, bad_files=[("b", "why")], classes=["x", "y"]))
    assert list(found.facts) == PIXEL_FACTS
    assert list(read.facts) == [*FILE_FACTS, *PIXEL_FACTS, "name order"]
    for name in PIXEL_FACTS:
        assert np.array_equal(found.facts[name], read.facts[name])
    for field in dataclasses.fields(found):
        if field.name not in ("facts", "bad_files"):
            one, other = getattr(found, field.name), getattr(read, field.name)
            assert np.array_equal(one, other), field.name
            assert not isinstance(other, np.ndarray) or one.dtype == other.dtype
    assert found.bad_files == (("b", "why"),)
