"""Whole runs of one tiny network: what one test compiles of them, no other has to compile again."""

from msa_flax.config import Config, DataConfig, ModelConfig, TrainConfig

# Programs differ by all of these, and by attention, head, optimiser and learning rate.
FLAGS = (
    "--config.data.image_size=32",
    "--config.model.alpha=0.1",
    "--config.train.batch_size=8",
    "--config.train.steps_per_dispatch=2",
    "--config.optim.schedule=constant",
)


def tiny_config(*, epochs=1, **data):
    """Returns the configuration of FLAGS, on the data of these fields."""
    return Config(
        model=ModelConfig(alpha=0.1, pretrained="none"),
        data=DataConfig(**{"image_size": 32} | data),
        train=TrainConfig(epochs=epochs, batch_size=8, steps_per_dispatch=2),
    )
