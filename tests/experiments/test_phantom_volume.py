import cv2
import numpy as np
import phantom_volume
import pytest
from phantom_volume import Settings, Volume

from msa_flax.files import UserError

SMALL = Settings(matrix=96, step=1.0, width=3.0)


@pytest.fixture(scope="module")
def broken():
    volume = Volume(SMALL, 1, fractured=True)
    return volume, list(volume.slices())


def test_a_slice_is_drawn_alone_and_again(broken):
    _, slices = broken
    for index in (40, 3):
        again = Volume(SMALL, 1, fractured=True).draw(index)
        assert all(map(np.array_equal, again, slices[index]))


def test_seed_and_number_change_the_study():
    def first(seed, number):
        settings = Settings(seed=seed, matrix=96)
        return Volume(settings, number, fractured=False).draw(0).hounsfield

    assert not np.array_equal(first(0, 0), first(0, 1))
    assert not np.array_equal(first(0, 0), first(1, 0))


def test_the_fracture_is_the_only_difference_between_the_classes(broken):
    _, slices = broken
    whole = Volume(SMALL, 1, fractured=False)
    for index, drawn in enumerate(slices):
        change = drawn.hounsfield - whole.draw(index).hounsfield
        far = cv2.dilate(drawn.mask, np.ones((7, 7))) == 0  # the blur reaches less
        # Splinters of the gap that cover less than half a pixel are in no mask.
        assert np.count_nonzero(change[far]) <= 12
        assert np.count_nonzero(change) < 0.02 * change.size
        assert drawn.mask.any() == change.any()
        if drawn.mask.any():
            # Pixels of 1.6 mm, at least half covered by a line that is 700 HU darker, and blur.
            assert change[drawn.mask > 0].mean() < -200
    assert whole.levels == []


def test_a_fracture_is_seen_in_adjacent_slices_of_its_vertebra():
    for number in range(4):
        volume = Volume(SMALL, number, fractured=True)
        slices = list(volume.slices())
        assert 1 <= len(volume.levels) <= 3
        for level in volume.levels:
            seen = np.flatnonzero([(s.mask == level).any() for s in slices])
            assert len(seen) >= phantom_volume.FEWEST
            assert seen[-1] - seen[0] < 1.5 * len(seen)  # bone may be missing in between
        for drawn in slices:
            assert set(np.unique(drawn.mask)) <= {0, *volume.levels}
            gap = drawn.mask > 0
            np.testing.assert_array_equal(drawn.vertebrae[gap], drawn.mask[gap])


def test_fractures_are_as_likely_at_one_height_as_at_another():
    settings = Settings(matrix=64, step=1.0)
    share = []
    for number in range(80):
        volume = Volume(settings, number, fractured=True)
        share += [f.middle / volume.length for f in volume._fractures]
    counts = np.histogram(share, 6, (0, 1))[0]
    # About 120 fractures: 20 in each sixth, give or take 4; four of these.
    assert (abs(counts - counts.mean()) < 16).all()
    assert {f.number for f in volume._fractures} <= set(range(1, 8))


def test_the_line_is_as_wide_as_asked_for():
    for width in (1.0, 3.0):
        settings = Settings(matrix=256, width=width, contrast=3000)
        volume = Volume(settings, 3, fractured=True)
        fracture = volume._fractures[0]
        canvas = volume._canvas(fracture.middle)
        line = fracture.gap(
            canvas,
            fracture.middle,
            np.full((512, 512), fracture.number, np.uint8),
            width / volume.size,
        )
        path = fracture._path(0.0, fracture.middle) * volume.size
        length = np.hypot(*np.diff(path, axis=0).T).sum()
        area = line.sum() / canvas.scale**2
        assert area / length == pytest.approx(width, rel=0.25)  # bends overlap; a grid of 0.3 mm


def test_tissue_has_its_hounsfield_units(broken):
    _, slices = broken
    hu = np.stack([s.hounsfield for s in slices])
    bone = np.stack([s.vertebrae for s in slices]) > 0
    assert hu[:, 0, 0].mean() < -800  # air, or the foam of a cushion
    assert 300 < np.median(hu[bone]) < 900
    assert hu.min() >= -1024
    assert hu.max() <= 3071


@pytest.mark.parametrize(
    "wrong", [{"seed": -1}, {"matrix": 8}, {"step": 2.0}, {"contrast": -5}, {"width": 0.0}]
)
def test_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}: expected a number from"):
        Volume(Settings(**wrong), 0, fractured=False)
