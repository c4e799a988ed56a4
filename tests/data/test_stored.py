import mmap

import numpy as np
import pytest

from msa_flax.data.examples import Examples
from msa_flax.data.stored import fetch, read_images, write_images

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 33, 31), np.uint8)  # rows across pages


@pytest.fixture
def images(tmp_path):
    def write(array):
        array[:] = PIXELS

    write_images(tmp_path / "a/images.npy", PIXELS.shape, write)
    return read_images(tmp_path / "a/images.npy", PIXELS.shape)


def test_images_are_mapped(tmp_path, images):
    assert isinstance(images, np.memmap)
    assert np.array_equal(images, PIXELS)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["images.npy"]


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path):
    def fail(array):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_images(tmp_path / "images.npy", (2, 3, 3), fail)
    assert not list(tmp_path.iterdir())


def test_another_array_or_a_part_of_one_is_refused(tmp_path, images):
    path = tmp_path / "a/images.npy"
    with pytest.raises(ValueError, match=r"expected uint8 \(49"):
        read_images(path, (49, 33, 31))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="mmap length"):
        read_images(path, PIXELS.shape)


def test_no_images_are_an_empty_array(tmp_path):
    write_images(tmp_path / "images.npy", (0, 3, 3), lambda _: None)
    assert read_images(tmp_path / "images.npy", (0, 3, 3)).shape == (0, 3, 3)


@pytest.mark.parametrize("shape", [(7,), (2, 3), (0,)])
def test_fetched_rows_are_those_of_the_array(images, shape):
    rows = np.random.default_rng(1).integers(0, 50, shape)
    for array in (images, PIXELS):
        found = fetch(array, rows)
        assert not isinstance(found, np.memmap)
        assert np.array_equal(found, PIXELS[rows])


def test_the_pages_of_the_rows_and_no_others_are_asked_for(images, monkeypatch):
    asked = []

    class Memory:
        def madvise(self, advice, start, length):
            assert advice == mmap.MADV_WILLNEED
            asked.append((start, start + length))

    monkeypatch.setattr(images, "_mmap", Memory())
    fetch(images, np.array([3, 40]))
    size, first = PIXELS[0].nbytes, images.offset
    for row, (start, end) in zip((3, 40), asked, strict=True):
        assert start % mmap.PAGESIZE == 0
        assert first + row * size - start in range(mmap.PAGESIZE)
        assert end == first + (row + 1) * size


def test_examples_of_a_file_are_those_of_an_array(images):
    known = {name: np.full(50, "", np.str_) for name in ("group", "family", "part")}
    numbers = {name: np.zeros(50, np.int32) for name in ("label", "slice_index", "height", "width")}
    ids = np.array([f"{i:02d}" for i in range(50)])
    kept, held = (
        Examples(example_id=ids, images=array, **known, **numbers) for array in (images, PIXELS)
    )
    assert kept.fingerprint == held.fingerprint
    assert kept.pixels.tolist() == held.pixels.tolist()
    rows = np.array([5, 2])
    assert not isinstance(kept.take(rows).images, np.memmap)
    assert kept.take(rows).fingerprint == held.take(rows).fingerprint
