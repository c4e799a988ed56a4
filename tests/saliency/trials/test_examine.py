"""All tests of maps together, on a small network whose logit hangs on one place of the image."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.saliency.controls import random_map
from msa_flax.saliency.explain import Explanations, explain_images, make_explain_step
from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.methods import METHODS, choose
from msa_flax.saliency.trials.examine import RANDOM_PIXELS, examine
from msa_flax.saliency.trials.removal import Settings
from msa_flax.saliency.trials.tables import examination_json, examination_text

SIDE, COUNT = 16, 14
SETTINGS = Settings(steps=4, fractions=(0.3, 0.6), samples=4, batch_size=7)


def features_fn(weights, images):
    """Means of 4 x 4 blocks, [b, 4, 4, 1]."""
    blocks = jnp.asarray(images, jnp.float32).reshape(-1, 4, 4, 4, 4)
    return blocks.mean(axis=(2, 4))[..., None] / 255


def head_fn(weights, features):
    """The logit is linear in the blocks: one with a large weight, the others with small ones."""
    return (features[..., 0] * weights[None]).sum(axis=(1, 2)) - 4.0, {}


@functools.cache
def compiled(methods):
    return jax.jit(make_explain_step(features_fn, head_fn, choose(methods)))


def explainer(values):
    def explain(images, methods):
        step = functools.partial(compiled(tuple(methods)), values)
        return explain_images(step, images, batch_size=COUNT)

    return explain


WEIGHTS = jnp.full((4, 4), 0.1).at[3, 0].set(16.0)
OTHERS = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)), jnp.float32)


@pytest.fixture(scope="module")
def images():
    drawn = np.random.default_rng(0).integers(0, 60, (COUNT, SIDE, SIDE), dtype=np.uint8)
    drawn[:, 12:, :4] = 255  # the place that counts, far from the centre
    return drawn


def examined(images, methods, **changes):
    explain = explainer(WEIGHTS)
    found = explain(images, methods)
    arguments = {
        "images": images,
        "signs": np.where(found.logit >= 0, 1, -1),
        "groups": np.array([f"patient {i}" for i in range(COUNT)]),
        "settings": SETTINGS,
    }

    def score(batch):
        return np.asarray(head_fn(WEIGHTS, features_fn(None, batch))[0])

    arguments |= changes
    return examine(explain, explainer(OTHERS), score, found, **arguments), found


@pytest.fixture(scope="module")
def coarse(images):
    masks = np.zeros_like(images)
    masks[:, 12:, :4] = 1
    return examined(images, ["hirescam", "occlusion"], masks=masks)


def by_measure(examination, method):
    return {r.measure.name: r for r in examination.results if r.method == method}


def test_every_measure_is_there_for_every_method_and_control(coarse):
    examination, _ = coarse
    assert {r.method for r in examination.results} == {
        *("hirescam", "occlusion", "random_map", "centre_prior")
    }
    for method in ("hirescam", "random_map"):
        assert set(by_measure(examination, method)) == {
            *("deletion (logit)", "insertion (logit)", "ROAD (logit)"),
            *("deletion (probability)", "insertion (probability)", "ROAD (probability)"),
            *("infidelity", "sensitivity-max", "pointing game", "mass inside", "IoU"),
        }


def test_the_map_of_what_counts_is_found_better_than_chance(coarse):
    examination, _ = coarse
    found = by_measure(examination, "hirescam")
    assert found["deletion (logit)"].verdict.answer == "yes"
    assert found["mass inside"].score > 0.5
    assert found["mass inside"].n == COUNT
    references = by_measure(examination, "random_map")
    assert references["deletion (logit)"].verdict.answer == "reference"


def test_what_would_cost_most_is_measured_on_half_of_the_images_for_costly_methods(coarse):
    examination, _ = coarse
    assert by_measure(examination, "hirescam")["sensitivity-max"].n == COUNT
    assert METHODS["occlusion"].forward_only
    assert by_measure(examination, "occlusion")["sensitivity-max"].n == COUNT // 2


def test_maps_that_hang_on_the_weights_are_not_called_insensitive(coarse):
    examination, _ = coarse
    assert examination.random_weights["hirescam"] < 0.7
    assert "insensitive" not in by_measure(examination, "hirescam")["ROAD (logit)"].verdict.reason


def test_maps_of_a_network_that_is_no_other_are_called_insensitive(images):
    explain = explainer(WEIGHTS)
    found = explain(images, ["hirescam"])
    examination = examine(
        explain,
        explain,
        lambda batch: np.asarray(head_fn(WEIGHTS, features_fn(None, batch))[0]),
        found,
        images=images,
        signs=np.where(found.logit >= 0, 1, -1),
        settings=SETTINGS,
    )
    assert examination.random_weights["hirescam"] == pytest.approx(1)
    (first, *_) = by_measure(examination, "hirescam").values()
    assert "insensitive to the model's weights" in first.verdict.reason
    assert "not of new patients" in first.verdict.reason  # groups are unknown


def test_fine_maps_are_held_against_random_pixels(images):
    examination, _ = examined(images, ["integrated_gradients"])
    methods = {r.method for r in examination.results}
    assert methods == {"integrated_gradients", RANDOM_PIXELS, "centre_prior"}


def test_attention_is_tested_beside_the_methods(images):
    explain = explainer(WEIGHTS)
    found = explain(images, ["hirescam"])
    rng = np.random.default_rng(0)
    attention = {k: rng.random((COUNT, 4, 4)).astype(np.float32) for k in (3, 5)}
    with_attention = Explanations(logit=found.logit, maps=found.maps, attention=attention)
    examination = examine(
        explain,
        explainer(OTHERS),
        lambda batch: np.asarray(head_fn(WEIGHTS, features_fn(None, batch))[0]),
        with_attention,
        images=images,
        signs=np.where(found.logit >= 0, 1, -1),
        settings=SETTINGS,
    )
    methods = {r.method for r in examination.results}
    assert {"attention_3", "attention_5", "attention_mean"} <= methods


def test_it_is_written_as_json_and_as_a_table(coarse):
    examination, _ = coarse
    values = json.loads(json.dumps(examination_json([examination]), allow_nan=False))
    (part,) = values["tables"]
    assert set(part["agreement"]["methods"]) == {
        *("hirescam", "occlusion", "random_map", "centre_prior")
    }
    assert part["random_weights"].keys() == {"hirescam", "occlusion"}
    text = examination_text(examination)
    assert "**hirescam**: yes" in text
    assert "| rank correlation | hirescam | occlusion |" in text


def test_at_another_layer_random_maps_are_as_coarse_as_the_others_and_attention_is_left_out(images):
    """An explainer at a layer has no layer for the controls, and is not asked for them."""

    def halved(weights):
        def explain(batch, methods):
            assert list(methods) == ["hirescam"]
            found = explainer(weights)(batch, methods).maps["hirescam"]
            return Explanations(
                logit=np.zeros(len(batch), np.float32),
                maps={"hirescam": {name: maps[:, ::2, ::2] for name, maps in found.items()}},
                attention={3: np.ones((len(batch), 4, 4), np.float32)},
            )

        return explain

    explain = halved(WEIGHTS)
    found = explain(images, ["hirescam"])
    drawn = []

    def noted(features_fn, *others):
        maps = random_map(features_fn, *others)
        drawn.append(maps.shape[1:])
        return maps

    with pytest.MonkeyPatch.context() as patch:
        spied = dataclasses.replace(METHODS["random_map"], explain=noted)
        patch.setitem(METHODS, "random_map", spied)
        examination = examine(
            explain,
            halved(OTHERS),
            lambda batch: np.asarray(head_fn(WEIGHTS, features_fn(None, batch))[0]),
            found,
            images=images,
            signs=np.ones(COUNT),
            settings=SETTINGS,
            at_layer=True,
        )
    assert {r.method for r in examination.results} == {"hirescam", "random_map", "centre_prior"}
    assert set(drawn) == {(2, 2)}


def test_maps_of_several_layers_are_not_tested_together(images):
    explain = explainer(WEIGHTS)
    found = explain(images, ["hirescam", "occlusion"])
    with pytest.raises(SaliencyError, match="those of one layer, got 2 resolutions"):
        examine(
            explain,
            explain,
            lambda batch: 1 / 0,
            found,
            images=images,
            signs=np.ones(COUNT),
            at_layer=True,
        )
