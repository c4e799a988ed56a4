"""The embedded default: a narrow MSA-CSpineNet on the synthetic phantom, split by patient.

Claim: a held-out AUC of at least 0.95 after less than three minutes of training on two CPU cores,
from nothing but this package.

    python -m msa_flax.train --workdir runs/quickstart --config=experiments/quickstart.py

is the same as leaving ``--config`` out.

Obtained (seed 0, 2026-11-29, Linux x86_64, 2 cores, jax 0.10.2): AUC 0.9910 and accuracy 0.9705 on
576 slices of 72 patients that were not trained on.
"""

from msa_flax import config


def get_config(arg: str = "") -> config.Config:
    """Returns :func:`msa_flax.config.quickstart`."""
    del arg
    return config.quickstart()
