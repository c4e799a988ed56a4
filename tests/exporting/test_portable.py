"""What cannot be a portable model is refused in one sentence, whoever made it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from msa_flax.config import DataConfig
from msa_flax.exporting import package, portable
from msa_flax.exporting.package import PackageError
from msa_flax.prediction.predictor import Predictor
from msa_flax.prediction.score import Scorer
from msa_flax.prediction.typicality import Typicality

DATA = DataConfig(image_size=32, equalize="clahe", window_width=900.0, classes=("no", "yes"))
VARIABLES = {"params": {"a": np.float32([2, 3])}}


def describe(variables, images):
    pooled = jnp.float32(images).mean((1, 2))[:, None] * variables["params"]["a"][None]
    return pooled.sum(1), pooled


def maps(variables, images):
    return jnp.float32(images)[:, ::8, ::8] * variables["params"]["a"][0]


def scorer(**fields):
    given = {"describe": None, "data": DATA, "batch_size": 4, "configured": 0.25}
    return Scorer(**given, calibration=None, **fields)


KNOWN = Typicality(
    belongs_to="x",
    images=3,
    groups=2,
    centre=np.zeros(82, np.float32),
    axes=np.ones((82, 5), np.float32),
    limit=7.5,
)
ABOUT = {
    **{"name": "toy", "backbone": "none", "checkpoint": "best", "step": 3},
    "trained_on": {"source": "folder", "images": 3, "groups": 2},
}


def packed(typicality=KNOWN):
    predictor = Predictor(
        scorer=scorer(typicality=typicality), maps=None, fingerprint="f", stamps=["s"], about=ABOUT
    )
    more = {
        "variables": VARIABLES,
        "describe": describe,
        "maps": maps,
        "card": "# Card\n",
        "at_once": 2,
    }
    return portable.pack(predictor, **more, about={"metrics": {}})


def test_what_is_packed_comes_back(tmp_path):
    package.write(tmp_path / "model", packed(), zipped=False)
    found = portable.read(tmp_path / "model")
    assert (found.fingerprint, found.stamps, found.about) == ("f", ["s"], ABOUT)
    assert found.scorer.threshold == 0.25
    for name in ("classes", "image_size", "equalize", "window_width", "window_centre", "max_tilt"):
        assert getattr(found.scorer.data, name) == getattr(DATA, name)
    assert found.scorer.typicality.digest == KNOWN.digest
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32), dtype=np.uint8)
    logits, pooled = found.scorer.describe(images)
    assert (logits.shape, pooled.shape, found.maps(images).shape) == ((9,), (9, 2), (9, 4, 4))
    np.testing.assert_allclose(logits, 5 * images.mean((1, 2)), rtol=1e-6)  # float32
    np.testing.assert_array_equal(found.maps(images), 2.0 * images[:, ::8, ::8])


def test_models_from_before_images_at_once_was_stored_are_read(tmp_path):
    contents = packed()
    values = json.loads(contents.pop("model.json"))
    assert values.pop("images_at_once") == 2
    package.write(tmp_path / "model", package.sealed(values, contents), zipped=False)
    images = np.zeros((3, 32, 32), np.uint8)
    assert portable.read(tmp_path / "model").scorer.describe(images)[0].shape == (3,)


def test_without_typicality_it_decides_nothing(tmp_path):
    package.write(tmp_path / "model", packed(None), zipped=True)
    assert portable.read(tmp_path / "model").scorer.typicality is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", {}),
        ("batch_size", "4"),
        ("batch_size", 0),
        ("images_at_once", 0),
        ("typicality", {"belongs_to": "x"}),
        ("calibration", {}),
        ("stamps", "s"),
    ],
)
def test_fields_that_cannot_be_are_one_sentence(tmp_path, field, value):
    contents = packed()
    values = json.loads(contents.pop("model.json"))
    made = package.sealed(values | {field: value}, contents)
    package.write(tmp_path / "model", made, zipped=False)
    with pytest.raises(PackageError, match=r"expected a model of msa_flax\.export, got") as raised:
        portable.read(tmp_path / "model")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["model.stablehlo", "weights.npz"])
@pytest.mark.parametrize("data", [b"", b"nothing", b"\x80\x04pickle"])
def test_files_that_cannot_be_are_one_sentence(tmp_path, name, data):
    contents = packed()
    values = json.loads(contents.pop("model.json"))
    made = package.sealed(values, contents | {name: data})
    package.write(tmp_path / "model", made, zipped=False)
    with pytest.raises(PackageError, match="expected a model"):
        portable.read(tmp_path / "model")
