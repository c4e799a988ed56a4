"""What a run begins with: lines of the log, and a sheet of training images."""

import logging

import numpy as np
from clu import parameter_overview

from msa_flax.files import NOTICE
from msa_flax.plots import sheets
from msa_flax.run import Run

log = logging.getLogger("msa_flax")


def log_overview(run: Run) -> None:
    """Logs what is about to be trained, and on what; Table 1 of paper 1 is part of it."""
    config, examples = run.config, run.data.examples
    log.info("%s: %s", config.name, NOTICE)
    if config.data.source == "phantom":
        log.info("data: a synthetic phantom; a result on it says nothing about patients")
    alpha, size = config.model.alpha, config.data.image_size
    if alpha != 1.0 or size != 224:
        log.info("model: smaller than the paper's: width %g, %d x %d pixels", alpha, size, size)
    log.info("%s", run.data.splits.as_text(examples.label, config.data.classes))
    for stamp in run.data.stamps:
        log.warning("stamp: %s", stamp)
    for name, reason in examples.bad_files[:20]:
        log.warning("left out: %s: %s", name, reason)
    if report := run.report:
        log.info(
            "weights: %d tensors from %s, sha256 %s", report.tensors, report.source, report.hash
        )
        if report.note:
            log.warning("weights: %s", report.note)
    overview = parameter_overview.get_parameter_overview(run.variables["params"])
    logging.getLogger("msa_flax.file").info("%s", overview)


def draw_samples(run: Run) -> None:
    """Draws some training images of each class, ``figures/samples.png``."""
    examples, rows = run.data.examples, run.data.splits.indices("train")
    shuffled = np.random.default_rng(run.config.train.seed).permutation(rows)
    chosen = np.concatenate([shuffled[examples.label[shuffled] == k][:8] for k in (0, 1)])
    sheets.sample_sheet(
        examples.images[chosen],
        examples.label[chosen],
        examples.example_id[chosen].tolist(),
        run.workdir / "figures/samples.png",
        run.config.data.classes,
        stamps=run.data.stamps,
    )
