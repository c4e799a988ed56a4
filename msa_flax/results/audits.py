"""The audit of the images of a run, or of a configuration, on the splits they are trained in."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax import weights
from msa_flax.auditing import shortcuts
from msa_flax.auditing.audit import Audit, audit
from msa_flax.config import Config
from msa_flax.data import DataError, inspect, list_images
from msa_flax.data.examples import Examples
from msa_flax.data.facts import with_facts
from msa_flax.data.families import all_sources, find_families
from msa_flax.data.folder import Progress
from msa_flax.evaluation.shapes import metrics_shape
from msa_flax.files import read_json
from msa_flax.results.features import frozen_features
from msa_flax.run import Data, untrained

log = logging.getLogger("msa_flax")


def audit_splits(
    config: Config,
    data: Data,
    *,
    workdir: Path | None,
    with_ladder: bool,
    threshold: float | None,
    progress: Progress,
) -> Audit:
    """Returns the audit of images on the splits that they are trained, validated and tested in.

    Args:
        config: where the images come from; for the ladder also the network and the seed.
        data: the images and their splits.
        workdir: the run whose own scores are compared with the shortcuts, or None.
        with_ladder: whether shortcuts are fitted on the training images.
        threshold: see :func:`msa_flax.data.families.find_families`.
        progress: called after each image of each stage.

    Raises:
        DataError: the files have changed since the data were read.
    """
    if config.data.source != "phantom":
        listing = list_images(config.data)
        examples, name = inspect(listing, progress=progress), listing.root.resolve().name
    else:
        examples, name = with_facts(data.examples), config.name
    if examples.example_id.tolist() != data.examples.example_id.tolist():
        raise DataError(f"the files of {name} have changed meanwhile; start again")
    examples = dataclasses.replace(examples, part=data.splits.split)
    families = find_families(examples.images, threshold=threshold, progress=progress)
    ladder: list[dict[str, Any]] = []
    if with_ladder:
        source = all_sources(examples, families)
        features = _pooled_features(config, data.examples)
        ladder = shortcuts.ladder(examples, source, features, seed=config.train.seed)
    scores = _model_scores(workdir, config.data.classes) if workdir else {}
    return audit(examples, families, name=name, ladder=ladder, model=scores)


def _pooled_features(config: Config, examples: Examples) -> np.ndarray | None:
    """Returns the mean of each image's feature maps under pretrained weights, float32 [n, c].

    Images are scaled as the weights were trained, whatever the run feeds its network.

    Returns:
        None where the configuration asks for no pretrained weights, or they cannot be had.
    """
    if config.model.pretrained == "none":
        return None
    native = dataclasses.replace(config.data, preprocess="native")
    try:
        run = untrained(Path(), dataclasses.replace(config, data=native))
    except weights.WeightsError as error:
        log.warning("no features of a pretrained network: %s", error)
        return None
    maps = frozen_features(run, examples)
    return np.stack([np.asarray(one, np.float32).mean(axis=(0, 1)) for one in maps])


def _model_scores(workdir: Path, classes: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Returns accuracy and AUC of the run's own evaluations by split, where there are any."""
    scores = {}
    for split in ("validation", "test"):
        path = workdir / "eval" / split / "metrics.json"
        if values := read_json(path, metrics_shape(classes)):
            metrics = values["metrics"]
            scores[split] = {name: metrics[name]["value"] for name in ("accuracy", "auc")}
    return scores
