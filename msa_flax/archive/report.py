"""The result of a series as a structured report: Comprehensive 3D SR by TID 1500 (PS3.16).

A report names the slices that drove the score; it outlines no region. Where a network looked, as
Grad-CAM shows it, is no measured outline of a fracture, and a report would make it look like one.
The level of a vertebra is not named either, because nothing here finds it.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes

from msa_flax.archive.origin import MAKER, Instance, Origin, plain

_SERIES_NUMBER = 9001
_CODES = {"fracture": ("72704001", "SCT", "Fracture")}  # of positive classes
_KINDS = "probability of the network", "calibrated probability"
_UNKNOWN = (  # what highdicom asks for; Origin.file() writes what the images say
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime"),
)
Certainty = tuple[float, float | None]  # the network's probability; after calibration, if any


def report_score(
    origin: Origin,
    *,
    finding: str,
    positive: bool,
    certainty: Certainty,
    top: Sequence[tuple[Instance, Certainty]],
    notes: Sequence[str] = (),
) -> tuple[str, bytes]:
    """Returns the report of a series with a score: the name of its file, and the bytes.

    Args:
        origin: the series and the model.
        finding: the name of the positive class.
        positive: whether the series is decided to be of that class.
        certainty: of the series.
        top: the slices that drove it, and how sure the model is of each.
        notes: what else is to be known of the series.
    """
    code = sr.CodedConcept(*_CODES.get(finding, ("POSITIVE", "99MSAFLAX", plain(finding)[:64])))
    decided = codes.SCT.Positive if positive else codes.SCT.Negative
    status = codes.DCM.SummaryOfAnalyses, codes.DCM.Succeeded
    content: dict[str, Any] = {
        "finding_type": code,
        "measurements": _measurements(origin, certainty),
        "qualitative_evaluations": [
            sr.QualitativeEvaluation(*one) for one in (status, (code, decided))
        ],
    }
    groups = [_group(origin, "series", [*origin.remarks, *notes], **content)]
    for number, (one, its) in enumerate(top, 1):
        frames = [one.frame] if one.frame else None
        image = sr.SourceImageForMeasurementGroup(one.class_uid, one.uid, frames)
        content = {"finding_type": code, "measurements": _measurements(origin, its)}
        groups.append(_group(origin, f"slice {number}", [], source_images=[image], **content))
    return _document(origin, groups)


def report_nothing(origin: Origin, reasons: Sequence[str]) -> tuple[str, bytes]:
    """Returns the report of a series that was not evaluated: it has the reasons, and no score.

    Args:
        origin: the series and the model.
        reasons: why, one or more.
    """
    said = [f"not evaluated: {reason}" for reason in reasons]
    status = sr.QualitativeEvaluation(codes.DCM.SummaryOfAnalyses, codes.DCM.Failed)
    content: Any = {"qualitative_evaluations": [status]}
    return _document(origin, [_group(origin, "series", [*said, *origin.remarks], **content)])


def _measurements(origin: Origin, certainty: Certainty) -> list[sr.Measurement]:
    return [
        sr.Measurement(
            name=codes.DCM.CertaintyOfFinding,
            value=float(100 * Decimal(repr(value))),  # without the error of a product of floats
            unit=codes.UCUM.Percent,
            algorithm_id=sr.AlgorithmIdentification(
                plain(origin.model), f"{origin.version} {origin.fingerprint}", [kind], None, MAKER
            ),
        )
        for kind, value in zip(_KINDS, certainty, strict=True)
        if value is not None
    ]


def _group(origin: Origin, name: str, comments: Sequence[str], **content: Any) -> Any:
    """Returns a measurement group (TID 1501) about the series or one of its slices."""
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(origin.uid(f"{name} group"), name),
        finding_sites=[sr.FindingSite(codes.SCT.CervicalSpine)],
        **content,
    )
    contains, items = sr.RelationshipTypeValues.CONTAINS, group[0].ContentSequence
    for text in comments:
        items.append(sr.TextContentItem(codes.DCM.Comment, plain(text), contains))
    items.append(sr.UIDRefContentItem(codes.DCM.SeriesInstanceUID, origin.series_uid, contains))
    return group


def _document(origin: Origin, groups: Sequence[Any]) -> tuple[str, bytes]:
    name = f"{plain(origin.model)}, version {origin.version}"
    observer = sr.DeviceObserverIdentifyingAttributes(
        origin.device_uid, MAKER, MAKER, model_name=name, serial_number=origin.fingerprint
    )
    observed = sr.ObserverContext(codes.DCM.Device, observer)
    context = sr.ObservationContext(observer_device_context=observed)
    content = sr.MeasurementReport(context, codes.cid100.CTUnspecifiedBodyRegion, groups)
    evidence = [_evidence(origin, one) for one in origin.instances]
    common = {"series_number": _SERIES_NUMBER, "is_complete": True} | origin.common("report")
    return origin.file(sr.Comprehensive3DSR(evidence=evidence, content=content, **common))


def _evidence(origin: Origin, one: Instance) -> Dataset:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = one.class_uid, one.uid
    image.StudyInstanceUID, image.SeriesInstanceUID = origin.study_uid, origin.series_uid
    for keyword in _UNKNOWN:
        setattr(image, keyword, "")
    return image
