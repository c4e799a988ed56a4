"""What a search for copies found is kept, believed only while it is whole, and used as asked."""

import dataclasses
import json

import numpy as np
import pytest
from noisy_slices import noisy_slice, turned_copies, write_slices

from msa_flax import data
from msa_flax.config import DataConfig
from msa_flax.data import searched
from msa_flax.data.examples import DataError
from msa_flax.data.leakage import UNSEARCHED, check_contradictions, check_leakage, find_stamps
from msa_flax.data.searched import search, too_many, with_families
from msa_flax.data.splits import Splits, assign_splits


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSA_FLAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/families"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return turned_copies(tmp_path_factory.mktemp("set"))


@pytest.fixture
def examples(root):
    return data.load(configured(root))


def configured(root, **options):
    return DataConfig(root=str(root), image_size=32, **options)


def never():
    raise AssertionError("searched again")


NAMES = ("normal", "fracture")
THREE = np.stack([data.facts.comparable(noisy_slice(seed)) for seed in (0, 1, 0)])


def test_what_was_found_is_kept_and_the_same_images_are_not_searched_again(cache):
    found = search(["a"], 3, lambda: [THREE[:1], THREE[1:]])
    assert found.family.tolist() == found.equal.tolist() == [0, 1, 0]
    assert len(list(cache.iterdir())) == 1
    assert search(["a"], 3, never).family.tolist() == [0, 1, 0]
    for other in (lambda: search(["b"], 3, never), lambda: search(["a"], 2, never)):
        with pytest.raises(AssertionError, match="searched again"):
            other()


def test_another_search_does_not_believe_what_an_earlier_one_found(monkeypatch):
    search(["a"], 3, lambda: [THREE])
    monkeypatch.setattr(searched, "VERSION", searched.VERSION + 1)
    with pytest.raises(AssertionError, match="searched again"):
        search(["a"], 3, never)


def _one_family_more(text):
    values = json.loads(text)
    return json.dumps(values | {"family": [0, 1, 2]})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-20],
        lambda text: "[]",
        lambda text: "null",
        lambda text: '{"schema_version": 1}',
        lambda text: "\0" * len(text),
        _one_family_more,
    ],
)
def test_a_damaged_file_is_replaced_by_a_new_search(cache, damage):
    search(["a"], 3, lambda: [THREE])
    (path,) = cache.iterdir()
    whole = path.read_text()
    path.write_text(damage(whole))
    assert search(["a"], 3, lambda: [THREE]).family.tolist() == [0, 1, 0]
    assert path.read_text() == whole


def test_a_search_of_images_that_are_no_longer_there_is_refused():
    with pytest.raises(DataError, match="expected 4 images, found 3"):
        search(["a"], 4, lambda: [THREE])


def test_a_cache_that_cannot_be_written_costs_a_search_and_no_more(cache, caplog):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    assert search(["a"], 3, lambda: [THREE]).family.tolist() == [0, 1, 0]
    assert "the next start searches again" in caplog.text


def test_many_images_of_known_patients_are_not_searched_and_it_is_said(
    root, examples, monkeypatch, caplog
):
    monkeypatch.setattr(searched, "MOST_SEARCHED", len(examples) - 1)
    known = dataclasses.replace(examples, group=examples.example_id)
    assert not too_many(examples, configured(root))  # a search is all there is
    assert not too_many(known, configured(root, families="pixels"))
    assert too_many(known, configured(root))
    assert with_families(known, configured(root)).copies is None
    assert "not searched for copies" in caplog.text
    splits = assign_splits(known, configured(root), seed=0)
    assert UNSEARCHED in find_stamps(known, splits, recorded=[UNSEARCHED])
    assert UNSEARCHED not in find_stamps(known, splits)


def test_copies_under_neutral_names_are_refused_and_kept_whole_by_the_protocol_family(
    root, examples, tmp_path
):
    config = configured(root)
    found = with_families(examples, config)
    splits = assign_splits(found, config, seed=0)
    assert "copies cross the split" in find_stamps(found, splits)
    with pytest.raises(DataError, match=r"16 test images have a copy in training.*'family'"):
        check_leakage(found, splits, allow=False)

    splits = assign_splits(found, dataclasses.replace(config, protocol="family"), seed=0)
    check_leakage(found, splits, allow=False)
    assert splits.counts(found.label)["test"] == (8, 8)
    splits.write(tmp_path / "splits.csv")
    header, first, *_ = (tmp_path / "splits.csv").read_text().splitlines()
    assert header == "example_id,split,fold,family"
    assert first.startswith("train/fracture/a1.png,")
    assert first.endswith(",,train/fracture/a1.png")
    read = Splits.read(tmp_path / "splits.csv").with_families(examples)
    assert read.family.tolist() == found.family.tolist()

    named = with_families(examples, dataclasses.replace(config, families="names"))
    assert named is examples
    check_leakage(named, assign_splits(named, config, seed=0), allow=False)


def test_names_that_tell_every_family_split_as_they_did_but_copies_beside_them_are_refused(
    root, examples
):
    config = configured(root, protocol="grouped", holdout_group="val")
    examples = dataclasses.replace(
        examples, family=examples.example_id, group=np.where(examples.part == "val", "val", "t")
    )
    found = with_families(examples, config)
    splits, before = (assign_splits(one, config, seed=0) for one in (found, examples))
    assert splits.split.tolist() == before.split.tolist()
    assert splits.family is None
    assert len(set(found.family)) == 32
    with pytest.raises(DataError, match=r"0 source slices.*use data.families='pixels' with"):
        check_leakage(found, splits, allow=False)
    by_pixels = with_families(examples, dataclasses.replace(config, families="pixels"))
    assert len(set(by_pixels.family)) == 16


def test_names_that_tell_some_families_are_joined_with_what_the_search_found(root, examples):
    ids = examples.example_id.tolist()
    family = np.full(32, "", "<U30")
    family[[ids.index("val/normal/b0.png"), ids.index("train/normal/a2.png")]] = "slice 5"
    found = with_families(dataclasses.replace(examples, family=family), configured(root))
    known = dict(zip(ids, found.family.tolist(), strict=True))
    names = ("train/normal/a0.png", "val/normal/b0.png", "train/normal/a2.png", "val/normal/b2.png")
    assert {known[name] for name in names} == {"slice 5"}
    assert known["val/normal/b4.png"] == "train/normal/a4.png"


def test_the_phantom_is_not_searched():
    config = DataConfig(source="phantom", protocol="kfold", phantom_patients=10, families="pixels")
    examples = object()
    assert with_families(examples, config) is examples


def labelled(root, slices):
    """A data set of noisy slices, those of ``slices`` {name: image} beside them, and its search."""
    own = {f"train/{NAMES[i % 2]}/{i}.png": noisy_slice(i, label=i % 2) for i in range(8)}
    own |= {f"val/{NAMES[i % 2]}/{i}.png": noisy_slice(i, label=i % 2) for i in range(8, 12)}
    write_slices(root, own | slices)
    return with_families(data.load(configured(root)), configured(root))


def test_a_picture_in_both_classes_is_refused_although_it_was_saved_in_another_format(tmp_path):
    found = labelled(tmp_path / "set", {"train/fracture/again.jpg": noisy_slice(0)})
    with pytest.raises(DataError, match=r"1 pictures are in both classes \(2 images\)") as caught:
        check_contradictions(found)
    for said in ("train/fracture/again.jpg", "train/normal/0.png", "data.families=names"):
        assert said in str(caught.value)
    config = configured(tmp_path / "set", families="names")
    check_contradictions(with_families(data.load(config), config))


def test_neighbours_and_changed_copies_with_another_label_are_not_called_the_same_picture(tmp_path):
    # A neighbour shares half of its noise, as where slices overlap; the copies were turned, made
    # brighter, or are of the same class.
    first, noise = noisy_slice(0).astype(int), np.random.default_rng(1).normal(0, 10, (128, 128))
    neighbour = np.clip(first + noise, 0, 255).astype(np.uint8)
    slices = {
        "train/fracture/neighbour.png": neighbour,
        "train/fracture/turned.png": np.rot90(noisy_slice(2)).copy(),
        "train/fracture/bright.png": np.clip(noisy_slice(4) * 1.2, 0, 255).astype(np.uint8),
        "train/normal/again.jpg": noisy_slice(6),
    }
    found = labelled(tmp_path / "set", slices)
    check_contradictions(found)
    same = dict(zip(found.example_id.tolist(), found.same.tolist(), strict=True))
    named = {name for name, first in same.items() if first}
    assert named == {"train/normal/6.png", "train/normal/again.jpg"}
