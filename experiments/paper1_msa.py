"""Paper 1's own experiment: MSA-CSpineNet on the public data set, as published.

Claim: accuracy 0.9975, precision 0.9950, recall 0.9999, specificity 0.9950, F1 0.9974, AUC 0.9999
on the official val/ folder, which the paper uses as its test set, after 15 epochs.
"""

from msa_flax.config import Config, DataConfig


def get_config(arg: str = "") -> Config:
    """Returns paper 1's experiment; ``arg`` is the data set's folder, if given here."""
    return Config(name="paper1_msa", data=DataConfig(root=arg, allow_leakage=True))
