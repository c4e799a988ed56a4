r"""One network on whole studies of the phantom, where a slice's place says nothing of its label.

    python -m msa_flax.train --workdir W --config=experiments/study.py:msa --config.data.root=DIR

DIR is written by ``phantom_studies.py`` with ``--boxed 1``. ``python experiments/studies.py --out
runs`` writes the studies, trains all networks and makes the table. Paper 1's settings, but 128
pixels, 5 epochs and class weights: there are more normal slices than fractured ones, one in eight
of which is used. README.md has the results.
"""

from msa_flax.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig

MODELS = {
    "msa": ("MSA-CSpineNet", ModelConfig()),
    "none": ("the same without attention", ModelConfig(attention="none")),
    "mobilenet_v2": ("MobileNetV2", ModelConfig(backbone="mobilenet_v2", attention="none")),
}


def get_config(arg: str = "msa") -> Config:
    """Returns the experiment of a network, a key of MODELS."""
    if arg not in MODELS:
        raise ValueError(f"expected a network out of {', '.join(MODELS)}; got {arg!r}")
    return Config(
        name=f"studies:{arg}",
        model=MODELS[arg][1],
        data=DataConfig(
            source="rsna2022", protocol="kfold", image_size=128, rsna_every=8, rsna_beyond=10.0
        ),
        optim=OptimConfig(class_weights="balanced"),
        train=TrainConfig(epochs=5),
    )
