import numpy as np
import pytest

from msa_flax.auditing import shortcuts
from msa_flax.auditing.shortcuts import best_shortcut, ladder, ladder_table
from msa_flax.data.examples import Examples

RUNGS = [
    "majority class",
    "slice position",
    "facts about the files",
    "thumbnail, nearest neighbour",
    "thumbnail, logistic regression",
    "frozen ImageNet features, linear",
    "permuted labels",
]


def ladder_of(
    label, split, source, *, position=None, facts=None, images=None, features=None, seed=0
):
    """Returns the ladder of images of which nothing is known but what is given."""
    n = len(label)
    examples = Examples(
        example_id=np.array([f"{i}" for i in range(n)]),
        label=label,
        group=np.full(n, ""),
        family=np.full(n, ""),
        slice_index=np.full(n, -1) if position is None else position,
        part=split,
        height=np.full(n, 8),
        width=np.full(n, 8),
        images=np.zeros((n, 8, 8), np.uint8) if images is None else images,
        facts={} if facts is None else facts,
    )
    return ladder(examples, source, features, seed=seed)


def by_name(found):
    assert [rung["rung"] for rung in found] == RUNGS
    return {rung["rung"]: rung for rung in found}


def whole(number=120, copies=4, seed=0):
    """Sources that no split divides: the label, split and source of each image."""
    source = np.repeat(np.arange(number), copies)
    place = np.random.default_rng(seed).permutation(number)
    split = np.where(
        place < 0.6 * number, "train", np.where(place < 0.8 * number, "validation", "test")
    )
    label = (np.random.default_rng([seed, 1]).permutation(number) < number / 2).astype(int)
    return label[source], split[source], source


def fingerprints(source, *, width=400, seed=0):
    """What a frozen network could see of a source: the same in all its copies, but for noise."""
    rng = np.random.default_rng([seed, 2])
    own = rng.normal(size=(source.max() + 1, width))
    return (own[source] + 0.1 * rng.normal(size=(len(source), width))).astype(np.float32)


@pytest.mark.parametrize("unknown", ["all positions", "one position"])
def test_what_is_not_known_is_a_rung_with_a_reason(unknown):
    label, split, source = whole()
    position = np.arange(len(label))
    position[5 if unknown == "one position" else slice(None)] = -1
    found = by_name(ladder_of(label, split, source, position=position))
    assert {name: rung["reason"] for name, rung in found.items() if "reason" in rung} == {
        "slice position": "slice positions are not known",
        "facts about the files": "there are no files",
        "frozen ImageNet features, linear": "there are no ImageNet weights",
        "permuted labels": "there are no ImageNet weights",
    }
    for rung in found.values():
        assert len(rung) == (2 if "reason" in rung else 3)


def test_every_rung_is_scored_on_every_split_but_training():
    label, split, source = whole()
    number = np.arange(len(label))
    known = {"position": number, "facts": {"bytes": 1.0 * number}, "features": fingerprints(source)}
    for rung in by_name(ladder_of(label, split, source, **known)).values():
        assert set(rung) == {"rung", "validation", "test"}
        for name in ("validation", "test"):
            assert set(rung[name]) == {"accuracy", "auc", "n"}
            assert rung[name]["n"] == (split == name).sum() == 96
            assert all(0 <= rung[name][key] <= 1 for key in ("accuracy", "auc"))


def test_the_majority_of_the_training_labels_is_scored():
    label = np.array([1, 1, 0, 1, 0, 0, 0, 1])
    split = np.array(["train"] * 3 + ["validation"] * 4 + ["test"])
    rung = by_name(ladder_of(label, split, np.arange(8)))["majority class"]
    assert rung["validation"] == {"accuracy": 0.25, "auc": 0.5, "n": 4}
    assert rung["test"] == {"accuracy": 1.0, "auc": None, "n": 1}


def test_a_split_of_one_class_has_no_auc():
    label, split, source = whole()
    label = np.where(split == "test", 1, label)
    known = {"position": np.arange(len(label)), "features": fingerprints(source)}
    found = ladder_of(label, split, source, **known)
    for rung in found[:-1]:
        if "reason" not in rung:
            assert rung["test"]["auc"] is None
            assert rung["test"]["accuracy"] is not None
            assert rung["validation"]["auc"] is not None
    assert found[-1]["test"]["auc"] is not None  # permuted labels are those of all sources


def test_a_split_that_is_not_there_is_not_scored():
    label, split, source = whole()
    split = np.where(split == "test", "train", split)
    for rung in ladder_of(label, split, source):
        assert "test" not in rung


@pytest.mark.parametrize("tied", [True, False])
def test_slice_position_solves_a_set_whose_label_is_tied_to_it_and_no_other(tied):
    label, split, source = whole(400, 1)
    rng = np.random.default_rng(0)
    position = np.where(label == 1, rng.integers(0, 70, 400), rng.integers(70, 150, 400))
    if not tied:
        position = rng.permutation(position)
    rung = by_name(ladder_of(label, split, source, position=position))["slice position"]
    for name in ("validation", "test"):
        if tied:
            assert rung[name]["accuracy"] >= 0.98
            assert rung[name]["auc"] >= 0.98
        else:  # 80 images: the standard error of chance is 0.056
            assert rung[name]["accuracy"] < 0.7
            assert abs(rung[name]["auc"] - 0.5) < 0.2


def test_facts_thumbnails_and_features_find_what_is_in_them():
    label, split, source = whole(200, 1)
    rng = np.random.default_rng(3)
    images = rng.integers(0, 150, (200, 64, 64), dtype=np.uint8)
    images[label == 1, 20:40, 20:40] += 100
    features = fingerprints(source, width=8)
    features[:, 0] = label
    facts = {"noise": rng.normal(size=200), "bytes": label + rng.uniform(-0.4, 0.4, 200)}
    found = by_name(ladder_of(label, split, source, facts=facts, images=images, features=features))
    for name in RUNGS[2:6]:
        assert found[name]["test"]["accuracy"] >= 0.95, name
        assert found[name]["test"]["auc"] >= 0.95, name
    assert found["majority class"]["test"]["accuracy"] < 0.7


def test_no_rung_is_fitted_on_what_it_is_scored_on():
    # Nothing tells these labels. Whoever saw the scored images would know them by heart.
    label, split, source = whole(300, 1)
    rng = np.random.default_rng(4)
    known = {
        "position": rng.permutation(300),
        "facts": {"bytes": rng.normal(size=300)},
        "images": rng.integers(0, 256, (300, 64, 64), dtype=np.uint8),
        "features": fingerprints(source),
    }
    for rung in ladder_of(label, split, source, **known):
        for name in ("validation", "test"):
            # 60 images: the standard error of chance is 0.065.
            assert abs(rung[name]["accuracy"] - 0.5) < 0.25, rung


def test_the_same_seed_gives_the_same_ladder_and_another_one_other_permutations():
    label, split, source = whole(60, 2)
    fact = {"bytes": np.random.default_rng(0).normal(size=120)}
    known = {"facts": fact, "features": fingerprints(source, width=20)}
    first, again, other = (ladder_of(label, split, source, **known, seed=i) for i in (3, 3, 4))
    assert first == again
    assert first[-1] != other[-1]


def permuted(split, source, seed=0):
    label = source % 2
    return ladder_of(label, split, source, features=fingerprints(source, seed=seed))[-1]


@pytest.mark.parametrize("seed", range(2))
def test_permuted_labels_stay_at_chance_where_sources_are_whole(seed):
    _, split, source = whole(400, 2, seed)
    rung = permuted(split, source, seed)
    for name in ("validation", "test"):
        # 80 sources, three draws: the standard error of chance is about 0.032.
        assert abs(rung[name]["accuracy"] - 0.5) < 0.12
        assert abs(rung[name]["auc"] - 0.5) < 0.15


def test_permuted_labels_are_learnt_where_every_validation_image_has_a_copy_in_training():
    source = np.repeat(np.arange(100), 4)
    split = np.tile(np.array(["train", "train", "train", "validation"]), 100)
    leaking = permuted(split, source)
    assert leaking["validation"]["accuracy"] > 0.9
    assert leaking["validation"]["auc"] > 0.9


def test_permuted_labels_are_one_a_source_or_copies_would_not_be_seen():
    # The mutation: permuted image by image, the same leaking split looks like chance.
    source = np.repeat(np.arange(100), 4)
    split = np.tile(np.array(["train", "train", "train", "validation"]), 100)
    features = fingerprints(source)
    found = ladder_of(source % 2, split, np.arange(400), features=features)
    assert abs(found[-1]["validation"]["accuracy"] - 0.5) < 0.2


def test_the_best_shortcut_is_the_most_accurate_one_and_never_permuted_labels():
    found = [
        {"rung": "majority class", "test": {"accuracy": 0.5}, "validation": {"accuracy": 0.7}},
        {"rung": "slice position", "test": {"accuracy": 0.8}, "validation": {"accuracy": 0.6}},
        {"rung": "facts about the files", "reason": "there are no files"},
        {"rung": "permuted labels", "test": {"accuracy": 0.9}, "validation": {"accuracy": 0.9}},
    ]
    best = best_shortcut(found, "test")
    assert (best.name, best.accuracy) == ("slice position", 0.8)
    assert best.gain(0.9) == pytest.approx(0.1)
    assert best.gain(0.5) == pytest.approx(-0.3)
    assert best_shortcut(found, "validation").name == "majority class"
    assert best_shortcut(found, "train") is None
    assert best_shortcut(found[2:], "test") is None
    assert best_shortcut([], "test") is None


def test_the_ladder_is_a_table_and_says_what_the_model_adds_to_the_best_shortcut(rungs, scores):
    assert ladder_table(rungs, scores) == [
        ["shortcut", "validation accuracy", "validation AUC", "test accuracy", "test AUC"],
        ["majority class", "0.500", "0.500", "0.250", ""],
        ["slice position", "0.750", "0.875", "0.500", ""],
        ["facts about the files", "there are no files", "", "", ""],
        ["permuted labels", "0.900", "0.900", "0.900", "0.900"],
        ["the model", "0.700", "0.800", "0.750", ""],
        ["what the model adds to the best shortcut", "-0.050", "", "+0.250", ""],
    ]
    assert ladder_table(rungs, {})[-1][0] == "permuted labels"
    half = ladder_table(rungs, {"test": {"accuracy": 0.5, "auc": 0.5}})
    assert half[-1][1:] == ["", "", "+0.000", ""]


def test_thumbnails_are_means_of_blocks_between_zero_and_one():
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224), dtype=np.uint8)
    found = shortcuts.thumbnails(images)
    assert found.shape == (3, 1024)
    assert found.dtype == np.float32
    means = images.reshape(3, 32, 7, 32, 7).mean(axis=(2, 4)).reshape(3, -1) / 255
    assert np.abs(found - means).max() <= 0.5 / 255 + 1e-6  # they are rounded to grey values
