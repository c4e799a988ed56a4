"""Series: order by geometry, and every gap and copy is found."""

from pydicom.data import get_testdata_file

from msa_flax.data.dicom import read_header
from msa_flax.data.series import find_series


def slices_of(*names):
    paths = [get_testdata_file(f"dicomdirtests/{name}", download=False) for name in names]
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
