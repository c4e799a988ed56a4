"""How many images per second get from a folder of PNG files to a training step."""

import pathlib
import time
from collections.abc import Callable, Iterator

import cv2

from msa_flax import data
from msa_flax.config import Config, DataConfig
from msa_flax.data import phantom, pipeline


def write_images(root: pathlib.Path, count: int) -> None:
    """Draws ``count`` slices into ROOT/{train,val}/{normal,fracture}/, a tenth of them in val."""
    for part in ("train", "val"):
        for name in Config().data.classes:
            (root / part / name).mkdir(parents=True)
    for i in range(count):
        drawn = phantom.draw_slice(0, i // 8, i % 8)
        part = "val" if i // 8 % 10 == 9 else "train"
        folder = root / part / Config().data.classes[drawn.label]
        cv2.imwrite(str(folder / f"{drawn.patient}-{i % 8}.png"), drawn.image)


def rates(root: pathlib.Path, size: int, repeats: int) -> Iterator[tuple[str, list[float]]]:
    """Yields what was done with the images, and the images per second of each repetition."""
    config = DataConfig(root=str(root), image_size=size)
    examples = data.load_external(root, config)  # once before the clock: imports, the disk's cache

    def measured(work: Callable[[], object], times: int = repeats) -> list[float]:
        found = []
        for _ in range(times):
            began = time.perf_counter()
            work()
            found.append(len(examples) / (time.perf_counter() - began))
        return found

    def epoch() -> None:
        train = Config().train
        for _ in pipeline.train_dispatches(
            examples.images,
            examples.label,
            batch_size=train.batch_size,
            steps_per_dispatch=train.steps_per_dispatch,
            seed=0,
            epoch=0,
        ):
            pass

    yield "PNG files decoded and resized", measured(lambda: data.load_external(root, config))
    yield "the same, prepared for later starts", measured(lambda: data.load(config), 1)
    yield "read from the prepared copy", measured(lambda: data.load(config))
    yield "training batches, from memory", measured(epoch)
