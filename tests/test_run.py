"""The public names are there, importing them costs nothing, and a run knows its data."""

import json
import subprocess
import sys

import numpy as np
import pytest

import msa_flax
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.training.workdir import WorkdirError


def test_every_public_name_is_there():
    for name in msa_flax.__all__:
        assert getattr(msa_flax, name) is not None
        assert name in dir(msa_flax)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = msa_flax.no_such_name


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, msa_flax; sys.exit(bool({'jax', 'tensorflow', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_knows_its_data_and_refuses_other_images(untrained_run, tmp_path):
    config = Config(
        model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
        data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
    )
    started = untrained_run(tmp_path / "run", config)
    assert (started.step, started.checkpoint) == (0, "")
    restored = msa_flax.restore(tmp_path / "run")
    assert restored.data.examples.fingerprint == started.data.examples.fingerprint
    assert restored.data.stamps == started.data.stamps
    test = restored.data.take("test")
    assert len(test) == (started.data.splits.split == "test").sum() > 0
    np.testing.assert_array_equal(restored.predict(test.images), started.predict(test.images))
    recorded = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "run/run.json").write_text(json.dumps(recorded | {"data_fingerprint": "other"}))
    with pytest.raises(WorkdirError, match="are not the ones that"):
        _ = msa_flax.restore(tmp_path / "run").data
