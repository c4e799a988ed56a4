"""Keras weights: reads any file, fills variables strictly, and keeps the published files."""

from msa_flax.weights.keras_file import WeightsError, read, tensors_hash
from msa_flax.weights.load import WeightsReport, load
from msa_flax.weights.published import imagenet_path, not_as_published
from msa_flax.weights.rules import KERAS_FAMILIES

__all__ = [
    "KERAS_FAMILIES",
    "WeightsError",
    "WeightsReport",
    "imagenet_path",
    "load",
    "not_as_published",
    "read",
    "tensors_hash",
]
