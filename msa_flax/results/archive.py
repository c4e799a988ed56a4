"""A finished prediction as DICOM objects: a folder a series, with a report and previews.

What they say is read from the tables of the prediction, so that both say the same.
"""

import collections
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from msa_flax import __version__
from msa_flax.archive.folder import write_together
from msa_flax.archive.objects import READ, Device, Instance, Source, check_installed, remarks, uid_of
from msa_flax.archive.preview import Place, preview
from msa_flax.archive.report import Certainty, Score, report_nothing, report_score
from msa_flax.data import dicom
from msa_flax.data.dicom_header import CT, DicomSlice
from msa_flax.data.headers import ImageError
from msa_flax.data.images import preprocess
from msa_flax.files import csv_rows
from msa_flax.prediction import tables
from msa_flax.prediction.inputs import Inputs, Slice, read_slice
from msa_flax.prediction.predictor import Predictor, decision
from msa_flax.prediction.score import Row
from msa_flax.saliency.render import overlay

__all__ = ["archive_prediction", "check_installed"]

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_Key = tuple[str, str]  # Study Instance UID, Series Instance UID


@dataclasses.dataclass(slots=True)
class _Found:
    """What was found of a DICOM series: its images, rows of its slices, why others were refused."""

    files: dict[Instance, Path] = dataclasses.field(default_factory=dict)
    rows: list[Row] = dataclasses.field(default_factory=list)
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def source(self, series_uid: str) -> Source:
        instances = sorted(self.files)
        header = dicom.read_elements(self.files[instances[0]], READ)
        return Source(header=header, series_uid=series_uid, instances=instances)


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
    device, slices = _device(model, settings), {one.path: one for one in found.slices}
    series, without = _gather(slices, out)
    unscored = 0
    for (_, series_uid), one in sorted(series.items()):
        source, files = one.source(series_uid), {}
        row = _series_row(model, found, one)
        reasons = row["flags"].split(";") if row["flags"] else []
        if not one.rows:
            reasons = list(one.refused)
        if reasons:
            unscored += 1
            files.update([report_nothing(source, device, reasons)])
        else:
            files.update([_report(model, device, source, one, row, slices)])
            files.update(_previews(model, device, source, one, slices))
        write_together(folder / uid_of("results", source, device), files)
    parts = [f"{folder}: DICOM results of {len(series)} series, {unscored} of them not evaluated"]
    parts += [f"none of {count} {what}" for what, count in without.items()]
    return "; ".join(parts)


def _gather(
    slices: Mapping[str, Slice], out: Path
) -> tuple[dict[_Key, _Found], dict[str, int]]:
    """Returns the DICOM series of a prediction, and how much of what else has no DICOM result."""
    series: dict[_Key, _Found] = collections.defaultdict(_Found)
    folders, nameless = set(), 0
    for row in _rows(out / "slices.csv", tables.SLICES):
        one = slices[row["path"]]
        if one.header is None:
            folders.add(one.series)
        elif key := _key(one.header):
            series[key].files[_instance(one.header)] = one.file
            series[key].rows.append(row)
        else:
            nameless += 1
    for row in _rows(out / "refused.csv", tables.REFUSED):
        taken = _refused(row["path"], slices)
        if taken:
            key, instance, file = taken
            series[key].files[instance] = file
            series[key].refused[row["reason"]] += 1
    without = {
        "folders of PNG or JPEG images": len(folders),
        "slices that do not name their study, series and image": nameless,
    }
    return dict(series), {what: count for what, count in without.items() if count}


def _rows(path: Path, columns: tuple[str, ...]) -> list[Row]:
    if not path.exists():
        return []
    rows = [dict(zip(columns, cells, strict=True)) for cells in csv_rows(path)[1:]]
    return [row | {name: _number(row[name]) for name in _NUMBERS if name in row} for row in rows]


_NUMBERS = ("probability", "calibrated")


def _number(text: str) -> float | None:
    return float(text) if text else None


def _key(header: DicomSlice) -> _Key | None:
    named = header.study_uid and header.series_uid and header.sop_uid
    return (header.study_uid, header.series_uid) if named else None


def _instance(header: DicomSlice) -> Instance:
    frame = header.frame + 1 if header.frames > 1 else 0
    return Instance(class_uid=header.sop_class_uid, uid=header.sop_uid, frame=frame)


def _refused(
    path: str, slices: Mapping[str, Slice]
) -> tuple[_Key, Instance, Path] | None:
    """Returns the series and the image of a refused file; None where it is no CT image."""
    one = slices.get(path)
    if one:
        key = one.header and _key(one.header)
        return (key, _instance(one.header), one.file) if key and one.header else None
    try:
        with open(path, "rb") as file:
            if not dicom.is_dicom(file.read(132)):
                return None
        header = dicom.read_elements(path, _UIDS)
    except (OSError, ImageError):
        return None
    kind, uid, study, series = (str(header.get(name) or "") for name in _UIDS)
    if kind not in CT or not (uid and study and series):
        return None
    return (study, series), Instance(class_uid=kind, uid=uid), Path(path)


def _series_row(model: Predictor, found: Inputs, one: _Found) -> Row:
    """Returns the row of series.csv; one without flags where no slice could be read."""
    if not one.rows:
        return {"flags": ""}
    odd = found.flags.get((one.rows[0]["study"], one.rows[0]["series"]), ())
    return tables.series_row(model.scorer, one.rows, odd)


def _device(model: Predictor, settings: str) -> Device:
    about, made, trained = model.about, decision(model.scorer), model.about["trained_on"]
    chosen = f"threshold {made['threshold']:.9g} of the probability: {made['chosen_by']}"
    if made["sensitivity"]:
        chosen += (
            f", for a sensitivity of {made['sensitivity']:g} with a confidence of "
            f"{made['confidence']:g} over {made['counted']}"
        )
    return Device(
        name=f"{about['name'] or 'unnamed'} ({about['backbone']})",
        fingerprint=model.fingerprint,
        version=__version__,
        settings=settings,
        parameters=[
            chosen,
            "score of a series: the maximum over its slices that are not flagged",
            f"{about['checkpoint']} checkpoint, step {about['step']}, trained on "
            f"{trained['source']}, images: {trained['images']}",
        ],
        warnings=model.stamps,
    )


def _certainty(row: Row) -> Certainty:
    return Certainty(probability=row["probability"], calibrated=row["calibrated"])


def _report(
    model: Predictor,
    device: Device,
    source: Source,
    one: _Found,
    row: Row,
    slices: Mapping[str, Slice],
) -> tuple[str, bytes]:
    scorer, warm = model.scorer, None
    if scorer.calibration and scorer.calibration.temperature:
        warm = scorer.calibration.temperature.value
    top = [
        (_instance(header), _certainty(slice_row))
        for slice_row in tables.top_slices(one.rows)
        if (header := slices[slice_row["path"]].header)
    ]
    score = Score(
        finding=scorer.data.classes[1],
        positive=row["decision"] == scorer.data.classes[1],
        certainty=_certainty(row),
        top=top,
        calibration=f"temperature scaling by {warm:.9g}, fitted on validation images"
        if warm
        else "",
    )
    total = len(one.files)
    notes = [f"{row['slices']} of {total} images scored"]
    notes += [f"{count} of them cannot be used: {why}" for why, count in one.refused.items()]
    return report_score(source, device, score, notes)


def _previews(
    model: Predictor, device: Device, source: Source, one: _Found, slices: Mapping[str, Slice]
) -> list[tuple[str, bytes]]:
    """Returns pictures of the slices that drove the score, with the Grad-CAM over them."""
    rows, data = tables.top_slices(one.rows), model.scorer.data
    top = [slices[row["path"]] for row in rows]
    images = [read_slice(place, data) for place in top]
    size, equalize = data.image_size, data.equalize
    maps = model.maps(np.stack([preprocess(x, size=size, equalize=equalize) for x in images]))
    previews = []
    for i, (row, place, image, saliency) in enumerate(zip(rows, top, images, maps, strict=True)):
        header = place.header
        assert header is not None  # noqa: S101 of a DICOM series
        lies = dicom.plane(header)
        previews.append(
            preview(
                source,
                device,
                overlay(image, saliency),
                _words(model, device, row),
                of=_instance(header),
                place=Place(
                    **lies._asdict(), frame_of_reference_uid=header.frame_of_reference_uid
                ),
                number=i + 1,
            )
        )
    return previews


def _words(model: Predictor, device: Device, row: Row) -> list[str]:
    notice, *warnings = remarks(device)
    value = f"probability {row['probability']:.3f}"
    if row["calibrated"] is not None:
        value += f", calibrated {row['calibrated']:.3f}"
    scorer = model.scorer
    said = f"Grad-CAM, {scorer.data.classes[1]}: {value}; threshold {scorer.threshold:.3f}"
    return [notice, said, *warnings]
