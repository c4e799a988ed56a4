"""A saved network, loaded and timed on request: ours, ONNX, a Keras saved model, torch.export.

--network names the file or folder. A worker predicts one image before it says that it is ready, so
its start is that to its first result. With --make it writes its format's file instead, with
random weights: these change no speed.
"""

import io
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import worker

Predict = Callable[[Any], Any]  # images, as the format takes them, to logits in host memory
FORMS = ("ours", "onnx", "keras", "torch")


def ours(path: pathlib.Path) -> tuple[Predict, dict[str, str]]:
    """Returns what predicts by a model of export, at any batch."""
    import functools

    import jax

    from msa_flax.exporting import package, portable, programs
    from msa_flax.training.xla import compile_predict_step, in_parts, prepare_jax

    prepare_jax()
    values, files = package.read(path)
    with np.load(io.BytesIO(files[portable.WEIGHTS])) as file:
        start = "network/"
        weights = {n.removeprefix(start): file[n] for n in file.files if n.startswith(start)}
    describe = programs.load(files[portable.PROGRAM], weights, values["input"]["image_size"])
    at_once = values["images_at_once"]
    step = compile_predict_step(lambda w, x: in_parts(functools.partial(describe, w), x, at_once))
    placed = jax.device_put(weights)
    return lambda images: np.asarray(step(placed, images)[0]), {"jax": jax.__version__}


def onnx(path: pathlib.Path) -> tuple[Predict, dict[str, str]]:
    """Returns what predicts by the model.onnx of a model of export."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path / "model.onnx", providers=["CPUExecutionProvider"])
    versions = {"onnxruntime": onnxruntime.__version__}
    return lambda images: session.run(None, {"images": images})[0], versions


def keras(path: pathlib.Path) -> tuple[Predict, dict[str, str]]:
    """Returns what predicts by a saved model of Keras 2.15."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    call = loaded.signatures["serving_default"]
    (name,) = call.structured_outputs

    def predict(images: np.ndarray, loaded: Any = loaded) -> np.ndarray:  # which must stay alive
        return call(tf.constant(images))[name].numpy()

    return predict, {"TensorFlow": tf.__version__}


def torch(path: pathlib.Path) -> tuple[Predict, dict[str, str]]:
    """Returns what predicts by a program of torch.export."""
    import torch as library

    module: Any = library.export.load(str(path)).module()

    @library.inference_mode()
    def predict(images: np.ndarray) -> np.ndarray:
        x = library.from_numpy(images).permute(0, 3, 1, 2)
        return module(x.to(memory_format=library.channels_last)).numpy()

    return predict, {"PyTorch": library.__version__}


def make(form: str, path: str, size: int) -> None:
    """Writes a network of a peer, as its users save it."""
    images = worker.ready_images(2, size)
    if form == "keras":
        from keras_network import build

        build(size).save(path)
    else:
        import torch as library
        from torch_network import Network

        x = library.from_numpy(images).permute(0, 3, 1, 2)
        model = Network().eval().to(memory_format=library.channels_last)
        any_batch = ({0: library.export.Dim("b", min=1, max=1024)},)
        program = library.export.export(
            model, (x.to(memory_format=library.channels_last),), dynamic_shapes=any_batch
        )
        library.export.save(program, path)


def main() -> None:
    """Answers requests until its input ends, or writes a file."""
    making = "--make" in sys.argv
    sys.argv = [argument for argument in sys.argv if argument != "--make"]
    options = worker.options(*FORMS)
    if making:
        make(options.form, options.network, options.size)
        return
    predict, versions = globals()[options.form](pathlib.Path(options.network))
    images = worker.grey_images if options.form in ("ours", "onnx") else worker.ready_images
    predict(images(1, options.size))

    def infer(batch: int, count: int) -> worker.Turn:
        given = images(batch, options.size)
        return lambda: worker.timed(lambda: predict(given), count)

    worker.serve({"infer": infer}, versions=versions)


main()
