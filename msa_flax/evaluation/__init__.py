"""Evaluation: the table of predictions, and the numbers and figures that are made from it."""

from msa_flax.evaluation import comparison, figures, panels
from msa_flax.evaluation.metrics import compute, metrics_json, table, write_json
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
    "comparison",
    "compute",
    "figures",
    "metrics_json",
    "panels",
    "predict_logits",
    "sigmoid",
    "table",
    "threshold_for_sensitivity",
    "write_json",
]
