"""A finished prediction as DICOM objects: a folder a series, with a report and previews.

What they say is read from the tables of the prediction, so that both say the same.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from msa_flax import __version__
from msa_flax.archive.folder import write_together
from msa_flax.archive.objects import (
    READ,
    ArchiveError,
    Device,
    Instance,
    Source,
    check_installed,
    remarks,
    uid_of,
)
from msa_flax.archive.preview import Place, preview
from msa_flax.archive.report import Certainty, Score, report_nothing, report_score
from msa_flax.data import dicom
from msa_flax.data.dicom_header import CT, DicomSlice
from msa_flax.data.headers import ImageError
from msa_flax.data.images import preprocess
from msa_flax.files import csv_rows
from msa_flax.prediction import tables
from msa_flax.prediction.inputs import Inputs, Slice
from msa_flax.prediction.predictor import Predictor, decision
from msa_flax.prediction.score import Row
from msa_flax.saliency.render import overlay

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_Key = tuple[str, str]  # Study Instance UID, Series Instance UID


@dataclasses.dataclass(slots=True)
class _Found:
    """What was found of a DICOM series: its images, rows of its slices, why others were refused."""

    files: dict[Instance, Path] = dataclasses.field(default_factory=dict)
    rows: list[tuple[Row, DicomSlice]] = dataclasses.field(default_factory=list)
    refused: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @property
    def top(self) -> list[tuple[Row, DicomSlice]]:
        """The slices that drove the score."""
        headers = {row["path"]: header for row, header in self.rows}
        top = tables.top_slices([row for row, _ in self.rows])
        return [(row, headers[row["path"]]) for row in top]

    def source(self, series_uid: str) -> Source:
        instances = sorted(self.files)
        header = dicom.read_elements(self.files[instances[0]], READ)
        return Source(header=header, series_uid=series_uid, instances=instances)


def check_archive(folder: Path, out: Path) -> None:
    """Refuses at once what cannot be done at the end.

    Args:
        folder: for DICOM results.
        out: for the tables of the prediction, which nothing else may be in.

    Raises:
        ArchiveError: highdicom is not installed, or the folder is in that of the tables.
    """
    check_installed()
    inside, tables_in = folder.resolve(), out.resolve()
    if tables_in in (inside, *inside.parents):
        raise ArchiveError(f"--dicom_out: expected a folder outside of {out}, got {folder}")


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
    device, unscored = _device(model, settings), 0
    series, without = _gather(found, out)
    for (_, series_uid), one in sorted(series.items()):
        source = one.source(series_uid)
        row = _series_row(model, found, one) if one.rows else {"flags": ";".join(one.refused)}
        if row["flags"]:
            unscored += 1
            files = [report_nothing(source, device, row["flags"].split(";"))]
        else:
            files = [_report(model, device, source, one, row)]
            files += _previews(model, device, source, one.top)
        write_together(folder / uid_of("results", source, device), dict(files))
    parts = [f"{folder}: DICOM results of {len(series)} series, {unscored} of them not evaluated"]
    parts += [f"{what} have none: {count}" for what, count in without.items()]
    return "; ".join(parts)


def _gather(found: Inputs, out: Path) -> tuple[dict[_Key, _Found], dict[str, int]]:
    """Returns the DICOM series of a prediction, and how much of what else has no DICOM result."""
    series: dict[_Key, _Found] = collections.defaultdict(_Found)
    slices, folders, nameless = {one.path: one for one in found.slices}, set(), 0
    for row in _rows(out / "slices.csv", tables.SLICES):
        one = slices[row["path"]]
        if one.header is None:
            folders.add(one.series)
        elif key := _key(one.header):
            series[key].files[_instance(one.header)] = one.file
            series[key].rows.append((row, one.header))
        else:
            nameless += 1
    for row in _rows(out / "refused.csv", tables.REFUSED):
        if taken := _refused(row["path"], slices):
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


def _refused(path: str, slices: Mapping[str, Slice]) -> tuple[_Key, Instance, Path] | None:
    """Returns the series and the image of a refused file; None where it is no CT image."""
    if path in slices:
        header = slices[path].header
        key = _key(header) if header else None
        return (key, _instance(header), slices[path].file) if header and key else None
    try:
        with open(path, "rb") as file:
            if not dicom.is_dicom(file.read(132)):
                return None
        elements = dicom.read_elements(path, _UIDS)
    except (OSError, ImageError):
        return None
    kind, uid, study, series = (str(elements.get(name) or "") for name in _UIDS)
    if kind not in CT or not (uid and study and series):
        return None
    return (study, series), Instance(class_uid=kind, uid=uid), Path(path)


def _series_row(model: Predictor, found: Inputs, one: _Found) -> Row:
    """Returns the row of series.csv."""
    rows = [row for row, _ in one.rows]
    odd = found.flags.get((rows[0]["study"], rows[0]["series"]), ())
    return tables.series_row(model.scorer, rows, odd)


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
    model: Predictor, device: Device, source: Source, one: _Found, row: Row
) -> tuple[str, bytes]:
    positive, warm = model.scorer.data.classes[1], model.scorer.calibration
    fitted = warm.temperature if warm else None
    score = Score(
        finding=positive,
        positive=row["decision"] == positive,
        certainty=_certainty(row),
        top=[(_instance(header), _certainty(slice_row)) for slice_row, header in one.top],
        calibration=f"division of logits by {fitted.value:.9g}, fitted on validation images"
        if fitted
        else "",
    )
    notes = [f"{row['slices']} of {len(one.files)} images scored"]
    notes += [f"{count} of them cannot be used: {why}" for why, count in one.refused.items()]
    return report_score(source, device, score, notes)


def _previews(
    model: Predictor, device: Device, source: Source, top: Sequence[tuple[Row, DicomSlice]]
) -> list[tuple[str, bytes]]:
    """Returns pictures of the slices that drove the score, with the Grad-CAM over them."""
    data = model.scorer.data
    window = {"centre": data.window_centre, "width": data.window_width}
    images = [dicom.windowed(header, **window) for _, header in top]
    size, equalize = data.image_size, data.equalize
    maps = model.maps(np.stack([preprocess(x, size=size, equalize=equalize) for x in images]))
    return [
        preview(
            source,
            device,
            overlay(image, saliency),
            _words(model, device, row, saliency),
            of=_instance(header),
            place=Place(
                **dicom.plane(header)._asdict(),
                frame_of_reference_uid=header.frame_of_reference_uid,
            ),
            number=number,
        )
        for number, ((row, header), image, saliency) in enumerate(
            zip(top, images, maps, strict=True), 1
        )
    ]


def _words(model: Predictor, device: Device, row: Row, saliency: np.ndarray) -> list[str]:
    """Returns what is burnt into a preview."""
    notice, *warnings = remarks(device)
    value = f"probability {row['probability']:.3f}"
    if row["calibrated"] is not None:
        value += f", calibrated {row['calibrated']:.3f}"
    positive, threshold = model.scorer.data.classes[1], model.scorer.threshold
    said = [f"Grad-CAM, {positive}: {value}; threshold {threshold:.3f}"]
    if not (saliency > 0).any():
        said.append("no colour: the map has nothing that speaks for it")
    return [notice, *said, *warnings]
