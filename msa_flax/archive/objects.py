"""What reports and previews have in common: whose they are, what made them, their UIDs and bytes.

A UID follows from the images, the model and its settings, and every date is one of the images. So
the same images and the same model give the same bytes, and sending them again adds nothing. Clauses
are those of the DICOM standard, PS3.3 unless another part is named.
"""

import dataclasses
import importlib.util
import io
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from msa_flax.files import NOTICE, UserError

MAKER = "msa_flax"
COPIED = (  # of the images, to everything that is made of them (C.7.1.1, C.7.2.1, C.7.2.2, C.12.1)
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "PatientSize", "PatientWeight"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
    *("StudyDescription", "ReferringPhysicianName"),
)
_WHEN = ("Content", "Acquisition", "Series", "Study")  # dates of an image, the most exact first
_NEVER = "19000101", "000000"  # of images without any date: a report must have one (C.17.2)
_OF_NOW = (  # what highdicom dates by the clock; none of it is needed
    *("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"),
    *("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)
READ = (*COPIED, *(f"{name}{part}" for name in _WHEN for part in ("Date", "Time")))


class ArchiveError(UserError):
    """DICOM results cannot be made, or not where they were asked for."""


def check_installed() -> None:
    """Refuses to begin without what writes DICOM objects.

    Raises:
        ArchiveError: highdicom is not installed.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise ArchiveError(
            '--dicom_out: expected highdicom, which is not installed; pip install "msa_flax[dicom]"'
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Instance:
    """An image of the archive, or one frame of it.

    Attributes:
        class_uid: its SOP class.
        uid: its SOP Instance UID.
        frame: counted from 1; 0: it has no others.
    """

    class_uid: str
    uid: str
    frame: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The series that results are about.

    Attributes:
        header: the elements :data:`READ` of one of its images, a ``pydicom.Dataset``.
        series_uid: its Series Instance UID.
        instances: all that was found of it, one or more.
    """

    header: Any
    series_uid: str
    instances: Sequence[Instance]

    @property
    def study_uid(self) -> str:
        """Its Study Instance UID."""
        return str(self.header.StudyInstanceUID)

    @property
    def date_and_time(self) -> tuple[str, str]:
        """The most exact date and time that its header has (PS3.5, 6.2)."""
        for name in _WHEN:
            date = str(self.header.get(f"{name}Date") or "")
            time = str(self.header.get(f"{name}Time") or "")
            if re.fullmatch(r"\d{8}", date):
                right = re.fullmatch(r"\d{2}(\d{2}){0,2}|\d{6}\.\d{1,6}", time)
                return date, time if right else _NEVER[1]
        return _NEVER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The model as what observed something, with all that its results depend on.

    Attributes:
        name: of the model.
        fingerprint: SHA-256 of the network, 64 hexadecimal digits.
        version: of this package.
        settings: a digest of everything else that results depend on.
        parameters: how it decides, one text each.
        warnings: what must be said beside every result.
    """

    name: str
    fingerprint: str
    version: str
    settings: str
    parameters: Sequence[str]
    warnings: Sequence[str]

    @property
    def uid(self) -> str:
        """The UID of the model, whatever it is applied to."""
        return _uid("device", self.fingerprint)


def uid_of(role: str, source: Source, device: Device) -> str:
    """Returns the UID of what plays a role among the results of a series, the same every time."""
    images = sorted(f"{one.uid}#{one.frame}" for one in source.instances)
    made_by = device.fingerprint, device.settings
    return _uid(role, source.study_uid, source.series_uid, *made_by, *images)


def _uid(*words: str) -> str:
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=[MAKER, *words]))


def plain(text: str) -> str:
    """Returns text on one line, in characters that all character sets of DICOM have (PS3.5, 6.1).

    A backslash would divide it into two values.
    """
    letters = unicodedata.normalize("NFKD", " ".join(text.split()))
    letters = "".join(one for one in letters if not unicodedata.combining(one))
    return letters.encode("ascii", "replace").decode().replace("\\", "/")


def general(role: str, source: Source, device: Device, number: int) -> dict[str, Any]:
    """Returns what the constructors of highdicom ask for, the patient apart.

    Args:
        role: of the object among the results.
        source: what it is about.
        device: what made it.
        number: of the object in its series, from 1.
    """
    series = role.partition(" ")[0]
    return {
        "series_instance_uid": uid_of(f"{series} series", source, device),
        "sop_instance_uid": uid_of(role, source, device),
        "instance_number": number,
        "manufacturer": MAKER,
        "manufacturer_model_name": plain(device.name)[:64],
        "software_versions": device.version,
        "device_serial_number": device.fingerprint,
    }


def file_of(ds: Any, source: Source, title: str) -> tuple[str, bytes]:
    """Gives an object the patient, the study and the dates of its source.

    Args:
        ds: of highdicom; changed.
        source: what it is about.
        title: of its series, 40 characters or fewer.

    Returns:
        The name of a file, which is its SOP Instance UID, and the file's bytes.
    """
    import pydicom

    date, time = source.date_and_time
    with pydicom.config.disable_value_validation():  # what the images say is handed on as it is
        for keyword in COPIED:
            if keyword in source.header:
                ds.add(source.header[keyword])
        for keyword in ("ContentDate", "SeriesDate"):
            setattr(ds, keyword, date)
        for keyword in ("ContentTime", "SeriesTime"):
            setattr(ds, keyword, time)
        for keyword in _OF_NOW:
            if keyword in ds:
                delattr(ds, keyword)
        ds.SeriesDescription = f"{title}, research use only"
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return f"{ds.SOPInstanceUID}.dcm", buffer.getvalue()


def remarks(device: Device) -> list[str]:
    """Returns what every object says: the notice, and what must be said of the model."""
    return [NOTICE, *device.warnings]
