"""What one step must cost: floating-point operations and bytes moved, counted layer by layer."""

import dataclasses

from msa_flax.models.mobilenet_v1 import BLOCKS, STEM_CHANNELS

COUNTED = """\
Counted from the layer table, for MobileNetV1 at alpha 1, attention and head. Floating-point
operations: a multiply-add is two; convolutions, attention, pooling and the dense layer are counted,
BatchNorm, ReLU6 and Adam are not; a training step is three times a prediction. Bytes: every
activation tensor, read or written once a pass. Prediction: a layer reads its input and writes its
output, BatchNorm and ReLU6 being part of the convolution. Training, forward: the convolution reads
its input and writes; normalisation reads that and writes. Backward: the sums over the batch read
the gradient and the convolution's output; normalisation reads both again and writes; the
convolution reads that and its input, and writes the input's gradient (not the image's). Parameters:
read once to predict; in a step read twice and the gradient written, and by Adam the gradient, the
parameter and two moments read and the last three written, 4 bytes each.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """One layer: its operations, values read and values written per image, and its parameters."""

    operations: int
    inputs: int
    outputs: int
    parameters: int
    normalised: bool = True


def layers(size: int) -> list[Layer]:
    """Returns the network's layers for images of ``size`` pixels, a multiple of 32."""
    side, channels = size // 2, STEM_CHANNELS
    area = side**2
    found = [Layer(2 * 27 * channels * area, 3 * size**2, channels * area, 29 * channels)]
    for out, stride in BLOCKS:
        inputs, side = channels * side**2, side // stride
        area = side**2
        middle = channels * area
        found.append(Layer(2 * 9 * middle, inputs, middle, 11 * channels))
        found.append(Layer(2 * middle * out, middle, out * area, (channels + 2) * out))
        channels = out
    values = channels * area
    taps = 2 * (9 + 25 + 49)
    attention = 2 * values + 2 * taps * area + 3 * 2 * values
    found.append(Layer(attention, values, values, taps + 3, normalised=False))
    found.append(Layer(values + 2 * channels, values, 1, channels + 1, normalised=False))
    return found


def of(task: str, *, batch: int, size: int, bf16: bool) -> tuple[float, float]:
    """Returns the GFLOP and the GB of a "train" step, or of one batch to "infer"."""
    table, width = layers(size), 2 if bf16 else 4
    operations = sum(layer.operations for layer in table) * batch
    parameters = 4 * sum(layer.parameters for layer in table)
    if task == "infer":
        values = sum(layer.inputs + layer.outputs for layer in table) * batch
        return operations / 1e9, (values * width + parameters) / 1e9
    values = sum(
        3 * layer.inputs + (9 if layer.normalised else 2) * layer.outputs for layer in table
    )
    values -= table[0].inputs  # the image's gradient
    return 3 * operations / 1e9, (values * batch * width + 10 * parameters) / 1e9
