"""A network as an ONNX graph: grey uint8 images to logits, for runtimes without JAX.

Every network of ``MODELS`` works at any number of images. The caller turns on
:func:`msa_flax.models.ops.native.native_everywhere`: ONNX has names for native operations.
"""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax import export

from msa_flax.files import NOTICE, UserError

INPUT, OUTPUT = "images", "logit"


class OnnxError(UserError):
    """A network cannot be written as ONNX here."""


def graph(function: Callable[[Any], Any], *, size: int, metadata: Mapping[str, Any]) -> bytes:
    """Returns the graph of a function images uint8 [b, s, s] -> logits [b], any b.

    Its input is called "images" and its output "logit"; weights and scaling are inside.

    Args:
        function: of any batch; its weights are constants.
        size: s, pixels.
        metadata: what a caller must know, kept in the graph as JSON under its name.

    Raises:
        OnnxError: jax2onnx is missing, or it cannot convert the network.
    """
    with _quiet():
        try:
            from jax2onnx import to_onnx
        except ImportError as error:
            raise OnnxError(
                "--onnx needs jax2onnx and onnx, which ask for other versions than Orbax's: pip "
                "install --no-deps jax2onnx onnx onnx-ir, or leave --onnx out"
            ) from error
        (batch,) = export.symbolic_shape("b")
        images = jax.ShapeDtypeStruct((batch, size, size), np.uint8)
        named = {"input_names": [INPUT], "output_names": [OUTPUT], "model_name": "msa_flax"}
        try:
            made: Any = to_onnx(function, [images], **named)
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            raise OnnxError(f"--onnx: jax2onnx cannot convert this network: {error}") from error
    known = {"notice": NOTICE, **metadata}
    for name in sorted(known):
        text = known[name] if isinstance(known[name], str) else json.dumps(known[name])
        made.metadata_props.add(key=name, value=text)
    return bytes(made.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the terminal what jax2onnx says of plugins for packages that are not there."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
