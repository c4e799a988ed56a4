r"""Paper 1, Table 5: MSA-CSpineNet beside ConvNeXt, EfficientNet and ResNet50.

Claim: accuracy 0.827, 0.793 and 0.940 for the three, 0.997 for MSA-CSpineNet, "under identical
conditions (same dataset split, preprocessing, optimizer, batch size, and epochs)". The paper gives
every network images in 0..1, which only suits its own: ConvNeXt and EfficientNet scale 0..255
themselves, ResNet50 expects ImageNet's means subtracted. Each therefore has two rows here: as the
paper did, and ``_native``, with the input that the network was pretrained with.

    python -m msa_flax.train --workdir runs/table5/resnet50 \
        --config=experiments/paper1_table5.py:resnet50 --config.data.root=DIR

trains one row, ``python experiments/sweep.py paper1_table5 --out runs --root DIR`` all of them.
"""

from msa_flax.config import Config, DataConfig, ModelConfig

TITLE = "Paper 1, Table 5: against other architectures"
METRICS = ("accuracy", "precision", "auc", "recall")
PAPER = {
    "convnext_tiny": {"accuracy": 0.827, "precision": 0.827, "auc": 0.905, "recall": 0.827},
    "efficientnet_b0": {"accuracy": 0.793, "precision": 0.851, "auc": 0.912, "recall": 0.793},
    "resnet50": {"accuracy": 0.940, "precision": 0.946, "auc": 0.988, "recall": 0.940},
    "msa": {"accuracy": 0.997, "precision": 0.995, "auc": 0.999, "recall": 0.999},
}
NAMES = {
    "convnext_tiny": "ConvNeXt-Tiny",
    "efficientnet_b0": "EfficientNetB0",
    "resnet50": "ResNet50",
}
ROWS = {
    row: name + suffix
    for key, name in NAMES.items()
    for row, suffix in ((key, ""), (f"{key}_native", ", native input"))
} | {"msa": "MobileNet + MSA"}
SHARED = {"msa": "paper1_table4/msa"}  # the same run


def get_config(arg: str = "resnet50") -> Config:
    """Returns the experiment of one row; ``arg`` is a key of ``ROWS``."""
    if arg not in ROWS:
        raise ValueError(f"expected a row out of {', '.join(ROWS)}; got {arg!r}")
    model = ModelConfig()
    if arg != "msa":
        model = ModelConfig(backbone=arg.removesuffix("_native"), attention="none")
    preprocess = "native" if arg.endswith("_native") else "paper"
    return Config(
        name=f"paper1_table5:{arg}",
        model=model,
        data=DataConfig(allow_leakage=True, preprocess=preprocess),
    )
