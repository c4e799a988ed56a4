r"""Paper 1, Table 4: MSA-CSpineNet as published, and the same network without its attention block.

Claim: accuracy 0.9975, precision 0.9950, recall 0.9999, specificity 0.9950, F1 0.9974, AUC 0.9999
on the official val/ folder, which the paper uses as its test set.

    python -m msa_flax.train --workdir runs/table4/msa --config=experiments/paper1_table4.py:msa \
        --config.data.root=DIR

trains one row, ``python experiments/sweep.py paper1_table4 --out runs --root DIR`` all of them. A
row takes 15 to 50 minutes on two cores, three on a GPU.

Obtained (3 seeds, 2026-11-24 to 2026-11-27): every metric of both rows is 1.0000, with every seed.
So these data do not show what attention adds. README.md has the whole table.
"""

import pathlib
import sys

from msa_flax.config import Config, DataConfig, ModelConfig

sys.path.append(str(pathlib.Path(__file__).parent))  # the train command loads this file alone
from table_rows import check_row

TITLE = "Paper 1, Table 4: the proposed network, and the network without its attention"
METRICS = ("accuracy", "precision", "auc", "f1", "recall", "specificity")
PAPER = {
    "msa": {
        "accuracy": 0.9975,
        "precision": 0.9950,
        "auc": 0.9999,
        "f1": 0.9974,
        "recall": 0.9999,
        "specificity": 0.9950,
    },
    "without": {},
}
ROWS = {"msa": "MobileNet + MSA", "without": "MobileNet"}


def get_config(arg: str = "msa") -> Config:
    """Returns the experiment of one row; ``arg`` is a key of ``ROWS``."""
    check_row(arg, ROWS)
    return Config(
        name=f"paper1_table4:{arg}",
        model=ModelConfig(attention="msa" if arg == "msa" else "none"),
        data=DataConfig(allow_leakage=True),
    )
