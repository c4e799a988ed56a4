"""Sentences about a run say what its files say, and nothing where these are silent."""

import dataclasses

import pytest

from msa_flax.reporting import facts


def with_config(run, **sections):
    config = {name: run.config[name] | values for name, values in sections.items()}
    return dataclasses.replace(run, config={**run.config, **config})


def test_a_network_is_described_with_its_attention_and_its_input(run):
    said = facts.network(run)
    assert said.startswith("mobilenet_v1 (width 1.0); multi-scale spatial attention, kernels 3, 5;")
    assert said.endswith("input 64 x 64 pixels.")
    assert "cbam attention" in facts.network(with_config(run, model={"attention": "cbam"}))
    assert "attention" not in facts.network(with_config(run, model={"attention": "none"}))


def test_initial_weights_are_random_or_of_a_file(run):
    assert facts.initial_weights(run) == "Random, seed 0; no pretrained weights."
    weights = {"source": "x.h5", "hash": "a" * 64, "kept_initial": ["b", "c"]}
    loaded = with_config(run, model={"pretrained": "imagenet"})
    loaded = dataclasses.replace(loaded, run={"weights": weights})
    assert facts.initial_weights(loaded) == (
        f"Pretrained backbone from x.h5 (SHA-256 of its tensors {'a' * 16}...); 2 other tensors "
        "random, seed 0."
    )


def test_the_images_of_the_phantom_are_of_no_patients(run):
    assert "no patients" in facts.data(with_config(run, data={"source": "phantom"}))
    assert facts.data(run).startswith("Images of the folder '/data/toy'; fingerprint ffff")


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        ([], "No copy of a slice, and no known group, is in two splits."),
        (["series cross the split"], "Not disjoint: series cross the split."),
        (["groups unknown"], "It is not known which images belong to one patient or series."),
    ],
)
def test_what_splits_share_is_said(run, stamps, said):
    stamped = dataclasses.replace(run, metrics=run.metrics | {"stamps": stamps})
    assert facts.disjoint(stamped) == said


def test_a_metric_without_an_interval_is_said_to_have_none(run):
    metrics = run.metrics["metrics"]
    none = {name: entry | {"method": "none"} for name, entry in metrics.items()}
    some = metrics | {"auc": metrics["auc"] | {"method": "none"}}
    for entries, said in ((none, "No metric has an interval"), (some, "Not every metric has one.")):
        changed = dataclasses.replace(run, metrics=run.metrics | {"metrics": entries})
        assert said in facts.uncertainty(changed)


def test_files_that_say_nothing_give_no_sentence(run):
    silent = dataclasses.replace(run, config={}, run={}, explained=[])
    for fact in (
        *(facts.network, facts.initial_weights, facts.training, facts.preprocessing),
        *(facts.software, facts.included, facts.explanations, facts.code),
    ):
        assert fact(silent) == ""
