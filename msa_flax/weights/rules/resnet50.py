"""ResNet50."""

from msa_flax.weights.rules.table import SAME, Family, Layers, Rule, batch_norm, conv_bn

TOP = "predictions"
BLOCKS = {"conv2": 3, "conv3": 4, "conv4": 6, "conv5": 3}  # per stage


def _layers() -> Layers:
    layers = conv_bn("conv1_conv", "conv1_bn")
    for stage, blocks in BLOCKS.items():
        for block in range(1, blocks + 1):
            name = f"{stage}_block{block}"
            layers += conv_bn(f"{name}_1_conv", f"{name}_1_bn")
            layers += conv_bn(f"{name}_2_conv", f"{name}_2_bn")
            last = conv_bn(f"{name}_3_conv", f"{name}_3_bn")
            if block == 1:
                # Keras orders layers by their distance to the end of the network, so those of the
                # shortcut alternate with the last two of the other branch.
                shortcut = conv_bn(f"{name}_0_conv", f"{name}_0_bn")
                last = tuple(layer for pair in zip(shortcut, last, strict=True) for layer in pair)
            layers += last
    return (*layers, ("Dense", TOP))


FAMILY = Family(
    rules=(
        Rule(r"params/backbone/(conv1_conv|conv\d_block\d_\d_conv)/(kernel|bias)", r"\1/\2", SAME),
        *batch_norm(r"conv1_bn|conv\d_block\d_\d_bn"),
    ),
    layers=_layers(),
    top=(TOP,),
)
