"""Typed configuration of a run: one dataclass per section, one comment per field.

Every comment ends with where the default comes from: "paper 1 §n" is the MSA-CSpineNet paper,
"Keras default" is what Keras does where the paper says nothing, and "ours" is a choice of this
project. The defaults of the dataclasses are the experiment of paper 1; :func:`quickstart` is what
``python -m msa_flax.train`` runs without ``--config``. A misspelt field cannot be set, and
:meth:`Config.validate` reports everything that is wrong at once, before any work is done.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

from msa_flax.files import UserError, flatten


class ConfigError(UserError):
    """The configuration cannot be run; the message lists every reason."""


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The network: backbone, optional multi-scale spatial attention, head."""

    backbone: str = "mobilenet_v1"  # a key of msa_flax.models.MODELS (paper 1 §3.2.1)
    alpha: float = 1.0  # multiplies the number of channels in MobileNet (Keras default)
    attention: str = "msa"  # "msa" (paper 1 §3.2.2) | "none" | "cbam": the ablation's (ours)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)  # odd, pixels of the feature map (paper 1 §3.2.2)
    refine: str = (
        "none"  # "none" | "map" | "features": 1x1 refinement (paper 1 §3.2.2, no equation)
    )
    head: str = "logit"  # "logit" (paper 1) | "softmax2" | "dense256" (paper 2 Eq. 11-15)
    dropout: float = 0.0  # rate before the last layer of the head, 0 <= rate < 1 (ours)
    pretrained: str = "imagenet"  # "none" | "imagenet" | a Keras file (paper 1 §3.2.1)


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """The images: where they are, how they are prepared, how they are split."""

    source: str = "folder"  # "folder" (one folder per class) | "phantom" (synthetic) (ours)
    root: str = ""  # the folder that holds train/ and val/; needed by source "folder" (ours)
    classes: tuple[str, ...] = (
        "normal",
        "fracture",
    )  # folder names, in the order of the labels (ours)
    image_size: int = 224  # pixels, both sides, after resizing (paper 1 §3.1)
    preprocess: str = (
        "paper"  # "paper": 0..1 (paper 1 §3.1) | "native": as the backbone was trained
    )
    equalize: str = "none"  # "none" | "histogram" (paper 2 §IV) | "clahe" (ours)
    augment: str = "none"  # "none" (paper 1 §3.1) | "paper2": rotation, flip, scaling (its §V.B)
    protocol: str = (
        "published"  # "published" (paper 1 §3.1) | "family" | "grouped" | "kfold" (ours)
    )
    holdout_group: str = ""  # the group (CT series) that is the test set of protocol "grouped"
    fold: int = 0  # which fold is the test set of protocol "kfold", 0-based
    folds: int = 5  # number of folds of protocol "kfold" (ours)
    validation_fraction: float = 0.2  # of the images that are not test images (paper 1 §3.1)
    # Regular expressions that are searched in the file name; the named group is the value. The
    # defaults fit names in the public data set, such as "CSFDV1B10 (18)-rotated3-sharpened.png".
    family_pattern: str = (
        r"^(?P<family>CSFDV\d+B\d+ \((?P<slice>\d+)\))"  # source slice and its index (ours)
    )
    group_pattern: str = r"^CSFDV\d+(?P<group>B\d+)"  # CT series or patient (ours)
    allow_leakage: bool = False  # True: run even if copies of one slice cross the split (ours)
    on_bad_file: str = "error"  # "error" | "skip": what to do about an unreadable file (ours)
    phantom_patients: int = 360  # simulated patients of source "phantom" (ours)
    phantom_seed: int = 0  # of the phantom; train.seed does not change its images (ours)


@dataclasses.dataclass(slots=True, kw_only=True)
class OptimConfig:
    """The optimiser."""

    name: str = "adam"  # "adam" (paper 1 §4) | "sgd"
    learning_rate: float = 1e-3  # per step, > 0 (Keras default)
    epsilon: float = 1e-7  # epsilon-hat of Adam (Keras default; optax and PyTorch differ)
    # "constant" (Keras default) | "cosine": to 0 over the whole run | "plateau" (paper 2 §V.B)
    schedule: str = "constant"
    plateau_factor: float = 0.1  # multiplies the rate on a plateau (Keras default)
    plateau_patience: int = 2  # a plateau: so many epochs without a lower validation loss (ours)
    class_weights: str = "none"  # "none" | "balanced": the same total weight per class (ours)


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    epochs: int = 15  # passes over the training split (paper 1 §4)
    batch_size: int = 16  # images per step (paper 1 §4)
    early_stopping: int = 0  # stop after so many epochs without a lower loss; 0: never (ours)
    freeze_backbone: bool = False  # True: train attention and head only (ours)
    compute_dtype: str = "float32"  # "float32" | "bfloat16": parameters stay float32 (ours)
    steps_per_dispatch: int = 16  # steps per compiled call; changes speed, not numbers (ours)
    log_every: int = 50  # steps between lines of progress, if there is no terminal (ours)
    seed: int = 0  # the one seed of the run: initial values, order, split, dropout (ours)


@dataclasses.dataclass(slots=True, kw_only=True)
class EvalConfig:
    """Evaluation."""

    batch_size: int = 32  # images per compiled call; changes no number (Keras default)
    threshold: float = 0.5  # lowest probability that is predicted positive (ours)


@dataclasses.dataclass(slots=True, kw_only=True)
class Config:
    """Everything that defines a run; written to ``config.json`` in its workdir."""

    name: str = "paper1_msa"  # shown in titles and tables
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)

    def validate(self) -> "Config":
        """Returns the configuration itself, or raises an error that names every problem.

        Raises:
            ConfigError: per problem, the field, what was expected and what came.
        """
        problems = [*_type_problems(self), *_choice_problems(self)]
        if not problems:  # ranges and combinations compare values, so the types must be right
            problems = [*_range_problems(self), *_combination_problems(self)]
        if problems:
            raise ConfigError("; ".join(problems))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as nested plain values, tuples as lists, as in JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """Builds a configuration from the output of :meth:`to_dict`.

        Raises:
            ConfigError: names all unknown fields.
        """
        unknown: list[str] = []
        config = _fill(cls(), values, "", unknown)
        if unknown:
            raise ConfigError(f"unknown configuration fields: {', '.join(unknown)}")
        return config


# Fields that may differ when a run is continued in its workdir. train.epochs may only grow, and
# only where the learning rate does not depend on it.
RESUMABLE_FIELDS = ("train.epochs", "train.log_every")


def quickstart() -> Config:
    """Returns the embedded default: MSA-CSpineNet, narrowed, on the synthetic phantom.

    It needs no internet and no weights, and trains for less than three minutes on two CPU cores.
    Two things differ from the network of paper 1 to make that possible, and the run says so: the
    width (alpha 0.25) and the size of the images (128 pixels).
    """
    return Config(
        name="quickstart",
        model=ModelConfig(alpha=0.25, pretrained="none"),
        data=DataConfig(source="phantom", protocol="kfold", image_size=128),
        # The run is so short that at a constant rate the running averages of BatchNorm would lag
        # behind the weights.
        optim=OptimConfig(schedule="cosine"),
        train=TrainConfig(epochs=15),
    )


def get_config(arg: str = "") -> Config:
    """Returns :func:`quickstart`; ``train`` loads this file when no ``--config`` is given."""
    del arg
    # Loaded in that way, this file is a second copy of the module; the classes must be those of
    # the package.
    import msa_flax.config as package_config  # noqa: PLW0406

    return package_config.quickstart()


def changed_fields(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns the fields that differ and that a run may not change when it is continued."""
    a, b = flatten(old), flatten(new)
    differ = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    fewer_epochs = a.get("train.epochs", 0) > b.get("train.epochs", 0)
    fixed = fewer_epochs or a.get("optim.schedule") == "cosine"
    return [
        key for key in differ if key not in RESUMABLE_FIELDS or (key == "train.epochs" and fixed)
    ]


def _fill(target: Any, values: dict[str, Any], prefix: str, unknown: list[str]) -> Any:
    fields = {field.name for field in dataclasses.fields(target)}
    for key, value in values.items():
        if key not in fields:
            unknown.append(prefix + key)
        elif isinstance(value, dict) and dataclasses.is_dataclass(getattr(target, key)):
            _fill(getattr(target, key), value, f"{prefix}{key}.", unknown)
        else:
            setattr(target, key, tuple(value) if isinstance(value, list) else value)
    return target


def _sections(config: Config) -> list[tuple[str, Any]]:
    return [(name, getattr(config, name)) for name in ("model", "data", "optim", "train", "eval")]


def _type_problems(config: Config) -> list[str]:
    problems = []
    for section, values in _sections(config):
        default = type(values)()
        for field in dataclasses.fields(values):
            expected, value = type(getattr(default, field.name)), getattr(values, field.name)
            whole_number = expected is float and type(value) is int
            if type(value) is not expected and not whole_number:
                problems.append(
                    f"{section}.{field.name}: expected {expected.__name__}, got {value!r}"
                )
    return problems


_CHOICES = {
    "model.attention": ("msa", "cbam", "none"),
    "model.refine": ("none", "map", "features"),
    "model.head": ("logit", "softmax2", "dense256"),
    "data.source": ("folder", "phantom"),
    "data.preprocess": ("paper", "native"),
    "data.equalize": ("none", "histogram", "clahe"),
    "data.augment": ("none", "paper2"),
    "data.protocol": ("published", "family", "grouped", "kfold"),
    "data.on_bad_file": ("error", "skip"),
    "optim.name": ("adam", "sgd"),
    "train.compute_dtype": ("bfloat16", "float32"),
    "optim.schedule": ("constant", "cosine", "plateau"),
    "optim.class_weights": ("none", "balanced"),
}


Check = tuple[Callable[[Any], bool], str]  # whether a value is right, and what is expected


def _at_least(least: int, unit: str = "") -> Check:
    return (lambda value: value >= least), f"{least}{unit} or more"


def _distinct_odd_numbers(values: tuple[int, ...]) -> bool:
    odd = all(type(value) is int and value > 0 and value % 2 == 1 for value in values)
    return odd and len(set(values)) == len(values) > 0


_ABOVE_0: Check = (lambda value: value > 0), "above 0"
_FRACTION: Check = (lambda value: 0 < value < 1), "a number in (0, 1)"
_SEED: Check = (lambda value: 0 <= value < 2**32), "0 .. 2**32 - 1"
_RANGES = {
    "model.alpha": _ABOVE_0,
    "model.dropout": ((lambda rate: 0 <= rate < 1), "a rate in [0, 1)"),
    "model.kernel_sizes": (_distinct_odd_numbers, "distinct odd whole numbers"),
    "data.image_size": _at_least(32, " pixels"),
    "data.validation_fraction": _FRACTION,
    "data.folds": _at_least(2),
    "data.phantom_patients": _at_least(10),
    "data.phantom_seed": _SEED,
    "optim.learning_rate": _ABOVE_0,
    "optim.epsilon": _ABOVE_0,
    "optim.plateau_factor": _FRACTION,
    "optim.plateau_patience": _at_least(1),
    "train.early_stopping": _at_least(0),
    "train.epochs": _at_least(1),
    "train.batch_size": _at_least(2),  # BatchNorm needs two
    "train.steps_per_dispatch": _at_least(1),
    "train.log_every": _at_least(1),
    "train.seed": _SEED,
    "eval.batch_size": _at_least(1),
    "eval.threshold": _FRACTION,
}


def _value(config: Config, path: str) -> Any:
    section, field = path.split(".")
    return getattr(getattr(config, section), field)


def _choice_problems(config: Config) -> list[str]:
    values = {path: _value(config, path) for path in _CHOICES}
    return [
        f"{path}: expected one of {', '.join(_CHOICES[path])}; got {value!r}"
        for path, value in values.items()
        if value not in _CHOICES[path]
    ]


def _range_problems(config: Config) -> list[str]:
    return [
        f"{path}: expected {expected}, got {_value(config, path)!r}"
        for path, (is_right, expected) in _RANGES.items()
        if not is_right(_value(config, path))
    ]


def _combination_problems(config: Config) -> list[str]:
    model, data, problems = config.model, config.data, []
    if len(data.classes) != 2 or len(set(data.classes)) != 2:
        problems.append(
            "data.classes: expected two different folder names, negative class first; "
            f"got {data.classes!r} (more than two classes are not supported yet)"
        )
    if data.source == "folder" and not data.root:
        problems.append("data.root: source 'folder' needs the data set's folder; none was given")
    if data.source == "phantom" and data.protocol != "kfold":
        problems.append(
            f"data.protocol: the phantom is split by patient (kfold), got {data.protocol!r}"
        )
    if not 0 <= data.fold < data.folds:
        problems.append(f"data.fold: expected 0 <= fold < data.folds, got {data.fold}")
    if data.protocol == "grouped" and not data.holdout_group:
        problems.append("data.holdout_group: protocol 'grouped' needs the group to hold out")
    if model.attention != "msa" and model.refine != "none":
        problems.append(f"model.refine: attention {model.attention!r} has no maps to refine")
    if config.train.freeze_backbone and model.pretrained == "none":
        problems.append("train.freeze_backbone: a frozen backbone needs pretrained weights")
    if config.train.freeze_backbone and data.augment != "none":
        problems.append("data.augment: a frozen backbone's features are computed once; use 'none'")
    for field, group in (("family_pattern", "family"), ("group_pattern", "group")):
        pattern = getattr(data, field)
        try:
            if pattern and group not in re.compile(pattern).groupindex:
                problems.append(f"data.{field}: expected a named group (?P<{group}>...)")
        except re.error as error:
            problems.append(f"data.{field}: not a regular expression: {error}")
    return problems
