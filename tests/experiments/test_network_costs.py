"""Costs are counted right: known networks have the numbers that their papers give."""

import jax
import jax.numpy as jnp
import pytest
from network_costs import count_costs

from msa_flax.config import ModelConfig
from msa_flax.models import PARAM_COUNTS, create_model

# Multiply-adds of one 224 x 224 image: MobileNetV1 Table 4 (569 million, with its 1,000-class
# layer of 1.0 million), MobileNetV2 Table 4 (300 million, with 1.3 million).
PUBLISHED = {"mobilenet_v1": 568e6, "mobilenet_v2": 299e6}
# one logit instead of 1,000 classes
HEADS = {"mobilenet_v1": 1025, "mobilenet_v2": 1281}


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_the_operations_are_those_of_the_paper(backbone):
    model = create_model(ModelConfig(backbone=backbone, attention="none"))
    found = count_costs(model, image_size=224)
    assert found.flops / 2 == pytest.approx(PUBLISHED[backbone], rel=0.01)  # papers round
    assert found.parameters == PARAM_COUNTS[backbone] + HEADS[backbone]


def test_the_attention_block_is_counted():
    with_it, without = (
        count_costs(create_model(ModelConfig(attention=kind)), image_size=224)
        for kind in ("msa", "none")
    )
    assert with_it.parameters - without.parameters == 169
    assert with_it.flops - without.flops == 2 * 7 * 7 * 2 * (9 + 25 + 49)


def test_a_repeated_layer_counts_as_often_as_it_is_repeated():
    import flax.linen as nn

    class Repeats(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            kernel = self.param("kernel", nn.initializers.ones, (3, 3))
            body = lambda x, _: (x @ kernel, None)  # noqa: E731
            return jax.lax.scan(body, images, jnp.arange(5))[0]

    assert count_costs(Repeats(), image_size=4) == (9, 5 * 2 * 4 * 4 * 3 * 3)
