"""Writes whole studies of the phantom as DICOM, in the layout of the RSNA 2022 challenge.

    python experiments/phantom_studies.py --out DIR --studies N --seed S

DIR then holds, for N made-up patients, at least half of them without a fracture:
- train_images/STUDY/NUMBER.dcm: CT slices from the skull base to T1, in HU with slope 1 and
  intercept -1024;
- train.csv: which of C1 to C7 are fractured; train_bounding_boxes.csv: where, for a share of the
  studies with a fracture (--boxed; 0.24 of the real ones have boxes);
- segmentations/STUDY.nii: the vertebrae of a share of all studies (--segmented), 1 to 7 = C1 to C7,
  8 = T1; needs nibabel (`pip install -e ".[studies]"`);
- masks/STUDY.npz: where the fractures truly are (`slice_number` [m], `mask` uint8 [m, h, w], the
  number of the vertebra);
- labels.csv: every slice with its label, for `data.source = "manifest"`; with --every N one in N.
--layout table writes the slices, labels.csv and masks alone, as an archive would hand them over;
--slices N writes the N slices in the middle, for trials of what surrounds a network. --like
quickstart writes eight slices a study like those that the quickstart is trained on.

How hard it is: a real hairline fracture is 0.5 to 1 mm wide, filled with blood, and so 300 HU
(spongy bone) to 1,000 HU (cortex) darker than what it breaks; the scanner's blur leaves a third to
a half of that. The default, a line of 2 mm that is 700 HU darker, is a wide-open fracture, which
anyone sees at 128 pixels; --width 0.8 --contrast 500 looks like a hairline.

A study follows from its number, the seed and the options alone; so do its bytes, for one version of
pydicom. Of two studies, 2 k and 2 k + 1, one has a fracture.
"""

import dataclasses
import functools
import importlib.util
import io
import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from command_line import Parser, call
from phantom_series import Series
from phantom_volume import Settings, Volume
from pydicom.uid import UID

from msa_flax.files import UserError, csv_text, write_atomically, write_text

SYNTAXES = {  # option -> transfer syntax, and the encoder that pydicom uses for it
    "explicit": (pydicom.uid.ExplicitVRLittleEndian, ""),
    "rle": (pydicom.uid.RLELossless, "pylibjpeg"),
    "jpeg2000": (pydicom.uid.JPEG2000Lossless, "pylibjpeg"),
    "jpegls": (pydicom.uid.JPEGLSLossless, "pyjpegls"),
}
LIKE: dict[str, type[Volume] | type[Series]] = {"volume": Volume, "quickstart": Series}
LEVELS = tuple(f"C{k}" for k in range(1, 8))
_NAMES = ("Ada", "Bruno", "Chen", "Dara", "Emeka", "Farah", "Goran", "Hana", "Ines", "Jonas")
_MARGIN = 3.0  # mm around a fracture in its box
_STREAM = 0xD1C0  # keeps these draws apart from those of the anatomy


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is written, and how."""

    out: Path
    studies: int
    settings: Settings
    syntax: str = "explicit"  # a key of SYNTAXES
    layout: str = "rsna"  # "rsna" | "table"
    boxed: float = 0.24  # share of the studies with a fracture that have boxes
    segmented: float = 0.04  # share of all studies with a segmentation
    every: int = 1  # one slice in so many is in labels.csv; neighbours show nearly the same
    slices: int = 0  # in the middle of the volume; 0: all
    like: str = "volume"  # a key of LIKE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What one study adds to the tables."""

    study: list[Any]
    boxes: list[list[Any]]
    labels: list[list[Any]]


def write_studies(options: Options, *, jobs: int = 1) -> None:
    """Writes all studies, then the tables."""
    one = functools.partial(write_study, options)
    numbers = range(options.studies)
    if jobs > 1:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            rows = list(pool.imap(one, numbers))
    else:
        rows = list(map(one, numbers))
    rows.sort(key=lambda row: row.study)
    header = ["path", "label", "group", "study", "family", "slice_index"]
    labels = [line for row in rows for line in row.labels]
    write_text(options.out / "labels.csv", csv_text(header, labels))
    if options.layout == "rsna":
        header = ["StudyInstanceUID", "patient_overall", *LEVELS]
        write_text(options.out / "train.csv", csv_text(header, [row.study for row in rows]))
        header = ["StudyInstanceUID", "x", "y", "width", "height", "slice_number"]
        boxes = [line for row in rows for line in row.boxes]
        write_text(options.out / "train_bounding_boxes.csv", csv_text(header, boxes))


def write_study(options: Options, number: int) -> Rows:
    """Writes one study's files and returns its rows of the tables."""
    rng = np.random.default_rng((options.settings.seed, number, _STREAM))
    boxed, segmented = rng.random(2) < (options.boxed, options.segmented)
    volume = LIKE[options.like](options.settings, number, fractured=has_fracture(options, number))
    study = pydicom.uid.generate_uid(entropy_srcs=_entropy(options, number, "study"))
    header = _header(options, volume, study, rng)
    patient, first = str(header.PatientID), int(rng.integers(options.every))
    place = f"train_images/{study}" if options.layout == "rsna" else f"images/{patient}"
    masks, vertebrae, boxes, labels = {}, [], [], []
    for index in _drawn(options, len(volume)):
        drawn = volume.draw(index)
        path = f"{place}/{index + 1}.dcm"
        stored = (drawn.hounsfield + 1024).astype(np.uint16)
        data = _encoded(_instance(header, volume, index), stored, options)
        write_atomically(options.out / path, data)
        broken = bool(drawn.mask.any())
        label = "fracture" if broken else "normal"
        if index % options.every == first:
            labels.append([path, label, patient, study, "", index + 1])
        if broken:
            masks[index + 1] = drawn.mask
            boxes.append([study, *_box(drawn.mask, volume.spacing), index + 1])
        if segmented:
            vertebrae.append(drawn.vertebrae)
    _write_masks(options.out / "masks" / f"{study}.npz", masks, options.settings.matrix)
    if segmented and options.layout == "rsna":
        _write_nifti(options.out / "segmentations" / f"{study}.nii", vertebrae, volume)
    levels = [int(k in volume.levels) for k in range(1, 8)]
    return Rows(study=[study, max(levels), *levels], boxes=boxes if boxed else [], labels=labels)


def _drawn(options: Options, count: int) -> range:
    """Returns the indices of the slices of a volume that are written."""
    wanted = min(options.slices or count, count)
    first = (count - wanted) // 2
    return range(first, first + wanted)


def has_fracture(options: Options, number: int) -> bool:
    """Returns whether a study has a fracture: one of each pair; none where the pair is cut off."""
    pair = number // 2
    if 2 * pair + 1 >= options.studies:
        return False
    coin = np.random.default_rng((options.settings.seed, pair, _STREAM, 1)).random() < 0.5
    return (number % 2 == 0) == coin


def _entropy(options: Options, number: int, *names: object) -> list[str]:
    like = [options.like] * (options.like != "volume")
    return ["msa_flax phantom", *like, repr(options.settings), str(number), *map(str, names)]


def _header(
    options: Options, volume: Volume | Series, study: str, rng: np.random.Generator
) -> pydicom.Dataset:
    """Returns what all slices of a study share (DICOM PS3.3, A.3: CT Image)."""
    number, step, uid = volume.number, options.settings.step, pydicom.uid.generate_uid
    ds = pydicom.Dataset()
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = pydicom.uid.CTImageStorage
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20200101"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "120000"
    ds.AccessionNumber = f"A{number:06d}"
    ds.Modality = "CT"
    ds.Manufacturer = "msa_flax"
    ds.ManufacturerModelName = "phantom"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Simulated cervical spine, no patient"
    ds.SeriesDescription = f"C-SPINE BONE {step:g}"
    ds.PatientName = f"Phantom^{_NAMES[rng.integers(len(_NAMES))]}"
    ds.PatientID = f"PHANTOM-{options.settings.seed}-{number:04d}"
    ds.PatientBirthDate = ""
    ds.PatientSex = "FM"[rng.integers(2)]
    ds.PatientAge = f"{rng.integers(18, 95):03d}Y"
    ds.BodyPartExamined = "CSPINE"
    ds.SliceThickness = f"{step:g}"
    ds.KVP = "120"
    ds.ConvolutionKernel = "BONE"
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = study
    ds.SeriesInstanceUID = uid(entropy_srcs=_entropy(options, number, "series"))
    ds.FrameOfReferenceUID = uid(entropy_srcs=_entropy(options, number, "frame"))
    ds.StudyID = str(number)
    ds.SeriesNumber = 1
    ds.PositionReferenceIndicator = ""
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing = [f"{volume.spacing:.6f}"] * 2
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows = ds.Columns = options.settings.matrix
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.WindowCenter, ds.WindowWidth = 400, 1800
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    return ds


def _instance(header: pydicom.Dataset, volume: Volume | Series, index: int) -> pydicom.Dataset:
    """Adds what is a slice's own to the header, and returns it."""
    z = -volume.height(index)  # mm, towards the head
    corner = f"{(0.5 * volume.spacing - 0.5 * volume.view):.4f}"
    header.InstanceNumber = index + 1
    header.ImagePositionPatient = [corner, corner, f"{z:.4f}"]
    header.SliceLocation = f"{z:.4f}"
    header.SOPInstanceUID = pydicom.uid.generate_uid(
        entropy_srcs=[str(header.SeriesInstanceUID), str(index)]
    )
    return header


def _encoded(header: pydicom.Dataset, stored: np.ndarray, options: Options) -> bytes:
    """Returns the bytes of a DICOM file (PS3.10) with these stored values, uint16 [h, w]."""
    ds = pydicom.Dataset(header)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.set_pixel_data(stored, "MONOCHROME2", 16, generate_instance_uid=False)
    syntax, plugin = SYNTAXES[options.syntax]
    if plugin:
        ds.compress(UID(syntax), encoding_plugin=plugin, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _box(mask: np.ndarray, spacing: float) -> list[float]:
    """Returns x, y, width and height of the box around a mask, in pixels, inside the frame."""
    x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    margin, side = _MARGIN / spacing, len(mask)
    left, top = max(0.0, x - margin), max(0.0, y - margin)
    right, bottom = min(side, x + width + margin), min(side, y + height + margin)
    return [round(value, 5) for value in (left, top, right - left, bottom - top)]


def _write_masks(path: Path, masks: dict[int, np.ndarray], side: int) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        slice_number=np.array(list(masks), np.int32),
        mask=np.stack(list(masks.values())) if masks else np.zeros((0, side, side), np.uint8),
    )
    write_atomically(path, buffer.getvalue())


def _write_nifti(path: Path, slices: Sequence[np.ndarray], volume: Volume | Series) -> None:
    """Writes the vertebrae as NIfTI-1, whose axes point right, to the front and to the head."""
    import nibabel

    labels = np.stack(slices)[::-1, ::-1, ::-1].transpose(
        2, 1, 0
    )  # DICOM's x, y point the other way
    affine = np.diag([volume.spacing, volume.spacing, volume.settings.step, 1.0])
    edge = -0.5 * (volume.view - volume.spacing)
    affine[:3, 3] = edge, edge, -volume.height(len(volume) - 1)
    image = nibabel.Nifti1Image(np.ascontiguousarray(labels), affine)
    image.header.set_xyzt_units("mm")
    write_atomically(path, image.to_bytes())


def _options(arguments: Sequence[str] | None) -> tuple[Options, int]:
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--studies", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matrix", type=int, default=256, help="pixels, side of a slice")
    parser.add_argument("--step", type=float, default=1.0, help="mm between slices")
    parser.add_argument("--contrast", type=float, default=700, help="HU, of a fracture")
    parser.add_argument("--width", type=float, default=2.0, help="mm, of a fracture")
    parser.add_argument("--syntax", choices=SYNTAXES, default="explicit")
    parser.add_argument("--layout", choices=("rsna", "table"), default="rsna")
    parser.add_argument("--boxed", type=float, default=0.24, help="share of positive studies")
    parser.add_argument("--segmented", type=float, default=0.04, help="share of all studies")
    parser.add_argument("--every", type=int, default=1, help="one slice in N is in labels.csv")
    parser.add_argument("--slices", type=int, default=0, help="of a study; 0: all")
    parser.add_argument("--like", choices=LIKE, default="volume", help="what draws a study")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    given = vars(parser.parse_args(arguments))
    jobs = given.pop("jobs")
    shared = {field.name: given.pop(field.name) for field in dataclasses.fields(Settings)}
    options = Options(settings=Settings(**shared), **given)
    options.settings.check()
    _check(options, jobs)
    return options, jobs


def _check(options: Options, jobs: int) -> None:
    counts = {"studies": options.studies, "every": options.every, "jobs": jobs}
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"--{name}: expected 1 or more, got {count}")
    if options.slices < 0:
        raise UserError(f"--slices: expected 0 (all) or more, got {options.slices}")
    for name, share in (("boxed", options.boxed), ("segmented", options.segmented)):
        if not 0 <= share <= 1:
            raise UserError(f"--{name}: expected a share from 0 to 1, got {share:g}")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"--out: expected a new or empty folder, {options.out} holds something")
    if options.segmented and options.layout == "rsna" and not importlib.util.find_spec("nibabel"):
        raise UserError(
            'nibabel is missing, which writes segmentations: pip install -e ".[studies]", or ask '
            "for none with --segmented 0"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the studies that the command line asks for."""
    options, jobs = _options(arguments)
    write_studies(options, jobs=jobs)
    print(f"{options.studies} studies in {options.out}; simulated, no patients")
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
