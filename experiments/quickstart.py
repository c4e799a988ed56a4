"""The embedded default: a narrow MSA-CSpineNet on the synthetic phantom, split by patient.

Claim: a held-out AUC of at least 0.95 after less than three minutes of training on two CPU cores,
from nothing but this package.

    python -m msa_flax.train --workdir runs/quickstart --config=experiments/quickstart.py

is the same as leaving ``--config`` out.
"""

from msa_flax import config


def get_config(arg: str = "") -> config.Config:
    """Returns :func:`msa_flax.config.quickstart`."""
    del arg
    return config.quickstart()
