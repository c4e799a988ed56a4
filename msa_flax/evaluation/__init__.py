"""Evaluation: the table of predictions, and the numbers and figures that are made from it."""

from msa_flax.evaluation.metrics import compute, metrics_json, table
from msa_flax.evaluation.predictions import (
    Predictions,
    PredictionsError,
    predict_logits,
    sigmoid,
)
from msa_flax.evaluation.thresholds import threshold_for_sensitivity

__all__ = [
    "Predictions",
    "PredictionsError",
    "compute",
    "metrics_json",
    "predict_logits",
    "sigmoid",
    "table",
    "threshold_for_sensitivity",
]
