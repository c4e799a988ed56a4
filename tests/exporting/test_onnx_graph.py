"""Every network as ONNX: onnxruntime gives our logits, at any number of images."""

import builtins
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from awake_networks import awake_variables
from quick_compilation import QUICK

import msa_flax
from msa_flax.config import ModelConfig
from msa_flax.exporting import onnx_graph
from msa_flax.exporting.onnx_graph import OnnxError, graph
from msa_flax.files import NOTICE
from msa_flax.models import MODELS, create_model, fold_batch_norm, scale_images
from msa_flax.models.ops.native import native_everywhere

SIZE = 96
ALPHA = {"mobilenet_v1": 0.25, "mobilenet_v2": 0.35}
README = pathlib.Path(msa_flax.__file__).parent / "exporting/README.md"


def error(found, expected):
    return float((np.abs(found - expected) / np.maximum(1, np.abs(expected))).max())


def in_float64(model, variables, scale, images):
    with jax.enable_x64(True), native_everywhere():
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), jax.device_get(variables))
        run = jax.jit(lambda v, x: model.apply(v, scale(x), train=False), compiler_options=QUICK)
        return np.asarray(run(wide, images))


@pytest.mark.filterwarnings("ignore")  # of jax2onnx, and of what it imports
@pytest.mark.parametrize("backbone", MODELS)
def test_onnxruntime_gives_our_logits_at_any_batch(backbone):
    pytest.importorskip("jax2onnx", reason="jax2onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (16, 6, 6)).repeat(SIZE // 6, 1).repeat(SIZE // 6, 2)
    fine, share = rng.integers(0, 256, (16, SIZE, SIZE)), np.linspace(0, 1, 16)[:, None, None]
    images = (coarse * share + fine * (1 - share)) * rng.uniform(0.05, 1, (16, 1, 1))
    images = images.astype(np.uint8)
    config = ModelConfig(backbone=backbone, alpha=ALPHA.get(backbone, 1.0), pretrained="none")
    model = create_model(config)
    scale = functools.partial(scale_images, preprocess="native", backbone=backbone)
    variables = fold_batch_norm(awake_variables(config, scale(jnp.asarray(images))))

    def logits(images):
        return model.apply(variables, scale(images), train=False)

    with native_everywhere():
        made = graph(logits, size=SIZE, metadata={"input": {"image_size": SIZE}})
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    (given,), (out,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, out.name) == ("images", "tensor(uint8)", "logit")
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["input"]) == {"image_size": SIZE}
    assert properties["notice"] == NOTICE
    expected = np.asarray(jax.jit(logits, compiler_options=QUICK)(images))
    assert expected.std() > 1
    exact = in_float64(model, variables, functools.partial(scale, dtype=jnp.float64), images)
    ours = error(expected, exact)
    assert ours < 1e-4  # measured: below 5e-5
    for batch in (1, 16):
        (found,) = session.run(None, {"images": images[:batch]})
        # Float32 in another order: not less exact than our own float32, or within the bar.
        assert error(found, exact[:batch]) <= max(1e-5, 2 * ours)


def test_the_guide_says_of_every_network_what_works():
    rows = [line.split("|") for line in README.read_text().splitlines() if line.startswith("| ")]
    said = {row[1].strip(): row[2].strip() for row in rows}
    assert {name: said.get(name) for name in MODELS} == dict.fromkeys(MODELS, "any batch")


def test_without_jax2onnx_it_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def blocked(name, *arguments, **keywords):
        if name == "jax2onnx":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(OnnxError, match="--onnx needs jax2onnx") as raised:
        graph(lambda x: x, size=SIZE, metadata={})
    assert len(str(raised.value).splitlines()) == 1
    assert onnx_graph.logging.root.manager.disable == 0
