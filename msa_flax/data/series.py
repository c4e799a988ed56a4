"""CT series from single slices: which belong together, in which order, and what is odd about them.

Positions come from the geometry (Image Plane module, PS3.3 C.7.6.2), never from file names or
instance numbers, which some scanners and archives count against the patient or not at all.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from msa_flax.data.dicom_header import DicomSlice, normal

SAME_PLACE = 0.01  # mm: closer slices are at one place; headers are written with 1e-3 mm or finer
GAP = 1.5  # median steps: a longer step leaves slices out (ours)
IRREGULAR = 0.1  # of the median step: what a step may differ from it (ours)
IRREGULAR_SHARE = 0.05  # of the steps, at most, that may be irregular (ours)
TILT = 15.0  # degrees, half of what is read at all (ours)
DRIFT = 2.0  # degrees; a table that sags moves slices by a fraction of one (ours)
SAME_DIRECTION = 0.01  # largest difference of direction cosines in one series: half a degree


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReport:
    """How regular the slices of a series lie."""

    median_step: float  # mm between neighbours that are at two places; nan: fewer than two places
    gaps: tuple[tuple[float, float], ...]  # (position before it in mm, its step in median steps)
    duplicates: int  # slices at the place of another one
    irregular: float  # share of the steps, gaps apart, that differ from the median by over 10 %
    tilt: float  # degrees between the normal of the slices and the patient's long axis
    drift: float  # degrees between the normal and the line of the positions: a tilted gantry
    flags: tuple[str, ...]  # what is odd: "gap", "duplicates", "irregular", "tilted", "mixed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Slices of one series in order, the lowest first."""

    series_uid: str
    study_uid: str
    patient_id: str
    slices: tuple[DicomSlice, ...]
    positions_mm: np.ndarray  # float64 [n], along the normal, towards the head, ascending
    report: SeriesReport


def find_series(slices: Iterable[DicomSlice]) -> list[Series]:
    """Groups slices into series, sorted by study and series; every slice is in exactly one.

    Slices of one series UID that differ in size, spacing, orientation or frame of reference are
    series of their own, flagged as "mixed": positions of one say nothing about the other.
    """
    groups: dict[tuple[str, str], list[list[DicomSlice]]] = {}
    ordered = sorted(slices, key=lambda one: (one.study_uid, one.series_uid, *_place(one)))
    for one in ordered:
        alike = groups.setdefault((one.study_uid, one.series_uid), [])
        home = next((group for group in alike if _alike(group[0], one)), None)
        if home is None:
            alike.append([one])
        else:
            home.append(one)
    return [_series(group, mixed=len(alike) > 1) for alike in groups.values() for group in alike]


def _place(one: DicomSlice) -> tuple[float, int, str, str, int]:
    at = float(np.dot(normal(one.orientation), one.position))
    return at, one.instance_number, one.sop_uid, str(one.path), one.frame


def _alike(a: DicomSlice, b: DicomSlice) -> bool:
    numbers = zip(a.orientation + a.spacing, b.orientation + b.spacing, strict=True)
    return (a.rows, a.columns, a.frame_of_reference_uid) == (
        b.rows,
        b.columns,
        b.frame_of_reference_uid,
    ) and all(abs(x - y) <= SAME_DIRECTION for x, y in numbers)


def _series(slices: Sequence[DicomSlice], *, mixed: bool) -> Series:
    first = slices[0]
    across = np.array(normal(first.orientation))
    points = np.array([one.position for one in slices])
    order = np.argsort(points @ across, kind="stable")
    points = points[order]
    return Series(
        series_uid=first.series_uid,
        study_uid=first.study_uid,
        patient_id=first.patient_id,
        slices=tuple(slices[i] for i in order),
        positions_mm=points @ across,
        report=_report(points, across, mixed=mixed),
    )


def _report(points: np.ndarray, across: np.ndarray, *, mixed: bool) -> SeriesReport:
    """Describes positions, float64 [n, 3], in ascending order along the unit vector ``across``."""
    along = points @ across
    steps = np.diff(along)
    apart = steps > SAME_PLACE
    median = float(np.median(steps[apart])) if apart.any() else math.nan
    gap = apart & (steps > GAP * median)
    regular = steps[apart & ~gap]
    irregular = float((np.abs(regular / median - 1) > IRREGULAR).mean()) if len(regular) else 0.0
    tilt = _degrees(across[2])
    travel = points[-1] - points[0]
    drift = _degrees(travel @ across / np.linalg.norm(travel)) if apart.any() else 0.0
    duplicates = int((~apart).sum())
    odd = {
        "gap": bool(gap.any()),
        "duplicates": duplicates > 0,
        "irregular": irregular > IRREGULAR_SHARE,
        "tilted": tilt > TILT or drift > DRIFT,
        "mixed": mixed,
    }
    return SeriesReport(
        median_step=median,
        gaps=tuple((float(along[i]), float(steps[i] / median)) for i in np.flatnonzero(gap)),
        duplicates=duplicates,
        irregular=irregular,
        tilt=tilt,
        drift=drift,
        flags=tuple(name for name, is_so in odd.items() if is_so),
    )


def _degrees(cosine: float) -> float:
    return math.degrees(math.acos(min(1.0, abs(float(cosine)))))
