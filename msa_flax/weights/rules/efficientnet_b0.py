"""EfficientNetB0.

The first layer of the network expects the variances of ImageNet's colours, but the file that Keras
publishes holds their standard deviations there. A Keras model with ``weights="imagenet"`` makes up
for that with a second division, by the square root of the same numbers. So the weights belong to
variances that are the squares of the numbers in the file, and here the file is loaded with these
squares. That layer is not trained: a network that was trained further still has the published
numbers, by which it is recognised.

One case cannot be told apart: a Keras model that was given the published file as a path. Then Keras
leaves out the second division, and such a network saw images with about half the contrast.
"""

import numpy as np

from msa_flax.weights.rules.table import (
    DEPTHWISE,
    SAME,
    Family,
    Layers,
    Layout,
    Rule,
    batch_norm,
    conv_bn,
)

TOP = "predictions"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # per stage

DEVIATIONS = np.array([0.229, 0.224, 0.225], np.float32)  # red, green and blue of ImageNet


def _replace(old: np.ndarray, new: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Returns ``new`` for ``old``, and any other array as it is."""
    return new if array.shape == old.shape and np.allclose(array, old, 1e-6, 0) else array


VARIANCE = Layout(
    lambda x: _replace(DEVIATIONS, DEVIATIONS**2, x),
    lambda x: _replace(DEVIATIONS**2, DEVIATIONS, x),
)


def _layers() -> Layers:
    layers = (("Normalization", "normalization"), *conv_bn("stem_conv", "stem_bn"))
    for stage, blocks in enumerate(BLOCKS, start=1):
        for letter in "abcd"[:blocks]:
            name = f"block{stage}{letter}"
            if stage > 1:
                layers += conv_bn(f"{name}_expand_conv", f"{name}_expand_bn")
            layers += conv_bn(f"{name}_dwconv", f"{name}_bn", kind="DepthwiseConv2D")
            layers += (("Conv2D", f"{name}_se_reduce"), ("Conv2D", f"{name}_se_expand"))
            layers += conv_bn(f"{name}_project_conv", f"{name}_project_bn")
    return (*layers, *conv_bn("top_conv", "top_bn"), ("Dense", TOP))


FAMILY = Family(
    rules=(
        Rule(r"batch_stats/backbone/normalization/(mean|count)", r"normalization/\1", SAME),
        Rule(r"batch_stats/backbone/normalization/var", "normalization/variance", VARIANCE),
        Rule(r"params/backbone/((?:stem|top)_conv)/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(block\w+_(?:expand|project)_conv)/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(block\w+_dwconv)/kernel", r"\1/kernel", DEPTHWISE),
        Rule(r"params/backbone/(block\w+_se_(?:reduce|expand))/(kernel|bias)", r"\1/\2", SAME),
        *batch_norm(r"(?:stem|top|block\d\w|block\w+_(?:expand|project))_bn"),
    ),
    layers=_layers(),
    top=(TOP,),
    # Keras makes up the name of this layer, with a number from the second network of a process on.
    renames=((r"normalization_\d+/(mean|variance|count)", r"normalization/\1"),),
)
