r"""Paper 2, Table 1: MobileNetV2, ResNet50 and ConvNeXt-Tiny, by that paper's method.

Claim: accuracy 97.50, 97.45 and 84.00 %, with recall 0.47, 0.48 and 0.72, precision 0.49, 0.53 and
0.55, F1 0.49, 0.48 and 0.68: numbers that no confusion matrix on balanced classes can have.

Its method: histogram equalisation, images in 0..1, augmentation by rotation, flips and scaling, 10
to 20 epochs with early stopping on the validation loss and a learning rate that is lowered on its
plateaus; a softmax over two classes, and for ConvNeXt a layer of 256 units before one logit. The
paper seems to have stopped on the images that it reports; here validation is a fifth of the
training folder, as in paper 1, and the official val/ is the test set. ``_native`` rows have the
input that the network was pretrained with. What the paper leaves open (rate, patience) is Keras's
default or this file's.

    python -m msa_flax.train --workdir runs/paper2/resnet50 \
        --config=experiments/paper2_table1.py:resnet50 --config.data.root=DIR

trains one row, ``python experiments/sweep.py paper2_table1 --out runs --root DIR`` all of them.
Five epochs of MobileNetV2 take half an hour on two cores, of ConvNeXt-Tiny an hour on one.

Obtained (seed 0, five epochs, 2026-11-27 to 2026-11-30, 2 cores): MobileNetV2 has a test accuracy
of 0.9875 with a recall of 0.9750, and 1.0000 with its native input; ResNet50 from scratch 0.8075
with a recall of 0.8200, and 0.8100 with 1.0000; ConvNeXt-Tiny from scratch learns nothing from
images in 0..1, and has 0.8775 with 1.0000 from its native input. README.md has the whole table.
"""

import pathlib
import sys

from msa_flax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig

sys.path.append(str(pathlib.Path(__file__).parent))  # the train command loads this file alone
from table_rows import network_and_input, with_native

TITLE = "Paper 2, Table 1: three architectures with augmentation and early stopping"
METRICS = ("accuracy", "recall", "f1", "precision", "auc")
PAPER = {
    "mobilenet_v2": {"accuracy": 0.9750, "recall": 0.47, "f1": 0.49, "precision": 0.49},
    "resnet50": {"accuracy": 0.9745, "recall": 0.48, "f1": 0.48, "precision": 0.53},
    "convnext_tiny": {"accuracy": 0.8400, "recall": 0.72, "f1": 0.68, "precision": 0.55},
}
ROWS = with_native(
    {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50", "convnext_tiny": "ConvNeXt-Tiny"}
)
HEADS = {"mobilenet_v2": "softmax2", "resnet50": "softmax2", "convnext_tiny": "dense256"}


def get_config(arg: str = "resnet50") -> Config:
    """Returns the experiment of one row; ``arg`` is a key of ``ROWS``."""
    backbone, preprocess = network_and_input(arg, ROWS)
    return Config(
        name=f"paper2_table1:{arg}",
        model=ModelConfig(backbone=backbone, attention="none", head=HEADS[backbone]),
        data=DataConfig(
            allow_leakage=True,
            preprocess=preprocess,
            equalize="histogram",
            augment="paper2",
        ),
        optim=OptimConfig(schedule="plateau"),
        train=TrainConfig(epochs=20, early_stopping=5),
    )
