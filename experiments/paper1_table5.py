r"""Paper 1, Table 5: MSA-CSpineNet beside ConvNeXt, EfficientNet and ResNet50.

Claim: accuracy 0.827, 0.793 and 0.940 for the three, 0.997 for MSA-CSpineNet, "under identical
conditions (same dataset split, preprocessing, optimizer, batch size, and epochs)". The paper gives
every network images in 0..1, which only suits its own: ConvNeXt and EfficientNet scale 0..255
themselves, ResNet50 expects ImageNet's means subtracted. Each therefore has two rows here: as the
paper did, and ``_native``, with the input that the network was pretrained with.

    python -m msa_flax.train --workdir runs/table5/resnet50 \
        --config=experiments/paper1_table5.py:resnet50 --config.data.root=DIR

trains one row, ``python experiments/sweep.py paper1_table5 --out runs --root DIR`` all of them.
ResNet50 takes four minutes on a GPU, and four per epoch on two cores, EfficientNetB0 one to two,
ConvNeXt-Tiny six.

Obtained (seed 0, 2026-11-24 to 2026-11-30): test accuracy 0.7300 for EfficientNetB0 (0.8850 native)
after five epochs from scratch, 0.9850 for ResNet50 from scratch (0.7825 native after five epochs),
0.5000 for ConvNeXt-Tiny, which learns nothing in five epochs at this rate from scratch (0.7450
native), and 1.0000 for MSA-CSpineNet. README.md has the whole table.
"""

import pathlib
import sys

from msa_flax.config import Config, DataConfig, ModelConfig

sys.path.append(str(pathlib.Path(__file__).parent))  # the train command loads this file alone
from table_rows import network_and_input, with_native

TITLE = "Paper 1, Table 5: against other architectures"
METRICS = ("accuracy", "precision", "auc", "recall")
PAPER = {
    "convnext_tiny": {"accuracy": 0.827, "precision": 0.827, "auc": 0.905, "recall": 0.827},
    "efficientnet_b0": {"accuracy": 0.793, "precision": 0.851, "auc": 0.912, "recall": 0.793},
    "resnet50": {"accuracy": 0.940, "precision": 0.946, "auc": 0.988, "recall": 0.940},
    "msa": {"accuracy": 0.997, "precision": 0.995, "auc": 0.999, "recall": 0.999},
}
ROWS = with_native(
    {
        "convnext_tiny": "ConvNeXt-Tiny",
        "efficientnet_b0": "EfficientNetB0",
        "resnet50": "ResNet50",
    }
) | {"msa": "MobileNet + MSA"}
SHARED = {"msa": "paper1_table4/msa"}  # the same run


def get_config(arg: str = "resnet50") -> Config:
    """Returns the experiment of one row; ``arg`` is a key of ``ROWS``."""
    backbone, preprocess = network_and_input(arg, ROWS)
    own = ModelConfig()
    return Config(
        name=f"paper1_table5:{arg}",
        model=own if arg == "msa" else ModelConfig(backbone=backbone, attention="none"),
        data=DataConfig(allow_leakage=True, preprocess=preprocess),
    )
