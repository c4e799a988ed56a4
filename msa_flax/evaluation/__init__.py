"""Evaluation: the table of predictions, and the numbers that are made from it."""

from msa_flax.evaluation.operating_point import threshold_for_sensitivity
from msa_flax.evaluation.predictions import Predictions, PredictionsError, predict_logits, sigmoid
from msa_flax.evaluation.summary import compute_metrics, metrics_json
from msa_flax.evaluation.terminal import metrics_table

__all__ = [
    "Predictions",
    "PredictionsError",
    "compute_metrics",
    "metrics_json",
    "metrics_table",
    "predict_logits",
    "sigmoid",
    "threshold_for_sensitivity",
]
