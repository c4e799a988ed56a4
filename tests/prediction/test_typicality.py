import pathlib

import cv2
import numpy as np
import pytest
import skimage.data
from sklearn.covariance import LedoitWolf

from msa_flax.data.examples import from_rows
from msa_flax.data.images import preprocess
from msa_flax.data.phantom import draw_slice
from msa_flax.prediction import typicality
from msa_flax.prediction.typicality import TypicalityError, look, measure

MINE = "step 3 of f"


def table(patients, *, slices=8, side=64):
    rows, images = [], []
    for patient in patients:
        for i in range(slices):
            row = dict.fromkeys(("label", "slice_index", "height", "width"), 0)
            row |= {"example_id": f"{patient:04d}/{i}", "group": f"P{patient}"}
            rows.append(row | {"family": "", "part": ""})
            images.append(preprocess(draw_slice(0, patient, i).image, size=side))
    return from_rows(rows, np.stack(images))


def describe(images):
    """A network that sees the mean grey of three bands and nothing else."""
    bands = np.stack([part.mean(axis=(1, 2)) for part in np.array_split(images, 3, axis=1)], 1)
    return np.zeros(len(images), np.float32), bands.astype(np.float32)


@pytest.fixture(scope="module")
def found():
    return measure(describe, table(range(60)), table(range(60, 90)), MINE)


def unlike(found, images):
    looks = np.stack([look(image) for image in images])
    return found.distance(describe(images)[1], looks) > found.limit


def photographs():
    """The pictures that scikit-image ships, of no neck; nothing is downloaded."""
    folder = pathlib.Path(skimage.data.__file__).parent
    found = [
        cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(folder.glob("*.[pj][np]g"))
    ]
    return np.stack([preprocess(image, size=64) for image in found if image is not None])


def test_what_no_slice_looks_like_is_far_and_new_slices_are_near(found):
    new = table(range(100, 140)).images
    rng = np.random.default_rng(0)
    # 1 in 100 lies beyond the limit by its definition; 240 validation slices place it no better.
    assert unlike(found, new).mean() <= 0.04
    assert unlike(found, rng.integers(0, 256, (8, 64, 64), dtype=np.uint8)).all()
    assert unlike(found, np.stack([np.full((64, 64), v, np.uint8) for v in (0, 128, 255)])).all()
    assert unlike(found, 255 - new).all()
    assert unlike(found, new[:, ::-1]).mean() >= 0.9
    assert unlike(found, np.rot90(new, 2, (1, 2))).mean() >= 0.9


def test_natural_photographs_are_far(found):
    pictures = photographs()
    assert len(pictures) >= 20
    assert unlike(found, pictures).all()


def test_the_distance_is_mahalanobis_of_the_whitened_descriptors():
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(200, 5)) @ rng.normal(size=(5, 5))
    looks = np.concatenate([rng.normal(size=(200, 64)), rng.random((200, 16))], axis=1)
    centre, axes = typicality._fit(pooled.astype(np.float32), looks.astype(np.float32))
    away = np.concatenate([pooled, looks], axis=1) - centre
    distance = np.square(away @ axes).sum(axis=1)
    # On the images that it was fitted on, the mean of d squared is near the number of axes.
    assert distance.mean() == pytest.approx(axes.shape[1], rel=0.15)
    covariance = LedoitWolf().fit(away @ axes).covariance_
    assert covariance == pytest.approx(np.eye(axes.shape[1]), abs=0.3)


def test_groups_count_the_same_whatever_their_size():
    distance = np.concatenate([np.full(90, 1.0), np.arange(2.0, 12.0)])
    group = np.array(["large"] * 90 + [f"small {i}" for i in range(10)])
    # Eleven groups; of the distances 99 % of their weight, so the largest one is the limit.
    assert typicality._limit(distance, group) == 11
    assert typicality._limit(distance[:90], group[:90]) == 1


def test_it_is_read_as_it_was_written_and_of_another_checkpoint_it_is_not(found, tmp_path):
    path = tmp_path / "t.npz"
    assert typicality.read(path, MINE) is None
    found.write(path)
    again = typicality.read(path, MINE)
    assert again.limit == found.limit
    assert (again.images, again.groups) == (480, 60)
    assert np.array_equal(again.axes, found.axes)
    assert typicality.read(path, "step 4 of f") is None
    path.write_bytes(path.read_bytes()[:100])
    assert typicality.read(path, MINE) is None


@pytest.mark.parametrize("name", ["limit", "axes", "centre"])
def test_a_file_that_was_changed_is_not_believed(found, tmp_path, name, caplog):
    path = tmp_path / "typicality.npz"
    found.write(path)
    with np.load(path) as file:
        values = dict(file)
    np.savez(path, **values | {name: values[name] * 2})
    assert typicality.read(path, MINE) is None
    assert "it is not as it was written" in caplog.text


def test_it_is_measured_where_it_is_not_stored_and_images_that_are_gone_are_said(tmp_path, caplog):
    def gone():
        raise TypicalityError("the images are gone")

    path = tmp_path / "t.npz"
    assert typicality.kept(path, describe, gone, MINE) is None
    assert "the images are gone" in caplog.text
    assert not path.exists()
    splits = table(range(3)), table(range(3, 5))
    found = typicality.kept(path, describe, lambda: splits, MINE)
    assert found.images == 24
    assert typicality.kept(path, describe, gone, MINE).limit == found.limit


def test_too_few_images_are_refused():
    one = table([0], slices=1)
    with pytest.raises(TypicalityError, match="got 1 and 1"):
        measure(describe, one, one, MINE)


def test_a_few_images_and_constant_pixels_are_no_trouble():
    few = table([0, 1], slices=2)
    few.images[:, :32] = 0
    found = measure(describe, few, table([2], slices=3), MINE)
    assert np.isfinite(found.axes).all()
    assert np.isfinite(found.limit)


def test_features_that_are_all_the_same_or_not_finite_are_no_crash(tmp_path, caplog):
    few, more = table([0, 1]), table([2])
    alike = measure(lambda images: (None, np.zeros((len(images), 4), np.float32)), few, more, MINE)
    assert np.isfinite(alike.axes).all()
    wrong = typicality.kept(
        tmp_path / "t.npz",
        lambda images: (None, np.full((len(images), 4), np.nan, np.float32)),
        lambda: (few, more),
        MINE,
    )
    assert wrong is None
    assert "not finite" in caplog.text
