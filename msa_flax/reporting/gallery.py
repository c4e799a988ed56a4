"""The gallery: which images a report shows, errors first, and their small pictures."""

import base64
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from msa_flax.reporting.saved import ExplainedImage, SavedRun
from msa_flax.saliency.titles import TITLES

WORST, RANDOM = 24, 12  # images shown of each outcome
OUTCOMES = {
    "fn": "missed fracture (false negative)",
    "fp": "false alarm (false positive)",
    "tp": "found fracture (true positive)",
    "tn": "normal image, predicted normal (true negative)",
}
ERRORS = ("fn", "fp")
FIRST = "gradcam"  # the method whose maps are shown large
_SIDE, _SMALL_SIDE = 160, 96  # pixels, the longest side of large and of small pictures
_QUALITY = 80


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture in the page: what it is called, what it shows, and a data URI."""

    name: str
    alt: str
    uri: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image of the gallery; an error that nobody has explained has no pictures."""

    example_id: str
    outcome: str
    group: str
    label: str
    predicted: str
    probability: float
    drawn: bool  # at random, not one of the worst
    pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The cases, and by outcome how many images there are and how many are shown.

    Attributes:
        cases: in their order.
        total: outcome to the number of images.
        shown: outcome to the number of cases.
        command: makes the pictures of the errors that have none, "" where all have some.
    """

    cases: Sequence[Case]
    total: Mapping[str, int]
    shown: Mapping[str, int]
    command: str


def method_title(name: str) -> str:
    """Returns the title of a method of explanation, or its name in words."""
    words = name.replace("_", " ")
    return TITLES.get(name, words[:1].upper() + words[1:])


def gallery(run: SavedRun) -> Gallery:
    """Chooses images of every outcome and makes their pictures small.

    Missed fractures come first, then false alarms, those of which the model was surest first,
    whether they were explained or not; then what it got right and was explained, those of which it
    was least sure first. Of each outcome the 24 worst are shown, and 12 of the others, drawn at
    random.
    """
    explained = {item.row: item for item in run.explained}
    kernels = {folder: _kernels(folder) for folder in {item.folder for item in run.explained}}
    outcome, rng = run.outcome, np.random.default_rng(0)
    cases: list[Case] = []
    for key in OUTCOMES:
        rows = [i for i in np.flatnonzero(outcome == key) if key in ERRORS or i in explained]
        # The worst: missed and rightly found fractures of low probability, the others of high.
        sign = 1 if key in ("fn", "tp") else -1
        ids, probability = run.predictions.example_id, run.predictions.probability
        rows.sort(key=lambda i: (sign * float(probability[i]), str(ids[i])))
        rest = rows[WORST:]
        others = [rest[i] for i in sorted(rng.permutation(len(rest))[:RANDOM].tolist())]
        for i in rows[:WORST] + others:
            item = explained.get(i)
            pictures = _pictures(run, item, kernels[item.folder]) if item else []
            cases.append(_case(run, i, pictures, drawn=i in rest))
    missing = [c.example_id for c in cases if c.outcome in ERRORS and not c.pictures]
    folder = run.workdir / "eval" / run.split / "errors"
    words = ["python", "-m", "msa_flax.explain", "--workdir", str(run.workdir)]
    command = shlex.join([*words, "--out", str(folder), *missing]) if missing else ""
    return Gallery(
        cases=cases,
        total={key: int((outcome == key).sum()) for key in OUTCOMES},
        shown={key: sum(case.outcome == key for case in cases) for key in OUTCOMES},
        command=command,
    )


def _case(run: SavedRun, row: int, pictures: Sequence[Picture], *, drawn: bool) -> Case:
    table, outcome = run.predictions, str(run.outcome[row])
    return Case(
        example_id=str(table.example_id[row]),
        outcome=outcome,
        group=str(table.group[row]),
        label=run.classes[int(table.label[row])],
        predicted=run.classes[int(outcome in ("tp", "fp"))],
        probability=float(table.probability[row]),
        drawn=drawn,
        pictures=pictures,
    )


def _kernels(folder: Path) -> list[str]:
    """Returns the kernel sizes of the attention maps in a folder."""
    found = {re.search(r"\.attention-(\d+)\.png$", path.name) for path in folder.glob("*.png")}
    return sorted({match[1] for match in found if match}, key=int)


def _pictures(run: SavedRun, item: ExplainedImage, kernels: Sequence[str]) -> list[Picture]:
    """Returns the image, the maps of the predicted class, and the attention maps."""
    fracture = int(run.outcome[item.row] in ("tp", "fp"))
    target, predicted = ("normal", "fracture")[fracture], run.classes[fracture]
    wanted = [("image", "image", f"slice {run.predictions.example_id[item.row]}", _SIDE)]
    for method in item.methods:
        title, side = method_title(method), _SIDE if method == FIRST else _SMALL_SIDE
        alt = f"{title} for the predicted class, {predicted}"
        wanted.append((f"{method}-{target}", f"{title}, {predicted}", alt, side))
    for kernel in kernels:
        name = f"attention {kernel}x{kernel}"
        wanted.append((f"attention-{kernel}", name, f"attention map, kernel {kernel}", _SMALL_SIDE))
    pictures = [
        Picture(name=name, alt=alt, uri=_uri(item.folder / f"{item.stem}.{ending}.png", side))
        for ending, name, alt, side in wanted
    ]
    return [picture for picture in pictures if picture.uri]


def _uri(path: Path, side: int) -> str:
    """Returns the picture as a JPEG data URI, or "" where there is none that can be read."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError:
        return ""
    picture = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if picture is None:
        return ""
    scale = side / max(picture.shape[:2])
    if scale < 1:
        height, width = (max(1, round(scale * length)) for length in picture.shape[:2])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    written, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode() if written else ""
