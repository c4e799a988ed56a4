import dataclasses
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from msa_flax.data.examples import DataError, fingerprint, from_rows
from msa_flax.files import cache_dir


def make(n=6, *, order=None, masks=False, **changes):
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
    assert equal(make(masks=True), make(order=[3, 0, 5, 1, 4, 2], masks=True))


def test_columns_have_the_declared_types():
    examples = make(masks=True)
    assert examples.label.dtype == np.int8
    assert examples.slice_index.dtype == examples.height.dtype == examples.width.dtype == np.int32
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
        make(example_id="same")


def test_take_keeps_rows_together_and_in_the_asked_order():
    examples = make(masks=True)
    taken = examples.take([4, 1])
    assert taken.example_id.tolist() == ["train/normal/4.png", "train/normal/1.png"]
    for name in ("label", "slice_index", "group", "images", "masks"):
        assert np.array_equal(getattr(taken, name), getattr(examples, name)[[4, 1]])
    assert taken.fingerprint == fingerprint(taken.example_id, taken.label, taken.images)
    assert taken.fingerprint != examples.fingerprint


def test_take_of_nothing_is_empty():
    assert len(make().take([])) == 0


def test_the_fingerprint_sees_every_pixel_label_and_name():
    examples = make()
    columns = (examples.example_id, examples.label, examples.images)
    digests = {examples.fingerprint}
    for i, column in enumerate(columns):
        changed = [array.copy() for array in columns]
        changed[i].flat[-1] = "x" if column.dtype.kind == "U" else column.flat[-1] ^ 1
        digests.add(fingerprint(*changed))
    assert len(digests) == 4


def test_the_fingerprint_does_not_confuse_shapes():
    ids, label = np.array(["a"]), np.array([0])
    pixels = np.zeros(16, np.uint8)
    tall, wide = (fingerprint(ids, label, pixels.reshape(s)) for s in ((1, 8, 2), (1, 2, 8)))
    assert tall != wide


def test_groups_and_families_are_known_only_if_all_are():
    assert make().groups_known
    assert not make().families_known
    assert not make(group="").groups_known
    assert make(family="f").families_known


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("MSA_FLAX_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "msa_flax"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == pathlib.Path.home() / ".cache" / "msa_flax"


def test_importing_the_data_package_needs_no_tensorflow():
    modules = "data, data.augment, data.examples, data.images"
    modules += ", data.scan, data.splits, data.leakage"
    imports = "; ".join(f"import msa_flax.{name}" for name in modules.split(", "))
    code = f"{imports}; import sys; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
