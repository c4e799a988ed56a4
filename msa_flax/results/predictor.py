"""A run as what predicts new images."""

import hashlib

import jax
import numpy as np

from msa_flax.data.splits import Splits
from msa_flax.files import read_json
from msa_flax.prediction.predictor import PHANTOM, Predictor
from msa_flax.run import Run


def predictor_of(run: Run) -> Predictor:
    """Returns what a prediction of new images needs of a restored run."""
    recorded, known = read_json(run.workdir / "run.json"), run.scorer.typicality
    phantom = run.config.data.source == "phantom"
    splits = Splits.read(run.workdir / "splits.csv")
    return Predictor(
        scorer=run.scorer,
        maps=lambda images: run.explain(images).maps["gradcam"]["fracture"],
        fingerprint=fingerprint(run),
        stamps=[PHANTOM] * phantom + [*recorded.get("stamps", ()), *run.changes],
        about={
            "name": run.config.name,
            "backbone": run.config.model.backbone,
            "checkpoint": run.checkpoint,
            "step": run.step,
            "trained_on": {
                "source": "a synthetic phantom" if phantom else run.config.data.source,
                "images": len(splits.indices("train")),
                "groups": known.groups if known else 0,
            },
        },
    )


def fingerprint(run: Run) -> str:
    """Returns the SHA-256 of a run's network, over the names, shapes and bytes of its tensors."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(run.variables):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}\n".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
