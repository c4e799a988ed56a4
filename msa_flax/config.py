"""Typed configuration of a run: one dataclass per section, one comment per field.

Every comment ends with where the default comes from: "paper 1 §n" is the MSA-CSpineNet paper,
"Keras default" is what Keras does where the paper says nothing, and "ours" is a choice of this
project. The defaults of the dataclasses are the experiment of paper 1; :func:`quickstart` is what
``python -m msa_flax.train`` runs without ``--config``. A misspelt field cannot be set, and
:meth:`Config.validate` reports everything that is wrong at once, before any work is done.
"""

import dataclasses
import json
from typing import Any

from msa_flax.config_checks import config_problems
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
    batch_norm_momentum: float = 0.0  # of the running averages, in [0, 1); 0: Keras's (ours)
    dropout: float = 0.0  # rate before the last layer of the head, 0 <= rate < 1 (ours)
    pretrained: str = "imagenet"  # "none" | "imagenet" | a Keras file (paper 1 §3.2.1)


@dataclasses.dataclass(slots=True, kw_only=True)
class DataConfig:
    """The images: where they are, how they are prepared, how they are split."""

    # "folder" (one per class) | "manifest" | "rsna2022" (the challenge) | "phantom" (synthetic)
    source: str = "folder"  # (ours)
    # The folder of source "folder", [PART/]CLASS/[PATIENT/]FILE, or of the challenge as it was
    # handed out, or as msa_flax.prepare has written it (ours)
    root: str = ""
    manifest: str = ""  # the table of labels of source "manifest", a CSV file (ours)
    classes: tuple[str, ...] = (
        "normal",
        "fracture",
    )  # folder names, in the order of the labels: the positive class second (ours)
    positive: str = ""  # name of the positive class, to confirm the order; "": by its name (ours)
    image_size: int = 224  # pixels, both sides, after resizing (paper 1 §3.1)
    preprocess: str = (
        "paper"  # "paper": 0..1 (paper 1 §3.1) | "native": as the backbone was trained
    )
    window_centre: float = 400.0  # HU, of DICOM files (RSNA 2022, third place)
    window_width: float = 1800.0  # HU from black to white, of DICOM files (RSNA 2022, third place)
    max_tilt: float = 30.0  # degrees that a DICOM slice may lean from the axial plane (ours)
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
    # How copies of one slice are told: "names": by family_pattern | "pixels": by a search |
    # "auto": by names where all of them tell it, else by a search too (ours)
    families: str = "auto"
    allow_leakage: bool = False  # True: run even if copies of one slice cross the split (ours)
    on_bad_file: str = "error"  # "error" | "skip": what to do about an unreadable file (ours)
    rsna_beyond: float = (
        0.0  # mm from every box from which slices of source "rsna2022" are normal; 0: none (ours)
    )
    # One in so many normal slices of source "rsna2022" is used, those whose number is a multiple;
    # neighbours show nearly the same, and fractures are few (ours)
    rsna_every: int = 1
    rsna_faulty: str = (
        "leave_out"  # "leave_out" | "use": studies of "rsna2022" with known faults (ours)
    )
    # Studies of "rsna2022" with a fracture and without boxes: "evaluate": as whole studies, their
    # slices are in no split | "leave_out" (ours)
    rsna_unboxed: str = "evaluate"
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
        if problems := config_problems(self):
            raise ConfigError("; ".join(problems))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Returns the configuration as nested plain values, tuples as lists, as in JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """Builds a configuration from the output of :meth:`to_dict`.

        Raises:
            ConfigError: names all unknown fields, or sections that hold no fields.
        """
        unknown: list[str] = []
        config = _fill(cls(), values, "", unknown)
        if unknown:
            raise ConfigError(f"unknown configuration fields: {', '.join(unknown)}")
        return config


# Fields that may differ when a run is continued in its workdir. train.epochs may only grow, and
# only where the learning rate does not depend on it.
RESUMABLE_FIELDS = ("train.epochs", "train.log_every")
# Fields of data that decide which slices of "rsna2022" are prepared, and what their pixels are.
_OF_PIXELS = ("window_centre", "window_width", "max_tilt")
PREPARED_FIELDS = (*_OF_PIXELS, "rsna_beyond", "rsna_every", "rsna_faulty")


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


def _fill(target: Any, values: Any, prefix: str, unknown: list[str]) -> Any:
    if not isinstance(values, dict):
        where = prefix.rstrip(".") or "the configuration"
        raise ConfigError(f"{where}: expected fields by name, got {str(values)[:80]!r}")
    fields = {field.name for field in dataclasses.fields(target)}
    for key, value in values.items():
        if key not in fields:
            unknown.append(prefix + key)
        elif dataclasses.is_dataclass(getattr(target, key)):
            _fill(getattr(target, key), value, f"{prefix}{key}.", unknown)
        else:
            setattr(target, key, tuple(value) if isinstance(value, list) else value)
    return target
