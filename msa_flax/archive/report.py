"""The result of a series as a structured report: Comprehensive 3D SR by TID 1500 (PS3.16).

A report names the slices that drove the score; it outlines no region. Where a network looked, as
Grad-CAM shows it, is no measured outline of a fracture, and a report would make it look like one.
The level of a vertebra is not named either, because nothing here finds it.
"""

import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from msa_flax.archive.objects import (
    MAKER,
    Device,
    Instance,
    Source,
    file_of,
    general,
    plain,
    remarks,
    uid_of,
)

_SERIES_NUMBER = 9001
_TOP = "one of the slices with the highest probability"
_CODES = {"fracture": ("72704001", "SCT", "Fracture")}  # of positive classes
_OWN_SCHEME = "99MSAFLAX"  # for a class that has no code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Certainty:
    """How sure the model is of the finding, as probabilities.

    Attributes:
        probability: as the network says it.
        calibrated: after calibration; None: there is none.
    """

    probability: float
    calibrated: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What is said of a series.

    Attributes:
        finding: the name of the positive class.
        positive: whether the series is decided to be of that class.
        certainty: of the series.
        top: the slices that drove it, and how sure the model is of each.
        calibration: what makes a probability a calibrated one, in words.
    """

    finding: str
    positive: bool
    certainty: Certainty
    top: Sequence[tuple[Instance, Certainty]]
    calibration: str = ""


def report_score(
    source: Source, device: Device, score: Score, notes: Sequence[str] = ()
) -> tuple[str, bytes]:
    """Returns the report of a series with a score: the name of its file, and the bytes.

    Args:
        source: the series.
        device: the model.
        score: what it says.
        notes: what else is to be known of the series.
    """
    from highdicom.sr import QualitativeEvaluation, SourceImageForMeasurementGroup
    from pydicom.sr.codedict import codes

    finding = _finding(score.finding)
    decided = codes.SCT.Positive if score.positive else codes.SCT.Negative
    first = _group(
        "series",
        *(source, device, [*remarks(device), *notes]),
        finding_type=finding,
        measurements=_measurements(score, score.certainty, device),
        qualitative_evaluations=[
            QualitativeEvaluation(codes.DCM.SummaryOfAnalyses, codes.DCM.Succeeded),
            QualitativeEvaluation(finding, decided),
        ],
    )
    others = [
        _group(
            f"slice {i}",
            *(source, device, [_TOP]),
            finding_type=finding,
            measurements=_measurements(score, certainty, device),
            source_images=[
                SourceImageForMeasurementGroup(
                    one.class_uid, one.uid, [one.frame] if one.frame else None
                )
            ],
        )
        for i, (one, certainty) in enumerate(score.top, 1)
    ]
    return _document(source, device, [first, *others])


def report_nothing(source: Source, device: Device, reasons: Sequence[str]) -> tuple[str, bytes]:
    """Returns the report of a series that was not evaluated: it has the reasons, and no score.

    Args:
        source: the series.
        device: the model.
        reasons: why, one or more.
    """
    from highdicom.sr import QualitativeEvaluation
    from pydicom.sr.codedict import codes

    said = [f"not evaluated: {reason}" for reason in reasons]
    status = QualitativeEvaluation(codes.DCM.SummaryOfAnalyses, codes.DCM.Failed)
    more: Any = {"qualitative_evaluations": [status]}
    return _document(
        source, device, [_group("series", source, device, [*said, *remarks(device)], **more)]
    )


def _finding(name: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(*_CODES.get(name, ("POSITIVE", _OWN_SCHEME, plain(name)[:64])))


def _measurements(score: Score, certainty: Certainty, device: Device) -> list[Any]:
    """Returns the certainty as the model says it, and as calibration corrects it."""
    ways = [(certainty.probability, "probability of the network, not calibrated")]
    if certainty.calibrated is not None:
        ways.append((certainty.calibrated, f"probability after {score.calibration}"))
    return [_measurement(value, said, device) for value, said in ways]


def _measurement(probability: float, said: str, device: Device) -> Any:
    from highdicom.sr import AlgorithmIdentification, Measurement
    from pydicom.sr.codedict import codes

    return Measurement(
        name=codes.DCM.CertaintyOfFinding,
        value=float(100 * Decimal(repr(probability))),  # without the error of a float's product
        unit=codes.UCUM.Percent,
        algorithm_id=AlgorithmIdentification(
            name=plain(device.name),
            version=f"{device.version} {device.fingerprint}",
            parameters=[said, *map(plain, device.parameters)],
            manufacturer=MAKER,
        ),
    )


def _group(name: str, source: Source, device: Device, comments: Sequence[str], **more: Any) -> Any:
    """Returns a measurement group (TID 1501) about the series or one of its slices."""
    from highdicom.sr import (
        FindingSite,
        MeasurementsAndQualitativeEvaluations,
        RelationshipTypeValues,
        TextContentItem,
        TrackingIdentifier,
        UIDRefContentItem,
    )
    from pydicom.sr.codedict import codes

    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid_of(f"{name} group", source, device), name),
        finding_sites=[FindingSite(codes.SCT.CervicalSpine)],
        **more,
    )
    inside = {"relationship_type": RelationshipTypeValues.CONTAINS}
    content = group[0].ContentSequence
    for text in comments:
        content.append(TextContentItem(codes.DCM.Comment, plain(text), **inside))
    content.append(UIDRefContentItem(codes.DCM.SeriesInstanceUID, source.series_uid, **inside))
    return group


def _document(source: Source, device: Device, groups: Sequence[Any]) -> tuple[str, bytes]:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=device.uid,
        name=MAKER,
        manufacturer_name=MAKER,
        model_name=f"{plain(device.name)}, version {device.version}",
        serial_number=device.fingerprint,
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(codes.DCM.Device, observer)
        ),
        procedure_reported=codes.cid100.CTUnspecifiedBodyRegion,
        imaging_measurements=groups,
    )
    document = sr.Comprehensive3DSR(
        evidence=[_evidence(one, source) for one in source.instances],
        content=content,
        series_number=_SERIES_NUMBER,
        is_complete=True,
        **general("report", source, device, 1),
    )
    return file_of(document, source, f"{MAKER}: report")


def _evidence(one: Instance, source: Source) -> Any:
    """Returns what highdicom asks of an image; the patient follows in :func:`file_of`."""
    from pydicom import Dataset

    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = one.class_uid, one.uid
    image.StudyInstanceUID, image.SeriesInstanceUID = source.study_uid, source.series_uid
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(image, keyword, "")
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(image, keyword, "")
    return image
