"""A portable model: what a run's predictor is made into, and the predictor that comes back.

``model.json`` says everything but the numbers; ``weights.npz`` holds those, of the network and of
what the training images look like; ``model.stablehlo`` and ``maps.stablehlo`` are the functions.
"""

import dataclasses
import functools
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from msa_flax.evaluation import calibration
from msa_flax.exporting import package, programs
from msa_flax.exporting.package import PackageError
from msa_flax.files import NOTICE, batches, misshapen
from msa_flax.prediction.predictor import Predictor, contract, data_of, decision
from msa_flax.prediction.score import Scorer
from msa_flax.prediction.typicality import Typicality
from msa_flax.training.xla import compile_predict_step, compiler_options, in_parts

PROGRAM, MAPS, WEIGHTS = "model.stablehlo", "maps.stablehlo", "weights.npz"
CARD, ONNX = "card.md", "model.onnx"
_NETWORK, _TYPICALITY = "network/", "typicality/"  # what names in weights.npz begin with
_AT_ONCE = 4  # images, in models from before images_at_once was stored
_MAPS_AT_ONCE = 8  # pictures a call: there are few of them
_SHAPE = {
    "model": {
        **dict.fromkeys(("name", "backbone", "checkpoint"), str),
        **{"step": int, "trained_on": {"source": str, "images": int, "groups": int}},
    },
    "input": {
        "classes": [str],
        "image_size": int,
        **{"preprocess": {"paper", "native"}, "equalize": str, "max_tilt": float},
        "window": {"centre": float, "width": float},
    },
    **{
        "batch_size": int,
        "images_at_once?": int,
        "configured_threshold": float,
        "fingerprint": str,
        "stamps": [str],
    },
    "typicality": (None, {"belongs_to": str, "images": int, "groups": int, "limit": float}),
    "calibration": (None, calibration.SHAPE),
}


def pack(
    predictor: Predictor,
    *,
    variables: Any,
    describe: Callable[[Any, Any], Any],
    maps: Callable[[Any, Any], Any],
    at_once: int,
    card: str,
    about: Mapping[str, Any],
    onnx: bytes = b"",
) -> package.Contents:
    """Returns the files of a portable model.

    Args:
        predictor: of the run.
        variables: of the network, BatchNorm folded.
        describe: (variables, images) -> (logits [b], pooled features [b, c]).
        maps: (variables, images) -> Grad-CAM of the positive class, [b, h, w].
        at_once: images that prediction on a CPU computes at a time.
        card: the model card, in markdown.
        about: what else model.json says: metrics, versions.
        onnx: the network as an ONNX graph, if it is wanted.
    """
    scorer, size = predictor.scorer, predictor.scorer.data.image_size
    known, fitted = scorer.typicality, scorer.calibration
    arrays: dict[str, Any] = {
        f"{_NETWORK}{name}": x for name, x in programs.flat(variables).items()
    }
    scalars = None
    if known:
        scalars = dataclasses.asdict(known)
        arrays |= {f"{_TYPICALITY}{name}": scalars.pop(name) for name in ("axes", "centre")}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    values = {
        **about,
        "notice": NOTICE,
        "fingerprint": predictor.fingerprint,
        "model": dict(predictor.about),
        "stamps": list(predictor.stamps),
        "input": {**contract(scorer.data), **_input(scorer)},
        "outputs": {
            PROGRAM: ["logit, float32 [b]", "means of the feature maps, float32 [b, c]"],
            MAPS: ["Grad-CAM of the positive class, float32 [b, h, w]"],
        },
        "positive": scorer.data.classes[1],
        "batch_size": scorer.batch_size,
        "images_at_once": at_once,
        "configured_threshold": scorer.configured,
        "operating_point": decision(scorer),
        "calibration": fitted and fitted.values(),
        "conformal": fitted and "the logits in calibration, by class (split conformal prediction)",
        "typicality": scalars,
    }
    return package.sealed(
        values,
        {
            PROGRAM: programs.serialise(describe, variables, size),
            MAPS: programs.serialise(maps, variables, size),
            WEIGHTS: buffer.getvalue(),
            CARD: card.encode(),
            **({ONNX: onnx} if onnx else {}),
        },
    )


def _input(scorer: Scorer) -> dict[str, Any]:
    """Returns what model.json says of its input beyond the contract of every prediction."""
    size = scorer.data.image_size
    return {
        "array": f"uint8 [b, {size}, {size}], grey values, as msa_flax.preprocess returns them",
        "source": "axial CT slices of the cervical spine: grey PNG and JPEG, or DICOM in HU",
        "orientation": "rows to the patient's left, columns back; only DICOM can be turned",
        "scaling": "inside the programs: paper, x / 255; native, as ImageNet's weights expect it",
    }


def read(path: Path) -> Predictor:
    """Returns the predictor of a portable model, checked.

    Raises:
        PackageError: it is none, or not as it was written.
    """
    values, files = package.read(path)
    try:
        if problem := misshapen(values, _SHAPE):
            raise ValueError(problem)
        values = {"images_at_once": _AT_ONCE} | values
        for name in ("batch_size", "images_at_once"):
            if values[name] < 1:
                raise ValueError(f"{name} {values[name]}")
        with np.load(io.BytesIO(files[WEIGHTS]), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _predictor(values, files, arrays)
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise PackageError(f"{path}: expected a model of msa_flax.export, got {error}") from error


def _predictor(
    values: Mapping[str, Any], files: package.Contents, arrays: Mapping[str, np.ndarray]
) -> Predictor:
    data, known, fitted = data_of(values["input"]), values["typicality"], values["calibration"]
    network = _beginning(arrays, _NETWORK)
    weights, at_once = jax.device_put(network), values["images_at_once"]
    describe = programs.load(files[PROGRAM], network, data.image_size)

    def step(weights: Any, images: Any) -> Any:
        return in_parts(functools.partial(describe, weights), images, at_once)

    scorer = Scorer(
        describe=_in_batches(
            functools.partial(compile_predict_step(step), weights), values["batch_size"]
        ),
        data=data,
        batch_size=values["batch_size"],
        configured=values["configured_threshold"],
        calibration=calibration.from_values(fitted) if fitted else None,
        typicality=Typicality(**known, **_beginning(arrays, _TYPICALITY)) if known else None,
    )

    @functools.cache
    def mapped() -> Callable[[Any], Any]:
        loaded = programs.load(files[MAPS], network, data.image_size)
        options = compiler_options(many_branches=True)
        return functools.partial(jax.jit(loaded, compiler_options=options), weights)

    return Predictor(
        scorer=scorer,
        maps=lambda images: _in_batches(lambda batch: [mapped()(batch)], _MAPS_AT_ONCE)(images)[0],
        fingerprint=values["fingerprint"],
        stamps=values["stamps"],
        about=values["model"],
    )


def _beginning(arrays: Mapping[str, np.ndarray], start: str) -> dict[str, Any]:
    return {name.removeprefix(start): x for name, x in arrays.items() if name.startswith(start)}


def _in_batches(call: Callable[[Any], Any], size: int) -> Callable[[np.ndarray], Any]:
    """Returns a function of n >= 1 images that calls a compiled one with batches of one size."""

    def whole(images: np.ndarray) -> Any:
        found = [[np.asarray(x)[:n] for x in call(batch)] for batch, n in batches(images, size)]
        return tuple(map(np.concatenate, zip(*found, strict=True)))

    return whole
