"""Typed configuration of a run: one dataclass a section, one comment a field.

Every comment ends with where the default comes from: "paper 1 §n" is the MSA-CSpineNet paper,
"Keras default" is what Keras does when the paper is silent, "ours" is a choice of this project.
The defaults of the dataclasses are paper 1's experiment; :func:`quickstart` is the embedded default
of ``python -m msa_flax.train``. A misspelt field cannot be set, and :meth:`Config.validate` reports
everything that is wrong with a configuration in one go, before any work is done.
"""

import dataclasses
import json
import re
from typing import Any

from msa_flax.files import UserError, flatten


class ConfigError(UserError):
    """The configuration cannot be run; the message lists every reason."""


@dataclasses.dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The network: backbone, optional multi-scale spatial attention, head."""

    backbone: str = "mobilenet_v1"  # a key of msa_flax.models.MODELS (paper 1 §3.2.1)
    alpha: float = 1.0  # width multiplier of MobileNet's channels (Keras default)
    attention: str = "msa"  # "msa" (paper 1 §3.2.2) | "none" | "cbam": the ablation's (ours)
    kernel_sizes: tuple[int, ...] = (3, 5, 7)  # odd, pixels of the feature map (paper 1 §3.2.2)
    refine: str = (
        "none"  # "none" | "map" | "features": 1x1 refinement (paper 1 §3.2.2, no equation)
    )
    head: str = "logit"  # "logit" (paper 1) | "softmax2" | "dense256" (paper 2 Eq. 11-15)
    dropout: float = 0.0  # rate before the head's last layer, 0 <= rate < 1 (ours: none stated)
    pretrained: str = "imagenet"  # "none" | "imagenet" | path of a Keras file (paper 1 §3.2.1)


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """The images: where they are, how they are prepared, how they are split."""

    source: str = "folder"  # "folder" (class per folder) | "phantom" (synthetic, embedded)
    root: str = ""  # the folder that holds train/ and val/ (needed by source "folder")
    classes: tuple[str, ...] = ("normal", "fracture")  # folder names; index = label (ours)
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
    validation_fraction: float = 0.2  # of what is not test (paper 1 §3.1)
    # Regular expressions searched in the file name; the named group is the value. The defaults fit
    # the public data set's names, such as "CSFDV1B10 (18)-rotated3-sharpened.png" (ours).
    family_pattern: str = r"^(?P<family>CSFDV\d+B\d+ \((?P<slice>\d+)\))"  # source slice, its index
    group_pattern: str = r"^CSFDV\d+(?P<group>B\d+)"  # CT series or patient
    allow_leakage: bool = False  # True: run even though copies of one slice cross the split (ours)
    on_bad_file: str = "error"  # "error" | "skip": what an undecodable file does (ours)
    phantom_patients: int = 360  # simulated patients of source "phantom" (ours)
    phantom_seed: int = 0  # the phantom's own seed: train.seed leaves its images alone (ours)


@dataclasses.dataclass(slots=True, kw_only=True)
class OptimConfig:
    """The optimiser."""

    name: str = "adam"  # "adam" (paper 1 §4) | "sgd"
    learning_rate: float = 1e-3  # per step, > 0 (Keras default)
    epsilon: float = 1e-7  # Adam's epsilon-hat (Keras default; optax and PyTorch differ)
    # "constant" (Keras default) | "cosine": to 0 over the whole run | "plateau" (paper 2 §V.B)
    schedule: str = "constant"
    plateau_factor: float = 0.1  # the rate's on a plateau of the validation loss (Keras default)
    plateau_patience: int = 2  # epochs without a lower validation loss that are a plateau (ours)
    class_weights: str = (
        "none"  # "none" | "balanced": both classes weigh as much in the loss (ours)
    )


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    epochs: int = 15  # passes over the training split (paper 1 §4)
    batch_size: int = 16  # images a step (paper 1 §4)
    early_stopping: int = 0  # epochs without a lower validation loss to stop at; 0: never (ours)
    freeze_backbone: bool = False  # True: backbone fixed, its BatchNorm in inference mode (ours)
    compute_dtype: str = "float32"  # "float32" | "bfloat16": parameters stay float32 (ours)
    steps_per_dispatch: int = 16  # steps in one compiled call; same numbers, less overhead (ours)
    log_every: int = 50  # steps between progress lines where there is no terminal (ours)
    seed: int = 0  # the run's one seed: initial values, order, split, dropout (ours)


@dataclasses.dataclass(slots=True, kw_only=True)
class EvalConfig:
    """Evaluation."""

    batch_size: int = 32  # images a compiled call (Keras default); the numbers do not depend on it
    threshold: float = 0.5  # probability at and above which a slice is called fractured (ours)


@dataclasses.dataclass(slots=True, kw_only=True)
class Config:
    """Everything a run needs to know; written to ``config.json`` in its workdir."""

    name: str = "paper1_msa"  # shown in titles and tables
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)

    def validate(self) -> "Config":
        """Returns the configuration itself, or raises with every problem found.

        Raises:
            ConfigError: one line a problem: the field, what was expected, what came.
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
        """Builds a configuration from :meth:`to_dict`'s output.

        Raises:
            ConfigError: unknown fields, all of them named.
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

    No network, no weights, under three minutes of training on two CPU cores. Two things differ from
    paper 1's network so that this is possible, and the run says so: width (alpha 0.25) and image
    size (128 pixels).
    """
    return Config(
        name="quickstart",
        model=ModelConfig(alpha=0.25, pretrained="none"),
        data=DataConfig(source="phantom", protocol="kfold", image_size=128),
        # At a constant rate the running averages of BatchNorm trail the weights of so short a run.
        optim=OptimConfig(schedule="cosine"),
        train=TrainConfig(epochs=15),
    )


def get_config(arg: str = "") -> Config:
    """Returns :func:`quickstart`; ``train`` loads this file when no ``--config`` is given."""
    del arg
    # This file is then a second copy of the module; its classes must be the package's own.
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


def _choice_problems(config: Config) -> list[str]:
    problems = []
    for path, choices in _CHOICES.items():
        section, field = path.split(".")
        value = getattr(getattr(config, section), field)
        if value not in choices:
            problems.append(f"{path}: expected one of {', '.join(choices)}; got {value!r}")
    return problems


def _range_problems(config: Config) -> list[str]:
    model, data, optim, train = config.model, config.data, config.optim, config.train
    checks = [
        ("model.alpha", model.alpha, model.alpha > 0, "a width multiplier above 0"),
        ("model.dropout", model.dropout, 0 <= model.dropout < 1, "a rate in [0, 1)"),
        (
            "model.kernel_sizes",
            model.kernel_sizes,
            len(set(model.kernel_sizes)) == len(model.kernel_sizes) > 0
            and all(type(k) is int and k > 0 and k % 2 == 1 for k in model.kernel_sizes),
            "distinct odd whole numbers",
        ),
        ("data.image_size", data.image_size, data.image_size >= 32, "32 pixels or more"),
        (
            "data.validation_fraction",
            data.validation_fraction,
            0 < data.validation_fraction < 1,
            "a fraction in (0, 1)",
        ),
        ("data.folds", data.folds, data.folds >= 2, "2 or more"),
        ("data.fold", data.fold, 0 <= data.fold < data.folds, "0 <= fold < data.folds"),
        ("data.phantom_patients", data.phantom_patients, data.phantom_patients >= 10, "10 or more"),
        ("data.phantom_seed", data.phantom_seed, 0 <= data.phantom_seed < 2**32, "0 .. 2**32 - 1"),
        ("optim.learning_rate", optim.learning_rate, optim.learning_rate > 0, "above 0"),
        ("optim.epsilon", optim.epsilon, optim.epsilon > 0, "above 0"),
        (
            "optim.plateau_factor",
            optim.plateau_factor,
            0 < optim.plateau_factor < 1,
            "a factor in (0, 1)",
        ),
        ("optim.plateau_patience", optim.plateau_patience, optim.plateau_patience >= 1, "1+"),
        ("train.early_stopping", train.early_stopping, train.early_stopping >= 0, "0 or more"),
        ("train.epochs", train.epochs, train.epochs >= 1, "1 or more"),
        ("train.batch_size", train.batch_size, train.batch_size >= 2, "2 or more (BatchNorm)"),
        ("train.steps_per_dispatch", train.steps_per_dispatch, train.steps_per_dispatch >= 1, "1+"),
        ("train.log_every", train.log_every, train.log_every >= 1, "1 or more"),
        ("train.seed", train.seed, 0 <= train.seed < 2**32, "0 .. 2**32 - 1"),
        ("eval.batch_size", config.eval.batch_size, config.eval.batch_size >= 1, "1 or more"),
        ("eval.threshold", config.eval.threshold, 0 < config.eval.threshold < 1, "in (0, 1)"),
    ]
    return [f"{name}: expected {want}, got {got!r}" for name, got, ok, want in checks if not ok]


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
