import itertools

import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from msa_flax.data.phantom import LEVELS, PhantomError, draw_patient, draw_slice

PATIENTS = 160  # the first three quarters fit the audits, the others measure them


def equal(a, b):
    return np.array_equal(a.image, b.image) and np.array_equal(a.mask, b.mask)


def small(slices, size):
    images = [cv2.resize(s.image, (size, size), interpolation=cv2.INTER_AREA) for s in slices]
    return np.stack(images).astype(np.float32) / 255


def held_out_auc(features, slices, penalty):
    labels = np.array([s.label for s in slices])
    train = np.arange(len(slices)) < 3 * len(slices) // 4  # whole patients, of eight slices each
    scaled = StandardScaler().fit(features[train]).transform(features)
    model = LogisticRegression(C=1 / penalty, max_iter=2000).fit(scaled[train], labels[train])
    return roc_auc_score(labels[~train], model.decision_function(scaled[~train]))


def summary(slices):
    """What must not tell the label: level, mean, spread, size and noise of the picture."""
    level = np.eye(len(LEVELS))[[s.slice_index for s in slices]]
    rest = [(s.image.mean(), s.image.std(), s.image.shape[0]) for s in slices]
    return np.hstack([level, rest])


def textures(slices):
    """Mean responses to fixed random filters: what a first layer and pooling could see."""
    filters = np.random.default_rng(0).normal(size=(24, 5, 5)).astype(np.float32)
    filters -= filters.mean((1, 2), keepdims=True)
    filters /= np.linalg.norm(filters, axis=(1, 2), keepdims=True)
    return np.array(
        [
            [
                np.maximum(response - bias, 0).mean()
                for response in (cv2.filter2D(image, -1, kernel) for kernel in filters)
                for bias in (0, 0.4, 0.8)
            ]
            for image in small(slices, 128)
        ]
    )


@pytest.fixture(scope="module")
def slices():
    return [s for patient in range(PATIENTS) for s in draw_patient(0, patient)]


def test_a_slice_can_be_drawn_again_and_without_the_others():
    assert all(equal(s, draw_slice(3, 7, s.slice_index)) for s in draw_patient(3, 7))


def test_seed_patient_and_slice_all_change_the_picture():
    # Zeros and ones in every place: short keys of numpy's streams would run into each other.
    drawn = [draw_slice(*key, slices=9) for key in itertools.product((0, 1), repeat=3)]
    assert not any(equal(a, b) for a, b in itertools.combinations(drawn, 2))


def test_a_slice_says_what_it_is():
    drawn = draw_patient(0, 7)
    assert [s.level for s in drawn] == list(LEVELS)
    assert [s.slice_index for s in drawn] == list(range(8))
    assert {s.patient for s in drawn} == {"P0007"}
    assert all(s.image.shape == s.mask.shape for s in drawn)
    assert all(s.image.dtype == s.mask.dtype == np.uint8 for s in drawn)


def test_patients_differ_in_size_within_the_documented_range(slices):
    sides = {s.image.shape for s in slices}
    assert len(sides) > 30  # of 65 possible ones
    assert all(160 <= h == w <= 224 for h, w in sides)


def test_levels_are_spread_over_any_number_of_slices():
    assert [s.level for s in draw_patient(0, 0, slices=3)] == ["C0", "C2", "C5"]
    twice = [s.level for s in draw_patient(0, 0, slices=16)]
    assert twice == [level for level in LEVELS for _ in range(2)]


def test_the_mask_is_empty_exactly_where_there_is_no_fracture(slices):
    for s in slices:
        assert s.label == int(s.mask.any())
        assert s.mask.max() <= 1


def test_every_fracture_is_wide_enough_to_survive_resizing(slices):
    for s in slices:
        share = cv2.resize(s.mask.astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA)
        assert s.label == 0 or share.sum() >= 10  # pixels at 128: about 2 wide and 5 long


@pytest.mark.parametrize("index", range(8))
def test_the_fracture_is_dark_and_the_only_difference_between_the_classes(index):
    for patient in range(12):
        broken = draw_slice(0, patient, index, fractured=True)
        whole = draw_slice(0, patient, index, fractured=False)
        change = broken.image.astype(int) - whole.image
        assert change[broken.mask == 1].mean() < -40  # grey values; noise is about 5
        # The longest fragment, a spinous process moved by 5 mm, changes less than this.
        assert (change != 0).mean() < 0.12
        assert broken.label == 1
        assert whole.label == 0


def test_the_coin_that_decides_the_label_ignores_the_level(slices):
    share = np.array([s.label for s in slices]).reshape(PATIENTS, 8).mean(0)
    assert (abs(share - 0.5) < 0.16).all()  # four standard deviations of 160 fair coins


def test_level_size_and_brightness_do_not_tell_the_label(slices):
    assert held_out_auc(summary(slices), slices, 1) < 0.65  # 0.5 and four deviations of chance


def test_thumbnails_do_not_tell_the_label(slices):
    assert held_out_auc(small(slices, 32).reshape(len(slices), -1), slices, 100) < 0.65  # as above


def test_the_audits_see_a_confounded_phantom():
    slices = [s for p in range(40) for s in draw_patient(0, p, confounded=True)]
    assert {(s.level in LEVELS[:4], s.label) for s in slices} == {(True, 1), (False, 0)}
    assert held_out_auc(summary(slices), slices, 1) > 0.99
    assert held_out_auc(small(slices, 32).reshape(len(slices), -1), slices, 100) > 0.95


def test_local_texture_tells_the_label(slices):
    assert held_out_auc(textures(slices), slices, 10) > 0.95  # learnable with no deep network


@pytest.mark.parametrize(
    ("seed", "patient", "index", "count"),
    [(-1, 0, 0, 8), (2**32, 0, 0, 8), (0, -1, 0, 8), (0, 0, 8, 8), (0, 0, -1, 8), (0, 0, 0, 0)],
)
def test_numbers_outside_their_range_are_refused(seed, patient, index, count):
    with pytest.raises(PhantomError, match="expected seed and patient in 0"):
        draw_slice(seed, patient, index, slices=count)
