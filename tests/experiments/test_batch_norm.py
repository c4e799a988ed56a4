"""Recomputed BatchNorm averages are those of the training images."""

import batch_norm
import jax.numpy as jnp
import numpy as np

from msa_flax.config import Config
from msa_flax.models import initialise, scaler
from msa_flax.run import Run


def test_recomputed_averages_make_evaluation_what_training_is_on_one_batch(
    small_classifier, tmp_path
):
    config = Config()
    config.train.batch_size = 8
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16), dtype=np.uint8)
    model = small_classifier(attention=False)
    run = Run(
        workdir=tmp_path,
        config=config,
        model=model,
        variables=initialise(model, seed=0),
        step=0,
        checkpoint="best",
    )
    trained, _ = model.apply(
        run.variables, scaler(config)(jnp.asarray(images)), train=True, mutable=["batch_stats"]
    )
    # float32: 1e-6 of logits of order 1, and averages that a division by 1 - momentum went through
    np.testing.assert_allclose(
        batch_norm.recomputed(run, images).predict(images), trained, atol=2e-5
    )
    assert np.abs(run.predict(images) - trained).max() > 1e-3
