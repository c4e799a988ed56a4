"""A finished prediction as DICOM objects: a folder for each series, with a report and previews.

What they say is read from the tables of the prediction, so that both say the same.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.config import disable_value_validation

from msa_flax import __version__
from msa_flax.archive.folder import write_together
from msa_flax.archive.origin import READ, Instance, Origin
from msa_flax.archive.preview import preview
from msa_flax.archive.report import report_nothing, report_score
from msa_flax.data import dicom
from msa_flax.data.dicom_header import CT
from msa_flax.files import NOTICE, csv_rows
from msa_flax.prediction import tables
from msa_flax.prediction.inputs import Inputs, Slice
from msa_flax.prediction.predictor import Predictor, decision
from msa_flax.prediction.score import Row
from msa_flax.saliency.render import overlay

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
Files = list[tuple[str, bytes]]  # their names and bytes


@dataclasses.dataclass(slots=True)
class _Series:
    """A DICOM series: its images, the slices that were scored, why others were refused."""

    files: dict[Instance, Path] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def archive_prediction(
    model: Predictor, found: Inputs, out: Path, folder: Path, settings: str
) -> str:
    """Writes the results of each DICOM series into a folder of its own, and returns a summary.

    Args:
        model: that made the prediction.
        found: its inputs.
        out: the folder of its tables.
        folder: where the folders of the series go, whose names are UIDs.
        settings: a digest of what the tables depend on beside the network.

    Raises:
        ArchiveError: a folder holds other results of the same series.
    """
    all_series, others = _gather(found, out)
    unscored = 0
    for (_, uid), series in sorted(all_series.items()):
        origin = _origin(model, settings, uid, series)
        rows, reasons = series.rows, list(series.refused)
        if rows:
            odd = found.flags.get((rows[0]["study"], rows[0]["series"]), ())
            row = tables.series_row(model.scorer, rows, odd)
            reasons = row["flags"].split(";") if row["flags"] else []
        with disable_value_validation():  # what the images say is handed on as it is
            nothing = [report_nothing(origin, reasons)] if reasons else []
            files = nothing or _results(model, origin, series, row)
        write_together(folder / origin.uid("results"), dict(files))
        unscored += len(nothing)
    said = f"{folder}: DICOM results of {len(all_series)} series, {unscored} of them not evaluated"
    return said + f"; images that name no DICOM series have none: {others}" * bool(others)


def _gather(found: Inputs, out: Path) -> tuple[dict[tuple[str, str], _Series], int]:
    """Returns series by study and series UID, and how many images are in none."""
    series: dict[tuple[str, str], _Series] = collections.defaultdict(_Series)
    slices, others = {one.path: one for one in found.slices}, 0
    for row in _rows(out / "slices.csv", tables.SLICES):
        one, head = slices[row["path"]], slices[row["path"]].header
        if head and head.study_uid and head.series_uid and head.sop_uid:
            its = series[head.study_uid, head.series_uid]
            its.files[_instance(one)] = one.file
            its.rows.append(row | {"slice": one})
        else:
            others += 1
    for row in _rows(out / "refused.csv", tables.REFUSED):
        name, reason = row["path"], row["reason"]
        file = slices[name].file if name in slices else Path(name)
        with contextlib.suppress(dicom.DicomError):  # it is none, or its header is damaged
            header = dicom.read_elements(file, _UIDS)
            kind, uid, *key = (str(header.get(name) or "") for name in _UIDS)
            if kind in CT and uid and all(key):
                series[key[0], key[1]].files.setdefault(Instance(kind, uid), file)
                series[key[0], key[1]].refused[reason] += 1
    return dict(series), others


def _rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Returns the rows of a table, none where nothing could be predicted."""
    cells = csv_rows(path)[1:] if path.exists() else []
    rows: list[Row] = [dict(zip(columns, row, strict=True)) for row in cells]
    for row in rows:
        for name in {"probability", "calibrated"} & set(row):
            row[name] = float(row[name]) if row[name] else None
    return rows


def _instance(one: Slice) -> Instance:
    head: Any = one.header
    return Instance(head.sop_class_uid, head.sop_uid, head.frame + 1 if head.frames > 1 else 0)


def _origin(model: Predictor, settings: str, series_uid: str, series: _Series) -> Origin:
    about, scorer, trained = model.about, model.scorer, model.about["trained_on"]
    made = {name: value for name, value in decision(scorer).items() if value is not None}
    said = ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in made.items())
    remarks = [NOTICE, *model.stamps, said]
    if warm := scorer.calibration and scorer.calibration.temperature:
        remarks.append(f"calibration: logits are divided by {warm.value}")
    remarks.append("trained on {source}, images: {images}, groups: {groups}".format(**trained))
    instances = sorted(series.files)
    return Origin(
        header=dicom.read_elements(series.files[instances[0]], READ),
        series_uid=series_uid,
        instances=instances,
        model=f"{about['name'] or 'unnamed'} ({about['backbone']}, {about['checkpoint']})",
        version=__version__,
        fingerprint=model.fingerprint,
        settings=settings,
        remarks=remarks,
    )


def _results(model: Predictor, origin: Origin, series: _Series, row: Row) -> Files:
    """Returns the report of a series, and previews of the slices that drove its score."""
    top, positive = tables.top_slices(series.rows), model.scorer.data.classes[1]
    notes = [f"{row['slices']} of {len(series.files)} images scored; the highest counts"]
    notes += [f"{count} of them cannot be used: {why}" for why, count in series.refused.items()]
    report = report_score(
        origin,
        finding=positive,
        positive=row["decision"] == positive,
        certainty=(row["probability"], row["calibrated"]),
        top=[(_instance(one["slice"]), (one["probability"], one["calibrated"])) for one in top],
        notes=notes,
    )
    files, looked = [report], model.look([one["slice"] for one in top])
    for number, (one, (image, saliency)) in enumerate(zip(top, looked, strict=True), 1):
        words, picture = _words(model, one, saliency), overlay(image, saliency)
        more: Any = {"of": _instance(one["slice"]), "number": number}
        files.append(preview(origin, picture, words, **more))
    return files


def _words(model: Predictor, row: Row, saliency: np.ndarray) -> list[str]:
    """Returns what is burnt into a preview."""
    value = f"{model.scorer.data.classes[1]}: probability {row['probability']:.3f}"
    if row["calibrated"] is not None:
        value += f", calibrated {row['calibrated']:.3f}"
    shown = "Grad-CAM" if (saliency > 0).any() else "Grad-CAM is empty"
    return [NOTICE, f"{value}; threshold {model.scorer.threshold:.3f}; {shown}", *model.stamps]
