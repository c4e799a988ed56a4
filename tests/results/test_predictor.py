"""What a run says about itself to a prediction."""

from msa_flax import restore
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.prediction.predictor import PHANTOM
from msa_flax.results.predictor import fingerprint, predictor_of

CONFIG = Config(
    name="one",
    model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
)


def test_a_run_says_what_it_is_and_what_it_learned_from(tmp_path, untrained_run):
    untrained_run(tmp_path / "run", CONFIG.validate())
    run = restore(tmp_path / "run")
    found = predictor_of(run)
    assert found.about["name"] == "one"
    assert found.about["trained_on"]["source"] == "a synthetic phantom"
    assert found.about["trained_on"]["images"] > 0
    assert found.stamps[0] == PHANTOM
    assert found.scorer is run.scorer
    assert found.fingerprint == fingerprint(restore(tmp_path / "run"))
    assert found.fingerprint != fingerprint(run.with_random_weights())
