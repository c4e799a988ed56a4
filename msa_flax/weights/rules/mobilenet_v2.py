"""MobileNetV2."""

from msa_flax.weights.rules.table import DEPTHWISE, SAME, Family, Rule, batch_norm

TOP = "predictions"


def _layers() -> tuple[tuple[str, str], ...]:
    layers = [("Conv2D", "Conv1"), ("BatchNormalization", "bn_Conv1")]
    for block in range(17):
        prefix = f"block_{block}" if block else "expanded_conv"
        kinds = {"expand": "Conv2D", "depthwise": "DepthwiseConv2D", "project": "Conv2D"}
        for part, kind in kinds.items():
            if block or part != "expand":
                layers += [
                    (kind, f"{prefix}_{part}"),
                    ("BatchNormalization", f"{prefix}_{part}_BN"),
                ]
    layers += [("Conv2D", "Conv_1"), ("BatchNormalization", "Conv_1_bn")]
    return (*layers, ("Dense", TOP))


FAMILY = Family(
    rules=(
        Rule(r"params/backbone/(Conv_?1|\w+_(?:expand|project))/kernel", r"\1/kernel", SAME),
        Rule(r"params/backbone/(\w+_depthwise)/kernel", r"\1/kernel", DEPTHWISE),
        *batch_norm(r"bn_Conv1|Conv_1_bn|\w+_(?:expand|depthwise|project)_BN"),
        Rule(r"params/predictions/(kernel|bias)", rf"{TOP}/\1", SAME),
    ),
    layers=_layers(),
    top=(TOP,),
)
