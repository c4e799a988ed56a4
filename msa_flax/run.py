"""A run: one network on one data set, kept in one folder.

``python -m msa_flax.train --workdir W`` makes a run, and everything that is left of it is in W:

- its configuration, which says what was asked for (``config.json``);
- its data: the images, the split that each of them belongs to (``splits.csv``), and the stamps,
  which must be said beside every number that comes from these splits;
- its network, with the variables of one training step (``checkpoints/``).

:func:`start` makes the run that training begins with, and :func:`restore` reads a trained one. Both
return a :class:`Run`, which predicts and explains images. What the commands write into the folder
of a run is in :mod:`msa_flax.results`.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from msa_flax import data, files, run_files, saliency
from msa_flax.config import Config
from msa_flax.data.examples import Examples
from msa_flax.data.leakage import UNSEARCHED, check_contradictions, check_leakage, find_stamps
from msa_flax.data.searched import too_many, with_families
from msa_flax.data.splits import Splits, assign_splits
from msa_flax.initial import initial_variables
from msa_flax.models import Classifier, create_model, fold_batch_norm, initialise, scaler, shapes
from msa_flax.prediction.score import Scorer, kept_scorer, predict_files
from msa_flax.saliency import Explanations, explain_images
from msa_flax.saliency.explain import make_classifier_step
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.steps import make_predict_step
from msa_flax.training.workdir import WorkdirError, identity, read_config
from msa_flax.training.xla import compile_predict_step, compiler_options
from msa_flax.weights import WeightsReport

log = logging.getLogger("msa_flax")

Variables = dict[str, Any]
_IMAGES_AT_ONCE = 8  # for methods that vary the image: each image needs the memory of many passes


@dataclasses.dataclass(frozen=True, slots=True)
class Data:
    """The images of a run and how they are split.

    Attributes:
        stamps: what must be said beside every number that comes from these splits.
    """

    examples: Examples
    splits: Splits  # of the examples, in the same order
    stamps: list[str]

    def take(self, split: str) -> Examples:
        """Returns the images of one split."""
        return self.examples.take(self.splits.indices(split))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A network on its data, ready to predict.

    Attributes:
        workdir: the folder of the run.
        config: its configuration.
        model: the network.
        variables: the parameters and running statistics of the network.
        step: the training step they are from; 0 before training.
        checkpoint: "best" or "last", or "" before training.
        report: which weights were loaded from a file, before training.
        loaded: the data, where they are in memory already; see :attr:`data`.
        changes: the stamp of files that were changed by hand and are taken all the same.
    """

    workdir: Path
    config: Config
    model: Classifier
    variables: Variables
    step: int
    checkpoint: str
    report: WeightsReport | None = None
    loaded: Data | None = None
    changes: Sequence[str] = ()

    @functools.cached_property
    def data(self) -> Data:
        """The data of the run, read when they are asked for first.

        Raises:
            WorkdirError: the images are not the ones that the run was trained with.
        """
        return self.loaded or read_data(self.workdir, self.config, self.changes)

    def results(self, split: str) -> Path:
        """Returns ``eval/<split>/``, or ``eval/<split>-last/`` for the last checkpoint."""
        return self.workdir / "eval" / (split if self.checkpoint == "best" else f"{split}-last")

    @property
    def identity(self) -> dict[str, Any]:
        """What a file beside a checkpoint must have been made with, to be used with this one."""
        recorded = files.read_json(self.workdir / "run.json").get("data_fingerprint", "")
        about = {"checkpoint": self.checkpoint, "step": self.step, "data_fingerprint": recorded}
        return about | {"classes": self.config.data.classes}

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the logit of fracture of each image, float32 [n].

        Args:
            images: uint8 [n, s, s], as :func:`msa_flax.preprocess` returns them.
        """
        return self.describe(images)[0] if len(images) else np.zeros(0, np.float32)

    def describe(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits of n >= 1 images, and the means of their feature maps [n, c]."""
        found = [
            [np.asarray(part)[:count] for part in self._predict_step(self.folded, batch)]
            for batch, count in files.batches(images, self.config.eval.batch_size)
        ]
        logits, pooled = map(np.concatenate, zip(*found, strict=True))
        return logits, pooled

    def predict_files(self, paths: Sequence[str | Path]) -> list[dict[str, Any]]:
        """Returns what the model says of image files: the rows of ``slices.csv``.

        What cannot be read is left out with a warning; ``python -m msa_flax.predict`` lists it.

        Args:
            paths: of files, folders and trees, in any mixture.

        Raises:
            PredictionError: a path is not there, or the stored calibration cannot be used.
        """
        return predict_files(self.scorer, paths)

    @functools.cached_property
    def scorer(self) -> Scorer:
        """What turns new images into rows of a table: this network and all that it decides by."""
        splits = ("train", "validation")
        return kept_scorer(
            self.workdir / "checkpoints",
            self.config,
            self.describe,
            lambda: [self.data.take(split) for split in splits],
            self.identity,
        )

    def explain(
        self,
        images: np.ndarray,
        *,
        methods: Sequence[str] = ("gradcam",),
        layer: str | None = None,
    ) -> Explanations:
        """Returns logits, maps for both classes by each method, and attention maps.

        Args:
            images: uint8 [n, s, s], as :func:`msa_flax.preprocess` returns them; n >= 1.
            methods: keys of ``msa_flax.saliency.METHODS``.
            layer: the layer whose features are explained, such as "backbone/conv_dw_6"; by default
                the last one of the backbone. Methods that vary the image have no layer.

        Raises:
            SaliencyError: there is no such method or layer; names the choices.
        """
        chosen, size = saliency.choose(methods, layer=layer), self.config.eval.batch_size
        parts = [
            explain_images(
                functools.partial(self._explain_step(names, layer), self.folded),
                images,
                batch_size=min(_IMAGES_AT_ONCE, len(images), size) if from_image else size,
            )
            for from_image in (False, True)
            if (names := tuple(n for n, m in chosen.items() if m.from_image == from_image))
        ]
        maps = {name: maps for part in parts for name, maps in part.maps.items()}
        return dataclasses.replace(parts[0], maps={name: maps[name] for name in chosen})

    def with_random_weights(self) -> "Run":
        """Returns the same network with random weights, which has learned nothing."""
        return dataclasses.replace(self, variables=initialise(self.model, seed=1))

    @functools.cached_property
    def folded(self) -> Variables:
        """The variables with BatchNorm folded into the convolutions, for inference."""
        return fold_batch_norm(self.variables)

    @functools.cached_property
    def _predict_step(self) -> Callable[..., jax.Array]:
        step = make_predict_step(self.model, scaler(self.config), method="describe")
        return compile_predict_step(step)

    def _explain_step(self, methods: tuple[str, ...], layer: str | None) -> Callable[..., Any]:
        key = methods, layer
        if key not in self._explain_steps:
            step = make_classifier_step(self.model, scaler(self.config), methods, layer=layer)
            options = compiler_options(many_branches=True)
            self._explain_steps[key] = jax.jit(step, compiler_options=options)
        return self._explain_steps[key]

    @functools.cached_property
    def _explain_steps(self) -> dict[Any, Callable[..., Any]]:
        return {}


def start(
    workdir: Path,
    config: Config,
    examples: Examples | None = None,
    *,
    changes: Sequence[str] = (),
) -> Run:
    """Returns a run before its first step; nothing is written.

    Args:
        workdir: its folder, which need not exist.
        config: its configuration.
        examples: its images, where a caller that makes many runs has loaded them.
        changes: stamps of files that were changed by hand. With some, the table of splits in the
            folder is taken as it is.

    Raises:
        DataError: the data would make the result meaningless: one picture has both labels, or
            copies of one slice are in two splits although ``data.allow_leakage`` is false.
        WeightsError: the pretrained weights cannot be had or do not fit.
    """
    if examples is None:
        log.info("reading the images")
    found = split_data(config, examples)
    if changes:
        found = _with_changes(found, workdir / "splits.csv", changes)
    check_contradictions(found.examples)
    check_leakage(found.examples, found.splits, allow=config.data.allow_leakage)
    return dataclasses.replace(untrained(workdir, config, found), changes=changes)


def _with_changes(found: Data, path: Path, changes: Sequence[str]) -> Data:
    """Returns data as the table of splits in a run's folder splits them, where there is one."""
    splits = Splits.read(path) if path.exists() else found.splits
    known = [stamp for stamp in found.stamps if stamp == UNSEARCHED]
    stamps = find_stamps(found.examples, splits, recorded=known)
    return Data(found.examples, splits, [*stamps, *changes])


def untrained(workdir: Path, config: Config, loaded: Data | None = None) -> Run:
    """Returns a run before its first step, on any data or none; :func:`start` refuses some."""
    log.info("building the network and its initial weights")
    model = create_model(config.model)
    variables, report = initial_variables(model, config)
    return Run(
        workdir=workdir,
        config=config,
        model=model,
        variables=variables,
        step=0,
        checkpoint="",
        report=report,
        loaded=loaded,
    )


def restore(
    workdir: str | Path,
    *,
    checkpoint_name: str = "best",
    root: str | None = None,
    accept_changes: bool = False,
) -> Run:
    """Returns a trained run.

    Args:
        workdir: a folder written by ``python -m msa_flax.train``.
        checkpoint_name: "best" (lowest validation loss) or "last".
        root: where the images of the run, or their table, are now, if they have moved.
        accept_changes: whether files of the run that were changed by hand are taken, with a stamp.

    Raises:
        UserError: a file of the run was changed by hand.
        CheckpointError: no such checkpoint, a damaged one, or one of another model.
    """
    workdir = Path(workdir)
    changes = run_files.check_run_files(workdir, accept=accept_changes)
    config = read_config(workdir)
    config.data = data.with_place(config.data, root)
    model = create_model(config.model)
    kept = Checkpoints(workdir, read_only=True, run="" if changes else identity(config))
    variables, step = kept.restore_variables(checkpoint_name, shapes(model))
    return Run(
        workdir=workdir,
        config=config,
        model=model,
        variables=variables,
        step=step,
        checkpoint=checkpoint_name,
        changes=changes,
    )


def read_data(workdir: Path, config: Config, changes: Sequence[str] = ()) -> Data:
    """Returns the data that the run in a folder was trained with.

    Args:
        workdir: the folder of the run.
        config: its configuration.
        changes: further stamps, from :func:`msa_flax.run_files.check_run_files`.

    Raises:
        WorkdirError: the images are not the ones that the run was trained with.
    """
    field, place = data.place_of_images(config.data)
    if place and not Path(place).expanduser().exists():
        raise WorkdirError(
            f"the images of {workdir} were in {place}, which is no folder or file now; say where "
            f"they are with --moved_to NEW (msa_flax.train: --config.data.{field}=NEW)"
        )
    examples, recorded = data.load(config.data), files.read_json(workdir / "run.json")
    unknown = changes and "data_fingerprint" not in recorded  # as the stamp says
    if not unknown and recorded.get("data_fingerprint") != examples.fingerprint:
        raise WorkdirError(
            f"the images in {place or 'the data set'} are not the ones that "
            f"{workdir} was trained with; restore them, or evaluate them with --data_root"
        )
    splits = Splits.read(workdir / "splits.csv")
    stamps = [*find_stamps(examples, splits, recorded=recorded.get("stamps", ())), *changes]
    return Data(examples=splits.with_families(examples), splits=splits, stamps=stamps)


def split_data(config: Config, examples: Examples | None = None) -> Data:
    """Returns the data of a configuration, newly split.

    Args:
        config: where the images are, how they are split, and the seed of that.
        examples: the images, where they are in memory already.
    """
    config = dataclasses.replace(config, data=data.settled(config.data))
    examples = with_families(data.load(config.data) if examples is None else examples, config.data)
    splits = assign_splits(examples, config.data, seed=config.train.seed)
    unsearched = [UNSEARCHED] * too_many(examples, config.data)
    return Data(examples, splits, find_stamps(examples, splits, recorded=unsearched))
