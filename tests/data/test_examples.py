import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from msa_flax.data.examples import DataError, from_rows, pixel_hash


def six_examples(n=6, *, order=None, masks=False, **changes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 4, 4), dtype=np.uint8)
    rows = [
        {
            "example_id": f"train/normal/{i}.png",
            "label": i % 2,
            "group": f"B{i // 3}",
            "family": "",
            "slice_index": i,
            "part": "train",
            "height": 8,
            "width": 9,
        }
        | changes
        for i in range(n)
    ]
    order = list(range(n)) if order is None else order
    chosen = images[order]
    return from_rows([rows[i] for i in order], chosen, masks=chosen // 2 if masks else None)


def equal(a, b):
    return all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name))
        for field in dataclasses.fields(a)
    )


def test_the_order_of_the_rows_does_not_matter():
    assert equal(six_examples(masks=True), six_examples(order=[3, 0, 5, 1, 4, 2], masks=True))


def test_columns_have_the_declared_types():
    examples = six_examples(masks=True)
    assert examples.label.dtype == np.int8
    assert examples.slice_index.dtype == np.int64  # numbers in names have up to 18 digits
    assert examples.height.dtype == examples.width.dtype == np.int32
    assert examples.images.dtype == examples.masks.dtype == np.uint8
    assert all(
        getattr(examples, name).dtype.kind == "U"
        for name in ("example_id", "group", "family", "part")
    )


def test_an_empty_data_set_keeps_its_types():
    examples = from_rows([], np.empty((0, 4, 4), np.uint8))
    assert len(examples) == 0
    assert examples.example_id.dtype.kind == "U"


def test_an_id_that_occurs_twice_is_refused_by_name():
    with pytest.raises(DataError, match=r"'same' occurs more than once"):
        six_examples(example_id="same")


def test_take_keeps_rows_together_and_in_the_asked_order():
    examples = six_examples(masks=True)
    taken = examples.take([4, 1])
    assert taken.example_id.tolist() == ["train/normal/4.png", "train/normal/1.png"]
    for name in ("label", "slice_index", "group", "images", "masks"):
        assert np.array_equal(getattr(taken, name), getattr(examples, name)[[4, 1]])
    assert taken.fingerprint == dataclasses.replace(taken).fingerprint != examples.fingerprint


def test_take_of_nothing_is_empty():
    assert len(six_examples().take([])) == 0


def test_take_keeps_facts_and_hashes_of_files_with_their_rows():
    rows = [
        {"example_id": f"{i}", "label": 0, "group": "", "family": "", "slice_index": -1, "part": ""}
        | {"height": 4, "width": 4, "facts": {"bytes": 10 * i}, "file_hash": f"hash {i}"}
        for i in (2, 0, 1)
    ]
    examples = from_rows(rows, np.zeros((3, 4, 4), np.uint8))
    assert examples.facts["bytes"].tolist() == [0, 10, 20]
    assert examples.facts["bytes"].dtype == np.float64
    taken = examples.take([2, 1])
    assert taken.facts["bytes"].tolist() == [20, 10]
    assert taken.pixels.tolist() == taken.file_hash.tolist() == ["hash 2", "hash 1"]


def test_the_fingerprint_sees_every_pixel_label_and_name():
    examples = six_examples()
    digests = {examples.fingerprint}
    for name in ("example_id", "label", "images"):
        column = getattr(examples, name).copy()
        column.flat[-1] = "x" if column.dtype.kind == "U" else column.flat[-1] ^ 1
        digests.add(dataclasses.replace(examples, **{name: column}).fingerprint)
    assert len(digests) == 4


def test_the_fingerprint_and_the_hashes_of_pixels_do_not_confuse_shapes():
    pixels = np.zeros(16, np.uint8)
    shapes = [pixels.reshape(shape) for shape in ((1, 8, 2), (1, 2, 8))]
    one = six_examples().take([0])
    tall, wide = (dataclasses.replace(one, images=images) for images in shapes)
    assert tall.fingerprint != wide.fingerprint
    assert tall.pixels[0] != wide.pixels[0] == pixel_hash(shapes[1][0])


def test_the_fingerprint_stays_the_same_from_version_to_version():
    # Runs and cached features are found by it.
    expected = "7a4b7711efe54e6cbfd3a4b7ef63ed6f0ccd9b2234e0003ff2ce7dfb8edcae13"
    assert six_examples().fingerprint == expected


def test_pixels_are_those_of_the_files_where_these_were_read():
    examples = six_examples()
    assert len(set(examples.pixels.tolist())) == 6
    hashes = np.array(list("aabbcc"))
    assert dataclasses.replace(examples, file_hash=hashes).pixels.tolist() == list("aabbcc")


def test_labels_of_many_classes_are_not_cut_off():
    rows = [
        {"example_id": f"{i:03d}", "label": i, "group": "", "family": "", "slice_index": -1}
        | {"part": "", "height": 4, "width": 4}
        for i in range(300)
    ]
    classes = [f"class {i}" for i in range(300)]
    examples = from_rows(rows, np.zeros((300, 4, 4), np.uint8), classes=classes)
    assert examples.label.tolist() == list(range(300))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["val", "train"], ["train", "val"]),
        (["Testing", "valid", "TRAINING"], ["TRAINING", "valid", "Testing"]),
        (["test", "validation", "", "train"], ["train", "validation", "test"]),
        (["extra", "test", "batch", "train"], ["train", "test", "batch", "extra"]),
        (["", ""], []),
    ],
)
def test_parts_are_in_the_order_of_their_use_training_first(parts, expected):
    examples = six_examples(n=len(parts))
    assert dataclasses.replace(examples, part=np.array(parts)).parts == expected


def test_groups_and_families_are_known_only_if_all_are():
    assert six_examples().groups_known
    assert not six_examples().families_known
    assert not six_examples(group="").groups_known
    assert six_examples(family="f").families_known


def test_importing_the_data_package_needs_no_tensorflow():
    modules = "data, data.augment, data.examples, data.images, data.phantom"
    modules += ", data.facts, data.folder, data.splits, data.leakage"
    imports = "; ".join(f"import msa_flax.{name}" for name in modules.split(", "))
    code = f"{imports}; import sys; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
