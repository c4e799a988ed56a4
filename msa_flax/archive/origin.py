"""What results are made of, a series and a model, and what every object takes from both.

A UID follows from the images, the model and its settings, and every date is the study's. So the
same images and the same model give the same bytes, and sending them again adds nothing. Clauses are
those of the DICOM standard, PS3.3 unless another part is named.
"""

import dataclasses
import io
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import pydicom
from pydicom.uid import generate_uid

from msa_flax.files import UserError

MAKER = "msa_flax"
COPIED = (  # from the images, to everything that is made of them (C.7.1.1, C.7.2.1, C.7.2.2)
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", "PatientName", "PatientID"),
    *("IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize"),
    *("PatientWeight", "StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber"),
    *("StudyID", "StudyDescription", "ReferringPhysicianName"),
)
READ = (*COPIED, "FrameOfReferenceUID")  # of a header
_OF_NOW = (  # what highdicom takes from the clock; none of it is needed
    *("InstanceCreationDate", "InstanceCreationTime", "ContributingEquipmentSequence"),
    *("DateOfSecondaryCapture", "TimeOfSecondaryCapture"),
)
_DATES = {"Date": "19000101", "Time": "000000"}  # of a study without any: a report must have them


class ArchiveError(UserError):
    """DICOM results cannot be made, or not where they were asked for."""


class Instance(NamedTuple):
    """An image of the archive, or one frame of it."""

    class_uid: str  # its SOP class
    uid: str  # its SOP Instance UID
    frame: int = 0  # counted from 1; 0: it has no others


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A series, and the model that looked at it.

    Attributes:
        header: the elements :data:`READ` of one of the images, a ``pydicom.Dataset``.
        series_uid: the Series Instance UID.
        instances: all that was found of the series, one or more.
        model: its name.
        version: of this package.
        fingerprint: SHA-256 of the network, 64 hexadecimal digits.
        settings: a digest of all else that results depend on.
        remarks: what every report says.
    """

    header: Any
    series_uid: str
    instances: Sequence[Instance]
    model: str
    version: str
    fingerprint: str
    settings: str
    remarks: Sequence[str]

    @property
    def study_uid(self) -> str:
        """The Study Instance UID."""
        return str(self.header.StudyInstanceUID)

    @property
    def device_uid(self) -> str:
        """The UID of the model, whatever it looks at."""
        return str(generate_uid(entropy_srcs=[MAKER, self.fingerprint]))

    def uid(self, role: str) -> str:
        """Returns the UID of what plays a role among the results, the same every time."""
        images = sorted(f"{one.uid}#{one.frame}" for one in self.instances)
        words = [MAKER, role, self.study_uid, self.series_uid, self.fingerprint, self.settings]
        return str(generate_uid(entropy_srcs=words + images))

    def common(self, role: str, number: int = 1) -> dict[str, Any]:
        """Returns what highdicom asks for of any object, the patient apart.

        Args:
            role: of its series among the results.
            number: of the object in the series, from 1.
        """
        return {
            "series_instance_uid": self.uid(role),
            "sop_instance_uid": self.uid(f"{role} {number}"),
            "instance_number": number,
            "series_description": f"{MAKER}: {role}, research use only",
            "manufacturer": MAKER,
            "manufacturer_model_name": plain(self.model)[:64],
            "software_versions": self.version,
            "device_serial_number": self.fingerprint,
        }

    def file(self, ds: Any) -> tuple[str, bytes]:
        """Gives an object of highdicom the patient, the study and the dates of the images.

        Returns:
            The name of a file, which is the SOP Instance UID, and its bytes.
        """
        for keyword in set(COPIED) & set(self.header.dir()):
            ds.add(self.header[keyword])
        for part, unknown in _DATES.items():
            setattr(ds, f"Content{part}", self.header.get(f"Study{part}") or unknown)
        for keyword in set(_OF_NOW) & set(ds.dir()):
            delattr(ds, keyword)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
        return f"{ds.SOPInstanceUID}.dcm", buffer.getvalue()


def plain(text: str) -> str:
    """Returns text on one line, in characters that all character sets of DICOM have (PS3.5, 6.1).

    A backslash would divide it into two values.
    """
    apart = unicodedata.normalize("NFKD", " ".join(text.split()))  # accents are characters then
    letters = "".join(one for one in apart if not unicodedata.combining(one))
    return letters.encode("ascii", "replace").decode().replace("\\", "/")
