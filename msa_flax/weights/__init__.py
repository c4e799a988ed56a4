"""Keras weights: read any file, fill a variable tree strictly, keep the published ones."""

from msa_flax.weights.cache import imagenet_path
from msa_flax.weights.keras_file import WeightsError, read, tensors_hash
from msa_flax.weights.load import WeightsReport, export, load
from msa_flax.weights.rules import KERAS_FAMILIES

__all__ = [
    "KERAS_FAMILIES",
    "WeightsError",
    "WeightsReport",
    "export",
    "imagenet_path",
    "load",
    "read",
    "tensors_hash",
]
