"""The gallery: which explained images a report shows, worst first, and their small pictures."""

import base64
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from msa_flax.reporting import points
from msa_flax.reporting.artefacts import Artefacts, Explained

WORST, RANDOM = 24, 12  # images shown of each outcome
RANDOMLY = "drawn at random"
FIRST = "gradcam"  # the method whose maps are shown large
TITLES = {  # as in msa_flax.saliency.METHODS, which knows JAX; a test holds them together
    "gradcam": "Grad-CAM",
    "gradcam_plus_plus": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "xgradcam": "XGrad-CAM",
    "layercam": "LayerCAM",
    "score_cam": "Score-CAM",
    "ablation_cam": "Ablation-CAM",
    "eigencam": "Eigen-CAM",
    "eigen_gradcam": "Eigen-Grad-CAM",
    "integrated_gradients": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "occlusion": "Occlusion",
    "random_map": "Random map",
    "centre_prior": "Centre prior",
}
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
    """One image of the gallery; ``why`` is :data:`RANDOMLY`, or "" for one of the worst."""

    example_id: str
    outcome: str
    group: str
    label: str
    called: str
    probability: float
    why: str
    pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The cases, and by outcome how many were explained, are shown, and exist."""

    cases: Sequence[Case]
    explained: Mapping[str, int]
    shown: Mapping[str, int]
    total: Mapping[str, int]
    without_image: int  # cases whose plain image was not saved

    @property
    def left_out(self) -> Mapping[str, int]:
        """Explained images that the page does not show, by outcome."""
        return {key: self.explained[key] - self.shown[key] for key in self.explained}


def gallery(run: Artefacts, *, seed: int = 0) -> Gallery:
    """Chooses images of every outcome and makes their pictures small.

    Missed fractures come first, then false alarms, those of which the model was surest first; then
    what it got right, those of which it was least sure first. Of each outcome the 24 worst are
    shown, and 12 of the others, drawn at random.
    """
    outcome, rng, kernels = run.outcome, np.random.default_rng(seed), _kernels(run.explanations)
    cases, explained, shown = [], {}, {}
    for key in points.OUTCOMES:
        members = [item for item in run.explained if outcome[item.row] == key]
        chosen = _chosen(run, members, key, rng)
        explained[key], shown[key] = len(members), len(chosen)
        cases += [_case(run, item, key, kernels, why) for item, why in chosen]
    return Gallery(
        cases=cases,
        explained=explained,
        shown=shown,
        total={key: int((outcome == key).sum()) for key in points.OUTCOMES},
        without_image=sum(not any(p.name == "image" for p in case.pictures) for case in cases),
    )


def _chosen(
    run: Artefacts, members: list[Explained], outcome: str, rng: np.random.Generator
) -> list[tuple[Explained, str]]:
    def order(item: Explained) -> tuple[float, str]:
        probability = float(run.predictions.probability[item.row])
        # The worst: missed and rightly found fractures of low probability, the others of high.
        worst = probability if outcome in ("fn", "tp") else -probability
        return worst, str(run.predictions.example_id[item.row])

    ordered = sorted(members, key=order)
    rest = ordered[WORST:]
    drawn = sorted(rng.permutation(len(rest))[:RANDOM].tolist())
    return [(item, "") for item in ordered[:WORST]] + [(rest[i], RANDOMLY) for i in drawn]


def _kernels(folder: Path) -> list[str]:
    found = {re.search(r"\.attention-(\d+)\.png$", path.name) for path in folder.glob("*.png")}
    return sorted({match[1] for match in found if match}, key=int)


def _case(run: Artefacts, item: Explained, outcome: str, kernels: Sequence[str], why: str) -> Case:
    table, names = run.predictions, run.classes
    label, called = names[int(outcome in ("tp", "fn"))], names[int(outcome in ("tp", "fp"))]
    example_id = str(table.example_id[item.row])
    target = ("normal", "fracture")[int(outcome in ("tp", "fp"))]
    wanted = [("image", "image", f"slice {example_id}", _SIDE)]
    for method in item.methods:
        title, side = TITLES.get(method, method), _SIDE if method == FIRST else _SMALL_SIDE
        alt = f"{title} for the class that was called, {called}"
        wanted.append((f"{method}-{target}", f"{title}, {called}", alt, side))
    for kernel in kernels:
        name = f"attention {kernel}x{kernel}"
        wanted.append((f"attention-{kernel}", name, f"attention map, kernel {kernel}", _SMALL_SIDE))
    pictures = []
    for ending, name, alt, side in wanted:
        uri = _uri(run.explanations / f"{item.stem}.{ending}.png", side)
        if uri:
            pictures.append(Picture(name=name, alt=alt, uri=uri))
    return Case(
        example_id=example_id,
        outcome=outcome,
        group=str(table.group[item.row]),
        label=label,
        called=called,
        probability=float(table.probability[item.row]),
        why=why,
        pictures=pictures,
    )


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
