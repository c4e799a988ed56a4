"""MobileNetV1."""

from msa_flax.weights.rules.table import DEPTHWISE, SAME, Family, Layers, Rule, batch_norm, conv_bn

TOP = "conv_preds"


def _layers() -> Layers:
    layers = conv_bn("conv1", "conv1_bn")
    for block in range(1, 14):
        layers += conv_bn(f"conv_dw_{block}", f"conv_dw_{block}_bn", kind="DepthwiseConv2D")
        layers += conv_bn(f"conv_pw_{block}", f"conv_pw_{block}_bn")
    return (*layers, ("Conv2D", TOP))


FAMILY = Family(
    rules=(
        Rule(r"params/backbone/(conv1|conv_pw_\d+)/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(conv_dw_\d+)/kernel", r"\1/kernel", DEPTHWISE),
        *batch_norm(r"conv1_bn|conv_(?:dw|pw)_\d+_bn"),
    ),
    layers=_layers(),
    top=(TOP,),
)
