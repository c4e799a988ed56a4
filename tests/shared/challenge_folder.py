"""A folder like the one that the RSNA 2022 challenge handed out, of a few slices."""

import csv

import numpy as np
from dicom_slices import write_slice

HEAD = ["StudyInstanceUID", "patient_overall", "C1", "C2", "C3", "C4", "C5", "C6", "C7"]
BOX_HEAD = ["StudyInstanceUID", "x", "y", "width", "height", "slice_number"]
STUDIES = [
    ["1.2.3", 1, 0, 1, 0, 0, 0, 0, 0],  # with boxes
    ["1.2.4", 0, 0, 0, 0, 0, 0, 0, 0],
    ["1.2.5", 1, 0, 0, 0, 0, 0, 0, 1],  # without
]
BOXES = [["1.2.3", 2.5, 3, 4, 5.5, 12], ["1.2.3", 2, 3, 4, 5, 13]]


def write_table(path, head, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def write_study(root, study, *, numbers=range(11, 17), direction=-2, grey=0):
    """Writes slices of 32 x 32 pixels, 2 mm apart, whose grey value is ``grey`` plus the number."""
    for number in numbers:
        image = np.full((32, 32), grey + number, np.uint8)
        path = root / "train_images" / study / f"{number}.dcm"
        write_slice(path, image, patient=study, study=study, position=direction * number)


def write_challenge(root):
    """Writes three studies, the first numbered upwards, and the two tables."""
    for study, direction in (("1.2.3", 2), ("1.2.4", -2), ("1.2.5", -2)):
        write_study(root, study, direction=direction)
    write_table(root / "train.csv", HEAD, STUDIES)
    write_table(root / "train_bounding_boxes.csv", BOX_HEAD, BOXES)
    return root
