"""MobileNetV1."""

from msa_flax.weights.rules.table import DENSE_AS_CONV, DEPTHWISE, SAME, Family, Rule, batch_norm

TOP = "conv_preds"


def _layers() -> tuple[tuple[str, str], ...]:
    layers = [("Conv2D", "conv1"), ("BatchNormalization", "conv1_bn")]
    for block in range(1, 14):
        layers += [
            ("DepthwiseConv2D", f"conv_dw_{block}"),
            ("BatchNormalization", f"conv_dw_{block}_bn"),
            ("Conv2D", f"conv_pw_{block}"),
            ("BatchNormalization", f"conv_pw_{block}_bn"),
        ]
    return (*layers, ("Conv2D", TOP))


FAMILY = Family(
    rules=(
        Rule(r"params/backbone/(conv1|conv_pw_\d+)/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(conv_dw_\d+)/kernel", r"\1/kernel", DEPTHWISE),
        *batch_norm(r"conv1_bn|conv_(?:dw|pw)_\d+_bn"),
        Rule(r"params/predictions/kernel", f"{TOP}/kernel", DENSE_AS_CONV),
        Rule(r"params/predictions/bias", f"{TOP}/bias", SAME),
    ),
    layers=_layers(),
    top=(TOP,),
)
