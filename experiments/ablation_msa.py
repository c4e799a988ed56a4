r"""Does the multi-scale spatial attention block help? Every part of it, on frozen features.

Claim of paper 1: attention at three scales improves the detection of small fractures; it shows no
ablation. Here MobileNet's ImageNet features are computed once and stay fixed, so that a run costs
seconds and can be repeated: no attention, the paper's block, each kernel alone, each pair, both
readings of its "1 x 1 refinement", and the spatial half of CBAM, which is the block with one scale.
Each is trained on the published split and (``_B12``) with series B12 held out.

    python -m msa_flax.train --workdir runs/ablation/msa --config=experiments/ablation_msa.py:msa \
        --config.data.root=DIR

trains one row; ``python experiments/sweep.py ablation_msa --seeds 0 1 2 3 4 --out runs --root DIR``
all of them. The first run computes the features of all images (minutes on two cores), every further
one takes seconds. Images are in -1..1, as the frozen weights were trained.

Obtained (5 seeds, 2026-11-25 to 2026-11-27, 2 cores): on the published split every row has a test
accuracy of 1.0000. With B12 held out the AUC is 0.8507 without attention and 0.8145 with the
paper's block; that difference, -0.0362, has the 95 % interval [-0.0896, +0.0173] over seeds.
README.md has the whole table.
"""

import dataclasses
import pathlib
import sys
from typing import Any

from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig

sys.path.append(str(pathlib.Path(__file__).parent))  # the train command loads this file alone
from table_rows import check_row

TITLE = "Ablation of the attention block on frozen ImageNet features"
METRICS = ("accuracy", "recall", "specificity", "auc")
HELD_OUT = "B12"
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("no attention", {"attention": "none"}),
    "msa": ("MSA, kernels 3, 5, 7", {}),
    "k3": ("kernel 3 alone", {"kernel_sizes": (3,)}),
    "k5": ("kernel 5 alone", {"kernel_sizes": (5,)}),
    "k7": ("kernel 7 alone", {"kernel_sizes": (7,)}),
    "k35": ("kernels 3, 5", {"kernel_sizes": (3, 5)}),
    "k37": ("kernels 3, 7", {"kernel_sizes": (3, 7)}),
    "k57": ("kernels 5, 7", {"kernel_sizes": (5, 7)}),
    "map": ("MSA, maps refined", {"refine": "map"}),
    "features": ("MSA, features refined", {"refine": "features"}),
    "cbam": ("CBAM's spatial attention", {"attention": "cbam"}),
}
ROWS = {
    f"{key}{suffix}": name + where
    for suffix, where in (("", ""), (f"_{HELD_OUT}", f"; {HELD_OUT} held out"))
    for key, (name, _) in VARIANTS.items()
}
PAPER: dict[str, dict[str, float]] = {row: {} for row in ROWS}
# row -> the row it is compared with, seed by seed
BASELINES = {
    row: f"none_{HELD_OUT}" if row.endswith(HELD_OUT) else "none"
    for row in ROWS
    if not row.startswith("none")
}


def get_config(arg: str = "msa") -> Config:
    """Returns the experiment of one row; ``arg`` is a key of ``ROWS``."""
    check_row(arg, ROWS)
    variant = arg.removesuffix(f"_{HELD_OUT}")
    data = DataConfig(allow_leakage=True, preprocess="native")
    if variant != arg:
        data = dataclasses.replace(data, protocol="grouped", holdout_group=HELD_OUT)
    return Config(
        name=f"ablation_msa:{arg}",
        model=ModelConfig(**VARIANTS[variant][1]),
        data=data,
        train=TrainConfig(epochs=5, freeze_backbone=True),
    )
