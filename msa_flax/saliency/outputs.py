"""The files of explanations: overlays and raw maps of each image, and ``explanations.csv``."""

import io
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.evaluation.metrics import CLASSES
from msa_flax.evaluation.predictions import sigmoid
from msa_flax.files import csv_text, write_atomically
from msa_flax.saliency.explain import Explanations
from msa_flax.saliency.interface import TARGETS, SaliencyError
from msa_flax.saliency.render import attention_image, overlay, png
from msa_flax.saliency.titles import class_in_file_name, safe_stem


def write_explanations(
    out_dir: str | os.PathLike[str],
    found: Explanations,
    *,
    example_id: np.ndarray,
    label: np.ndarray,
    images: np.ndarray,
    classes: Sequence[str] = CLASSES,
    masks: np.ndarray | None = None,
    one_picture: bool = False,
) -> list[list[Any]]:
    """Writes the files of every image; returns a row per image and method for the table.

    Args:
        out_dir: the folder; made if it is not there.
        found: explanations of n images.
        example_id: str [n].
        label: [n]; below 0 if unknown.
        images: uint8 [n, s, s].
        classes: names of the negative and of the positive class, for the names of the files.
        masks: uint8 [n, s, s]; None where fractures are not outlined.
        one_picture: write one picture of each image instead, ``<stem>.png``: the image, and beside
            it the map of the positive class by each method.

    Returns:
        Rows for :func:`explanations_csv`.
    """
    rows: list[list[Any]] = []
    mass = {} if masks is None else {name: found.mass(masks, method=name) for name in found.maps}
    probability = sigmoid(found.logit)
    called = dict(zip(TARGETS, map(class_in_file_name, reversed(classes)), strict=True))
    for i, name in enumerate(example_id.tolist()):
        stem = safe_stem(name)
        maps = {
            method: {called[target]: by_target[target][i] for target in TARGETS}
            for method, by_target in found.maps.items()
        }
        attention = {k: values[i] for k, values in found.attention.items()}
        if one_picture:
            positive = [by_target[called[TARGETS[0]]] for by_target in maps.values()]
            _write_picture(pathlib.Path(out_dir) / f"{stem}.png", images[i], positive)
        else:
            write_explanation(out_dir, stem, image=images[i], maps=maps, attention=attention)
        known = "" if label[i] < 0 else int(label[i])
        for method, by_target in maps.items():
            peaks = [f"{values.max():.6g}" for values in by_target.values()]
            shares = ["", ""]
            if method in mass and not np.isnan(mass[method][i, 1]):
                shares = [f"{value:.6f}" for value in mass[method][i]]
            rows.append([name, known, f"{probability[i]:.6f}", stem, method, *peaks, *shares])
    return rows


def _write_picture(path: pathlib.Path, image: np.ndarray, maps: Sequence[np.ndarray]) -> None:
    plain = np.repeat(image[:, :, None], 3, axis=2)
    beside = [plain, *(overlay(image, saliency) for saliency in maps)]
    write_atomically(path, png(np.concatenate(beside, axis=1)))


def write_explanation(
    out_dir: str | os.PathLike[str],
    stem: str,
    *,
    image: np.ndarray,
    maps: Mapping[str, Mapping[str, np.ndarray]],
    attention: Mapping[int, np.ndarray] | None = None,
) -> list[pathlib.Path]:
    """Writes the explanation of one image: pictures for people, raw maps for programs.

    For every method and each target, which are the classes' names, there are
    ``<stem>.<method>-<target>.png``, the overlay, and ``.npy``, the raw map; for each kernel size
    ``<stem>.attention-<k>.png`` and ``.npy``; and ``<stem>.image.png``, the image itself.

    Args:
        out_dir: the folder; made if it is not there.
        stem: a plain file name, from :func:`safe_stem`.
        image: uint8 [s, s].
        maps: method to target to map [h, w].
        attention: kernel size to attention map [h, w] in 0..1; nothing for a network without.

    Returns:
        The files, in the order of writing.

    Raises:
        SaliencyError: the stem could leave the folder, or a map cannot be shown.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", stem):
        raise SaliencyError(f"stem: expected a name from safe_stem(), got {stem!r}")
    files: dict[str, bytes] = {}
    for method, by_target in maps.items():
        for target, saliency in by_target.items():
            files[f"{method}-{target}.png"] = png(overlay(image, saliency))
            files[f"{method}-{target}.npy"] = _npy(saliency)
    for kernel_size, values in (attention or {}).items():
        files[f"attention-{kernel_size}.png"] = png(attention_image(values, image.shape[0]))
        files[f"attention-{kernel_size}.npy"] = _npy(values)
    files["image.png"] = png(np.repeat(image[:, :, None], 3, axis=2))
    paths = {pathlib.Path(out_dir) / f"{stem}.{ending}": data for ending, data in files.items()}
    for path, data in paths.items():
        write_atomically(path, data)
    return list(paths)


def explanations_csv(rows: Sequence[Sequence[Any]], classes: Sequence[str] = CLASSES) -> str:
    """Returns ``explanations.csv`` as text.

    Args:
        rows: from :func:`write_explanations`.
        classes: names of the negative and of the positive class.
    """
    largest = [f"maximum_{name}" for name in reversed(classes)]
    head = ["example_id", "label", "probability", "stem", "method", *largest]
    return csv_text([*head, "mass_inside", "area_share"], rows)


def mass_report(
    found: Explanations, masks: np.ndarray, detected: np.ndarray, positive: str = CLASSES[1]
) -> str:
    """Says how much of the Grad-CAM maps' mass lies on the fractures that were detected.

    Args:
        found: explanations of n images.
        masks: uint8 [n, s, s].
        detected: bool [n], fractures that were predicted as such.
        positive: name of their class.
    """
    mass = found.mass(masks)[detected]
    defined = mass[~np.isnan(mass[:, 0])]
    if len(defined) == 0:
        return f"Grad-CAM on detected {positive!r} images: none detected, nothing to measure"
    inside, area = defined.mean(axis=0)
    return (
        f"Grad-CAM on {len(mass)} detected {positive!r} images: {inside:.3f} of the map's mass "
        f"lies inside the widened mask, which covers {area:.3f} of the image "
        f"(ratio {inside / area:.1f}); {len(mass) - len(defined)} maps are all zero"
    )


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(values, np.float32), allow_pickle=False)
    return buffer.getvalue()
