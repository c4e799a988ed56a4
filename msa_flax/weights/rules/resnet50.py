"""ResNet50."""

from msa_flax.weights.rules.table import SAME, Family, Rule, batch_norm

TOP = "predictions"
BLOCKS = {"conv2": 3, "conv3": 4, "conv4": 6, "conv5": 3}  # a stage


def _layers() -> tuple[tuple[str, str], ...]:
    layers = [("Conv2D", "conv1_conv"), ("BatchNormalization", "conv1_bn")]
    for stage, blocks in BLOCKS.items():
        for block in range(1, blocks + 1):
            # Keras orders layers by their distance to the end: the shortcut's two stand beside the
            # last two of the other branch.
            pairs = ("1", "2", "03") if block == 1 else ("1", "2", "3")
            for numbers in pairs:
                for kind, part in (("Conv2D", "conv"), ("BatchNormalization", "bn")):
                    layers += [(kind, f"{stage}_block{block}_{n}_{part}") for n in numbers]
    return (*layers, ("Dense", TOP))


FAMILY = Family(
    rules=(
        Rule(r"params/backbone/(conv1_conv|conv\d_block\d_\d_conv)/(kernel|bias)", r"\1/\2", SAME),
        *batch_norm(r"conv1_bn|conv\d_block\d_\d_bn"),
        Rule(r"params/predictions/(kernel|bias)", rf"{TOP}/\1", SAME),
    ),
    layers=_layers(),
    top=(TOP,),
)
