"""The gallery: which images a report shows, errors first, and their small pictures."""

import base64
import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from msa_flax.evaluation.predictions import WORST
from msa_flax.reporting.saved import ExplainedImage, SavedRun
from msa_flax.reporting.text import in_words
from msa_flax.saliency.titles import TITLES, class_in_file_name

RANDOM = 12  # images of each outcome that are shown beside the worst
OUTCOMES = {  # with the names of the negative and of the positive class
    "fn": "missed {1} (false negative)",
    "fp": "false alarm (false positive)",
    "tp": "found {1} (true positive)",
    "tn": "{0} image, predicted {0} (true negative)",
}
ERRORS = ("fn", "fp")
_SIDE, _SMALL_SIDE, _QUALITY = 160, 96, 80  # longest sides in pixels; of a JPEG


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
    return TITLES.get(name, in_words(name))


def choose_cases(run: SavedRun) -> Gallery:
    """Chooses images of every outcome and makes their pictures small.

    Missed images of the positive class come first, then false alarms, those of which the model was
    surest first, whether they were explained or not; then what it got right and was explained,
    those of which it was least sure first. Of each outcome the worst are shown, and of the other
    images that were explained some that are drawn at random.
    """
    explained = {item.row: item for item in run.explained}
    kernels = {folder: _kernels(folder) for folder in {item.folder for item in run.explained}}
    rng, cases, total = np.random.default_rng(0), [], {}
    missing: dict[str, bool] = {}  # errors by id: whether they have no pictures
    for key in OUTCOMES:
        rows = run.predictions.worst_first(key, run.threshold).tolist()
        total[key] = len(rows)
        worst = [i for i in rows if key in ERRORS or i in explained][:WORST]
        rest = [i for i in rows if i in explained and i not in worst]
        drawn = [rest[i] for i in sorted(rng.permutation(len(rest))[:RANDOM].tolist())]
        for i in worst + drawn:
            item = explained.get(i)
            pictures = _pictures(run, item, key, kernels[item.folder]) if item else []
            cases.append(_case(run, i, key, pictures, drawn=i in drawn))
            # The command replaces the table of that folder, so it names those that are in it too.
            if key in ERRORS and (not pictures or (item and item.folder.name == "errors")):
                missing[cases[-1].example_id] = not pictures
    words = ["python", "-m", "msa_flax.explain", "--maps", "--workdir", str(run.workdir), "--out"]
    command = [*words, str(run.workdir / "eval" / run.split / "errors"), *missing]
    return Gallery(
        cases=cases,
        total=total,
        shown={key: sum(case.outcome == key for case in cases) for key in OUTCOMES},
        command=shlex.join(command) if any(missing.values()) else "",
    )


def _case(
    run: SavedRun, row: int, outcome: str, pictures: Sequence[Picture], *, drawn: bool
) -> Case:
    table = run.predictions
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


def _pictures(
    run: SavedRun, item: ExplainedImage, outcome: str, kernels: Sequence[str]
) -> list[Picture]:
    """Returns the image, the maps of the predicted class, and the attention maps."""
    predicted = run.classes[int(outcome in ("tp", "fp"))]
    target = class_in_file_name(predicted)
    wanted = [("image", "image", f"slice {run.predictions.example_id[item.row]}", _SIDE)]
    for method in item.methods:
        title, side = method_title(method), _SIDE if method == "gradcam" else _SMALL_SIDE
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
    return jpeg_uri(picture)


def jpeg_uri(picture: np.ndarray) -> str:
    """Returns a picture, uint8 [h, w] or [h, w, 3] in OpenCV's order, as a JPEG data URI."""
    written, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode() if written else ""
