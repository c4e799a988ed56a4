"""ConvNeXt-Tiny.

Keras convolves by channel with a grouped ``Conv2D``, whose kernel has our layout already, and by
pixel with ``Dense``. Two names depend on how often a Python process had built such a network, and
on Keras's version: that of the last layer, which the application gives none, and that of the gain
in its ``LayerScale``.

A network with the classification top has no last layer; it normalises after the pooling. What such
a file holds is another function of the image, so it is refused as a whole, the missing layer named.
"""

from msa_flax.weights.rules.table import DENSE_AS_CONV, SAME, Family, Layout, Rule

PREFIX = "convnext_tiny"
BLOCKS = (3, 3, 9, 3)  # a stage
LAST = "layer_normalization"

CONV_AS_DENSE = Layout(DENSE_AS_CONV.to_keras, DENSE_AS_CONV.to_ours)


def _layers() -> tuple[tuple[str, str], ...]:
    """Stem and downsampling are models of their own: a class in them follows their group's name."""
    layers = []
    for stage, blocks in enumerate(BLOCKS):
        name = f"{PREFIX}_downsampling_block_{stage - 1}" if stage else f"{PREFIX}_stem"
        group = f"sequential_{stage}" if stage else "sequential"
        conv = f"{PREFIX}_downsampling_conv_{stage - 1}" if stage else f"{PREFIX}_stem_conv"
        norm = conv.replace("_conv", "_layernorm")
        parts = [(f"{group}/LayerNormalization", norm), (f"{group}/Conv2D", conv)]
        layers += [("Sequential", name), *(parts if stage else reversed(parts))]
        for block in range(blocks):
            prefix = f"{PREFIX}_stage_{stage}_block_{block}"
            layers += [
                ("Conv2D", f"{prefix}_depthwise_conv"),
                ("LayerNormalization", f"{prefix}_layernorm"),
                ("Dense", f"{prefix}_pointwise_conv_1"),
                ("Dense", f"{prefix}_pointwise_conv_2"),
                ("LayerScale", f"{prefix}_layer_scale"),
            ]
    return (*layers, ("LayerNormalization", LAST))


_CONV = rf"{PREFIX}_(?:stem_conv|downsampling_conv_\d|\w+_depthwise_conv)"
_POINTWISE = rf"{PREFIX}_\w+_pointwise_conv_[12]"
_NORM = rf"{PREFIX}_(?:stem_layernorm|downsampling_layernorm_\d|\w+_block_\d_layernorm)|{LAST}"

FAMILY = Family(
    rules=(
        Rule(rf"params/backbone/({_CONV})/(kernel|bias)", r"\1/\2", SAME),
        Rule(rf"params/backbone/({_POINTWISE})/kernel", r"\1/kernel", CONV_AS_DENSE),
        Rule(rf"params/backbone/({_POINTWISE})/bias", r"\1/bias", SAME),
        Rule(rf"params/backbone/({_NORM})/scale", r"\1/gamma", SAME),
        Rule(rf"params/backbone/({_NORM})/bias", r"\1/beta", SAME),
        Rule(r"params/backbone/(\w+_layer_scale)/gamma", r"\1/gamma", SAME),
    ),
    layers=_layers(),
    top=(),
    renames=(
        (r"layer_normalization_\d+/(gamma|beta)", rf"{LAST}/\1"),
        (r"(\w+_layer_scale)/[Vv]ariable(_\d+)?", r"\1/gamma"),
    ),
)
