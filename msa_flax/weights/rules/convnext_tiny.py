"""ConvNeXt-Tiny.

In Keras the depthwise convolution is a grouped ``Conv2D``, whose kernel has our layout already, and
the 1 x 1 convolution is a ``Dense`` layer. Two names depend on the version of Keras and on how many
such networks the Python process had built before: that of the last layer, for which Keras makes up
a name, and that of the gain in ``LayerScale``.

A network with the classification top lacks the last layer; it normalises after the pooling. The
file of such a network describes another function of the image, so it is refused as a whole, and the
message names the missing layer.
"""

from msa_flax.weights.rules.table import SAME, Family, Layers, Layout, Rule

PREFIX = "convnext_tiny"
BLOCKS = (3, 3, 9, 3)  # per stage
LAST = "layer_normalization"

# A dense layer over the channels is a 1x1 convolution: (in, out) and (1, 1, in, out).
DENSE_AS_CONV = Layout(lambda x: x[None, None], lambda x: x[0, 0])


def _layers() -> Layers:
    """Returns the layers; those of stem and downsampling, which are models, with their group."""
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
        Rule(rf"params/backbone/({_POINTWISE})/kernel", r"\1/kernel", DENSE_AS_CONV),
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
