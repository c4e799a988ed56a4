"""A run made into a portable model."""

from pathlib import Path
from typing import Any

from msa_flax import __version__
from msa_flax.exporting import package, portable
from msa_flax.exporting.keras_network import write_keras
from msa_flax.exporting.onnx_graph import graph
from msa_flax.files import NOTICE, read_json
from msa_flax.models import NATIVE_SCALING, scaler
from msa_flax.models.ops.native import native_everywhere
from msa_flax.prediction.predictor import Predictor, contract
from msa_flax.reporting.card import render_card
from msa_flax.results.predictor import predictor_of
from msa_flax.run import Run
from msa_flax.saliency.explain import make_classifier_step
from msa_flax.training.workdir import environment

_OF_METRICS = ("n", "groups", "positive", "threshold", "stamps", "confusion", "metrics")


def export_run(run: Run, out: Path, *, zipped: bool, onnx: bool = False) -> str:
    """Writes a run as a portable model; returns a summary.

    Args:
        run: a restored run.
        out: a new folder, or a new file if ``zipped``; the same model there is left alone.
        zipped: whether one file is written.
        onnx: whether the network is added as an ONNX graph.

    Raises:
        OnnxError: it cannot be written as ONNX here.
        PackageError: something else is there.
        PredictionError: there is a calibration that cannot be used.
    """
    contents = _contents(run, onnx)
    there = package.write(out, contents, zipped=zipped)
    size = sum(map(len, contents.values())) / 1e6
    said = "is this model already; nothing was written" if there else f"{size:.1f} MB"
    return f"{out}: {said}; predict with --model {out}; {NOTICE}"


def export_keras(run: Run, path: Path) -> str:
    """Writes a run's network for Keras; returns a summary.

    Raises:
        KerasError: see :func:`.keras_network.write_keras`.
    """
    config = run.config
    paper = config.data.preprocess == "paper"
    whole = write_keras(
        path,
        run.variables,
        model=config.model,
        image_size=config.data.image_size,
        scaling="0..1" if paper else NATIVE_SCALING[config.model.backbone],
    )
    return f"{path}: the backbone, and {whole}: the whole network, for Keras 3; {NOTICE}"


def _contents(run: Run, onnx: bool) -> package.Contents:
    run.scorer.check()
    predictor, scale = predictor_of(run), scaler(run.config)
    explain = make_classifier_step(run.model, scale, ["gradcam"])

    def describe(variables: Any, images: Any) -> Any:
        return run.model.apply(variables, scale(images), train=False, method="describe")

    def maps(variables: Any, images: Any) -> Any:
        return explain(variables, images)["gradcam/fracture"]

    said = {
        "about": predictor.about,
        "stamps": predictor.stamps,
        "threshold": predictor.scorer.threshold,
        "positive": run.config.data.classes[1],
    }
    return portable.pack(
        predictor,
        variables=run.folded,
        describe=describe,
        maps=maps,
        at_once=run.model.at_once,
        card=render_card(run.workdir, **said),
        about={
            "metrics": {
                name: found for name in ("validation", "test") if (found := _metrics(run, name))
            },
            "versions": {"msa_flax": __version__, **environment()["versions"]},
            "data_fingerprint": run.identity["data_fingerprint"],
        },
        onnx=_onnx(run, predictor) if onnx else b"",
    )


def _onnx(run: Run, predictor: Predictor) -> bytes:
    scale, data = scaler(run.config), predictor.scorer.data

    def logits(images: Any) -> Any:
        return run.model.apply(run.folded, scale(images), train=False)

    about = {
        "input": contract(data),
        "classes": list(data.classes),
        "threshold": predictor.scorer.threshold,
        "stamps": list(predictor.stamps),
        "fingerprint": predictor.fingerprint,
    }
    with native_everywhere():
        return graph(logits, size=data.image_size, metadata=about)


def _metrics(run: Run, split: str) -> dict[str, Any]:
    """Returns the metrics of a split with their intervals, {} where it was not evaluated.

    Results of single groups stay behind: their names may be those of patients.
    """
    values = read_json(run.results(split) / "metrics.json")
    return {name: values[name] for name in _OF_METRICS if name in values}
