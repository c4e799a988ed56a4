"""MobileNetV2."""

from msa_flax.weights.rules.table import DEPTHWISE, SAME, Family, Layers, Rule, batch_norm, conv_bn

TOP = "predictions"


def _layers() -> Layers:
    layers = conv_bn("Conv1", "bn_Conv1")
    for block in range(17):
        name = f"block_{block}" if block else "expanded_conv"
        if block:
            layers += conv_bn(f"{name}_expand", f"{name}_expand_BN")
        layers += conv_bn(f"{name}_depthwise", f"{name}_depthwise_BN", kind="DepthwiseConv2D")
        layers += conv_bn(f"{name}_project", f"{name}_project_BN")
    return (*layers, *conv_bn("Conv_1", "Conv_1_bn"), ("Dense", TOP))


FAMILY = Family(
    rules=(
        Rule(r"params/backbone/(Conv_?1|\w+_(?:expand|project))/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(\w+_depthwise)/kernel", r"\1/kernel", DEPTHWISE),
        *batch_norm(r"bn_Conv1|Conv_1_bn|\w+_(?:expand|depthwise|project)_BN"),
    ),
    layers=_layers(),
    top=(TOP,),
)
