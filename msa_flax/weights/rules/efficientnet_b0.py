"""EfficientNetB0.

In the first layer, Keras's published file holds the standard deviations of ImageNet's colours where
that layer expects variances; a model with ``weights="imagenet"`` makes up for it by a second
division, by the root of the same numbers. So the weights were trained with variances that are the
squares of the file's numbers, and those are what such a file loads as. The layer is not trained: a
network that was trained further still has the published numbers, and is recognised by them.

Not told apart is a Keras model that was given the published file as a path: Keras leaves the second
division out then, and such a network saw images of about half the contrast.
"""

import numpy as np

from msa_flax.weights.rules.table import DEPTHWISE, SAME, Family, Layout, Rule, batch_norm

TOP = "predictions"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # a stage

DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)  # of ImageNet's red, green, blue


def _replace(old: np.ndarray, new: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Returns ``new`` for ``old``, and any other array as it is."""
    return new if array.shape == old.shape and np.allclose(array, old, 1e-6, 0) else array


VARIANCE = Layout(
    lambda x: _replace(DEVIATIONS, DEVIATIONS**2, x),
    lambda x: _replace(DEVIATIONS**2, DEVIATIONS, x),
)


def _layers() -> tuple[tuple[str, str], ...]:
    layers = [
        ("Normalization", "normalization"),
        ("Conv2D", "stem_conv"),
        ("BatchNormalization", "stem_bn"),
    ]
    for stage, blocks in enumerate(BLOCKS, start=1):
        for letter in "abcd"[:blocks]:
            name = f"block{stage}{letter}"
            if stage > 1:
                layers += [
                    ("Conv2D", f"{name}_expand_conv"),
                    ("BatchNormalization", f"{name}_expand_bn"),
                ]
            layers += [
                ("DepthwiseConv2D", f"{name}_dwconv"),
                ("BatchNormalization", f"{name}_bn"),
                ("Conv2D", f"{name}_se_reduce"),
                ("Conv2D", f"{name}_se_expand"),
                ("Conv2D", f"{name}_project_conv"),
                ("BatchNormalization", f"{name}_project_bn"),
            ]
    layers += [("Conv2D", "top_conv"), ("BatchNormalization", "top_bn")]
    return (*layers, ("Dense", TOP))


FAMILY = Family(
    rules=(
        Rule(r"batch_stats/backbone/normalization/(mean|count)", r"normalization/\1", SAME),
        Rule(r"batch_stats/backbone/normalization/var", "normalization/variance", VARIANCE),
        Rule(r"params/backbone/((?:stem|top)_conv)/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(block\w+_(?:expand|project)_conv)/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(block\w+_dwconv)/kernel", r"\1/kernel", DEPTHWISE),
        Rule(r"params/backbone/(block\w+_se_(?:reduce|expand))/(kernel|bias)", r"\1/\2", SAME),
        *batch_norm(r"(?:stem|top|block\d\w|block\w+_(?:expand|project))_bn"),
        Rule(r"params/predictions/(kernel|bias)", rf"{TOP}/\1", SAME),
    ),
    layers=_layers(),
    top=(TOP,),
    # Keras makes this layer's name, and numbers it from the second network of a process on.
    renames=((r"normalization_\d+/(mean|variance|count)", r"normalization/\1"),),
)
