"""Series: order by geometry, and every gap and copy is found."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from public_dicom import public

from msa_flax.data.dicom import read_header
from msa_flax.data.series import find_series


def slices_of(*names):
    paths = [public(f"dicomdirtests/{name}") for name in names]
    return [one for path in paths for one in read_header(path)]


def test_a_public_series_of_five_slices_has_steps_of_2_5_mm():
    names = (2062, 2392, 2693, 3023, 3353)
    (series,) = find_series(slices_of(*(f"98892001/CT5N/{name}" for name in names)))
    assert series.report.median_step == 2.5
    assert series.report.flags == ()
    assert [one.path.name for one in series.slices] == ["3353", "3023", "2693", "2392", "2062"]
    assert series.positions_mm.tolist() == [-1.2375, 1.2625, 3.7625, 6.2625, 8.7625]


def test_the_gap_of_a_public_series_is_found_with_its_factor():
    names = (17106, 17136, 17166, 17196)
    (series,) = find_series(slices_of(*(f"77654033/CT2/{name}" for name in names)))
    ((before, factor),) = series.report.gaps
    assert round(before, 2) == -99.48
    assert round(factor) == 162
    assert series.report.flags == ("gap",)


def slice_at(position, **changes):
    (one,) = read_header(public("CT_small.dcm"))
    return dataclasses.replace(one, position=(0.0, 0.0, float(position)), **changes)


@settings(max_examples=50, deadline=None)
@given(
    steps=st.lists(st.sampled_from(["step", "gap", "copy"]), max_size=30),
    step=st.floats(0.3, 5),
    start=st.floats(-1000, 1000),
    seed=st.randoms(use_true_random=False),
)
def test_every_gap_and_every_copy_is_found_in_whatever_order_slices_come(steps, step, start, seed):
    steps = ["step"] * (steps.count("gap") + 2) + steps  # so that the median is one step
    sizes = {"step": step, "gap": 3 * step, "copy": 0}
    positions = start + np.cumsum([0.0, *(sizes[one] for one in steps)])
    slices = [slice_at(z) for z in positions]
    seed.shuffle(slices)
    (series,) = find_series(slices)
    report = series.report
    assert np.allclose(series.positions_mm, positions)
    assert [one.position[2] for one in series.slices] == sorted(positions)
    # A position of 1,000 mm is a double: off by 1e-13 mm, and a step by a few times that.
    assert report.median_step == pytest.approx(step, abs=1e-9)
    assert [factor for _, factor in report.gaps] == pytest.approx([3] * steps.count("gap"))
    assert report.duplicates == steps.count("copy")
    assert report.irregular == 0
    expected = {"gap": steps.count("gap"), "duplicates": steps.count("copy")}
    assert report.flags == tuple(name for name, count in expected.items() if count)


def test_irregular_steps_are_a_share_of_all_steps():
    positions = np.cumsum([0, 1, 1, 1, 1.2, 1, 1, 0.8, 1, 1, 1])
    (series,) = find_series(map(slice_at, positions))
    assert series.report.irregular == 0.2
    assert series.report.flags == ("irregular",)


@pytest.mark.parametrize("count", [1, 2])
def test_one_place_alone_has_no_step(count):
    (series,) = find_series([slice_at(5)] * count)
    assert np.isnan(series.report.median_step)
    assert series.report.flags == ("duplicates",) * (count - 1)
    assert series.report.drift == 0


def test_a_tilted_gantry_moves_slices_along_the_table_and_is_flagged():
    (one,) = read_header(public("J2K_pixelrep_mismatch.dcm"))
    x, y, z = one.position
    slices = [dataclasses.replace(one, position=(x, y, z + i)) for i in range(5)]
    (series,) = find_series(slices)
    assert round(series.report.tilt) == round(series.report.drift) == 22
    assert series.report.median_step == pytest.approx(np.cos(np.radians(22)), abs=1e-3)
    assert series.report.flags == ("tilted",)


def test_a_volume_cut_along_an_oblique_plane_is_tilted_but_does_not_drift():
    cosine, sine = np.cos(np.radians(20)), np.sin(np.radians(20))
    directions = (1.0, 0.0, 0.0, 0.0, float(cosine), float(sine))
    slices = [
        dataclasses.replace(
            slice_at(0), orientation=directions, position=(0, -sine * i, cosine * i)
        )
        for i in range(4)
    ]
    report = find_series(slices)[0].report
    assert (round(report.tilt), round(report.drift, 5)) == (20, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 64},
        {"spacing": (0.5, 0.5)},
        {"orientation": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0)},
        {"frame_of_reference_uid": "1.2"},
    ],
)
def test_what_lies_otherwise_is_a_series_of_its_own_and_both_are_flagged(changes):
    slices = [slice_at(i, **(changes if i % 3 == 0 else {})) for i in range(9)]
    found = find_series(slices)
    assert sorted(len(one.slices) for one in found) == [3, 6]
    assert all("mixed" in one.report.flags for one in found)
    assert len({one.series_uid for one in found}) == 1


def test_series_are_told_by_their_uid_and_sorted():
    slices = [slice_at(i, series_uid=f"1.{i % 3}", study_uid=f"1.{i % 2}") for i in range(12)]
    found = find_series(slices)
    keys = [(one.study_uid, one.series_uid) for one in found]
    assert keys == sorted(set(keys))
    assert sum(len(one.slices) for one in found) == 12
    assert find_series([]) == []
