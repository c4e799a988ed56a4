"""Networks as StableHLO: at any batch the same bits, from the same network the same bytes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.config import ModelConfig
from msa_flax.exporting import programs
from msa_flax.files import UserError
from msa_flax.models import MODELS, create_model, fold_batch_norm, scale_images, shapes
from msa_flax.training.steps import make_predict_step
from msa_flax.training.xla import compiler_options, in_parts

SIZE = 64


def awake(model):
    """Variables whose numbers all matter: running averages and gains far from 0 and 1."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        value = rng.normal(0, max(np.prod(leaf.shape[:-1], dtype=int), 1) ** -0.5, leaf.shape)
        return np.float32(abs(value) + 0.5 if path[-1].key in ("var", "scale") else value)

    return fold_batch_norm(jax.tree_util.tree_map_with_path(fill, shapes(model)))


def functions(backbone, **fields):
    model = create_model(ModelConfig(backbone=backbone, pretrained="none", **fields))
    scale = functools.partial(scale_images, preprocess="paper", backbone=backbone)

    def describe(variables, images):
        return model.apply(variables, scale(images), train=False, method="describe")

    return model, scale, describe


def test_a_program_gives_the_bits_of_the_run():
    model, scale, describe = functions("mobilenet_v1", alpha=0.25)
    variables, step = awake(model), make_predict_step(model, scale, method="describe")
    weights = programs.flat(variables)
    call = programs.load(programs.serialise(describe, variables, SIZE), weights, SIZE)

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def portable(weights, images):
        return in_parts(functools.partial(call, weights), images, model.at_once)

    of_run = jax.jit(step, compiler_options=compiler_options())
    images = np.random.default_rng(1).integers(0, 256, (8, SIZE, SIZE), dtype=np.uint8)
    for ours, theirs in zip(portable(weights, images), of_run(variables, images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert np.std(ours) > 0.1


@pytest.mark.parametrize("backbone", MODELS)
def test_every_network_is_a_program_for_both_platforms_without_places_in_it(backbone):
    model, _, describe = functions(backbone)
    variables = jax.tree.map(lambda x: np.broadcast_to(np.float32(0), x.shape), shapes(model))
    data = programs.serialise(describe, variables, 96)
    assert b".py" not in data
    assert b"/" + b"home" not in data
    found = jax.export.deserialize(bytearray(data))
    assert found.platforms == ("cpu", "cuda")
    assert str(found.in_avals[-1].shape) == "(b, 96, 96)"


def test_the_same_network_gives_the_same_bytes():
    made = []
    for _ in range(2):
        model, _, describe = functions("mobilenet_v1", alpha=0.25)
        made.append(programs.serialise(describe, shapes(model), SIZE))
    assert made[0] == made[1]


def double(weights, images):
    return jnp.float32(images).sum((1, 2)) * weights["w"]


def test_programs_of_other_things_are_refused():
    weights = {"w": np.float32(2)}
    data = programs.serialise(double, weights, 4)
    images = np.ones((3, 4, 4), np.uint8)
    assert programs.load(data, weights, 4)(weights, images).tolist() == [32, 32, 32]
    for wrong, size, said in (
        ({"w": np.zeros(3, np.float32)}, 4, "other weights"),
        ({"v": np.float32(2)}, 4, "other weights"),
        (weights, 5, "other images"),
    ):
        with pytest.raises(ValueError, match=said):
            programs.load(data, wrong, size)
    with pytest.raises(ValueError, match="no program"):
        programs.load(b"nothing", weights, 4)


def test_a_program_that_calls_other_code_is_refused():
    def calling(weights, images):
        return jnp.linalg.svd(jnp.float32(images))[1] * weights["w"]

    weights = {"w": np.float32(2)}
    data = programs.serialise(calling, weights, 4)
    with pytest.raises(ValueError, match=r"calls .*gesdd"):
        programs.load(data, weights, 4)


def test_without_flatbuffers_it_is_one_sentence(monkeypatch):
    def missing(data):
        raise ImportError

    monkeypatch.setattr(jax.export, "deserialize", missing)
    with pytest.raises(UserError, match="pip install flatbuffers"):
        programs.load(b"", {}, 4)
