"""Fracture detection in cervical-spine CT slices with JAX and Flax.

Research use only, not a medical device.

The names below are the public interface; they are imported on first use, so that ``import
msa_flax`` costs nothing and never imports TensorFlow.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_WHERE = {
    "create_model": "msa_flax.models",
    "load_keras": "msa_flax.initial",
    "restore": "msa_flax.run",
    "Run": "msa_flax.run",
    "preprocess": "msa_flax.data.images",
    "Config": "msa_flax.config",
}
_PARTS = ("evaluation", "saliency")

__all__ = ["Config", "Run", "create_model", "evaluation", "load_keras", "preprocess", "restore"]
__all__ += ["saliency"]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"msa_flax.{name}")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'msa_flax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE, *_PARTS])
