"""Networks whose logits differ from image to image by more than 1, without any training."""

import dataclasses

import jax
import numpy as np
from quick_compilation import QUICK

from msa_flax.models import WITH_BATCH_NORM, create_model, shapes

SPREAD = 2.0  # deviation of the logits


def awake_variables(config, images):
    """Returns random variables of a network with the head ``logit``.

    The running statistics of BatchNorm are those of the images, and the head looks where their
    features differ most, as a trained one would: their logits have the mean 0 and the deviation
    ``SPREAD``. A random head would show little but what all images share, and rounding.

    Args:
        config: a ModelConfig, with attention.
        images: float32 [b, s, s, 3], scaled for the network.
    """
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name, fan = path[-1].key, max(np.prod(leaf.shape[:-1], dtype=int), 1)
        if name in ("var", "scale", "gamma", "gain"):
            return rng.uniform(0.2, 1.0, leaf.shape).astype(np.float32)
        spread = 0.2 if len(leaf.shape) < 2 else (2 / fan) ** 0.5
        return rng.normal(0, spread, leaf.shape).astype(np.float32)

    momentum = 1e-6 if config.backbone in WITH_BATCH_NORM else 0.0
    model = create_model(dataclasses.replace(config, batch_norm_momentum=momentum))
    variables = jax.tree_util.tree_map_with_path(fill, shapes(model))

    def pooled(module, images, *, train):
        features = module.attention(module.features(images, train=train))
        return features.mean((1, 2))

    def step(variables, images, train):
        given = {"rngs": {"dropout": jax.random.key(0)}, "mutable": ["batch_stats"]}
        return model.apply(variables, images, train=train, method=pooled, **given)

    run = jax.jit(step, static_argnums=2, compiler_options=QUICK)
    if momentum:
        variables = {**variables, **run(variables, images, True)[1]}
    found = np.asarray(run(variables, images, False)[0], np.float64)
    _, deviations, directions = np.linalg.svd(found - found.mean(0), full_matrices=False)
    kernel = directions[0] * SPREAD * len(found) ** 0.5 / deviations[0]
    head = variables["params"]["classifier"]["logit"]
    head["bias"] = np.float32([-found.mean(0) @ kernel])
    head["kernel"] = np.float32(kernel[:, None])
    return jax.tree.map(np.asarray, variables)
