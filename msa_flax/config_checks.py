"""What a configuration must fulfil, checked before any work is done: types, choices, ranges.

A problem is one sentence that names the field, what was expected and what came.
"""

import dataclasses
import os
import re
import unicodedata
from collections.abc import Callable
from typing import Any


def config_problems(config: Any) -> list[str]:
    """Returns everything that is wrong with a ``Config``, nothing where it can be run."""
    problems = [*_type_problems(config), *_choice_problems(config)]
    if problems:  # ranges and combinations compare values, so the types must be right
        return problems
    return [*_range_problems(config), *_combination_problems(config)]


# Parts of class names, in lower case. A name of the second list is the negative class also where
# it holds a word of the first one ("no fracture", "unfractured").
_POSITIVE = (
    r"fract|frakt|\bfx|broken|bruch|骨折|골절|перелом|abnormal|patholog|lesion|disease|"
    r"\bpos\b|positive|異常|异常"
)
_NEGATIVE = (
    r"\b(no|non|not|without|un|neg|sin|sans|ohne|keine?)\b|(un|non|no)(fract|broken)|negative|"
    r"(?<!ab)normal|healthy|control|intact|正常|정상|健康|[無无非未]骨折|норм"
)


def looks_positive(name: str) -> bool | None:
    """Returns whether a class is the one to be found, as far as its name tells; None: it does not.

    >>> [looks_positive(name) for name in ("Fractured", "no_fracture", "healthy", "B")]
    [True, False, False, None]
    """
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", name).casefold())
    if re.search(_NEGATIVE, words):
        return False
    return True if re.search(_POSITIVE, words) else None


def _class_problems(data: Any) -> list[str]:
    names, field = tuple(map(str, data.classes)), "data.classes"
    plain = all(
        isinstance(n, str) and n.strip(". ") and not set(n) & {*"/\\\0"} for n in data.classes
    )
    if taken := [name for name in names if name in ("all", "both", "neither", "overall")]:
        return [f"{field}: {taken[0]!r} has another meaning in the tables; rename that class"]
    if len(names) != 2 or len({name.casefold() for name in names}) != 2 or not plain:
        return [
            f"{field}: expected two different folder names, negative class first; "
            f"got {data.classes!r} (more than two classes are not supported yet)"
        ]
    positive = data.positive or names[1]
    if positive not in names:
        return [f"data.positive: expected one of {' and '.join(names)}, got {positive!r}"]
    told = [looks_positive(name) for name in names]
    swapped = (told[0] is True and not told[1]) or (told[1] is False and told[0] is None)
    if positive == names[0] or (swapped and not data.positive):
        order = f"--config.data.classes={names[1]},{names[0]}"
        return [
            f"{field}: expected the negative class first and the positive class (label 1) second, "
            f"got {names[0]!r} before {names[1]!r}; write {order}"
            + ("" if data.positive else f", or data.positive={names[1]} if that is meant")
        ]
    return []


def _sections(config: Any) -> list[tuple[str, Any]]:
    return [(name, getattr(config, name)) for name in ("model", "data", "optim", "train", "eval")]


def _type_problems(config: Any) -> list[str]:
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


CHOICES = {
    "model.attention": ("msa", "cbam", "none"),
    "model.refine": ("none", "map", "features"),
    "model.head": ("logit", "softmax2", "dense256"),
    "data.source": ("folder", "manifest", "phantom", "rsna2022"),
    "data.preprocess": ("paper", "native"),
    "data.equalize": ("none", "histogram", "clahe"),
    "data.augment": ("none", "paper2"),
    "data.protocol": ("published", "family", "grouped", "kfold"),
    "data.families": ("names", "pixels", "auto"),
    "data.on_bad_file": ("error", "skip"),
    "data.rsna_faulty": ("leave_out", "use"),
    "data.rsna_unboxed": ("evaluate", "leave_out"),
    "optim.name": ("adam", "sgd"),
    "train.compute_dtype": ("bfloat16", "float32"),
    "optim.schedule": ("constant", "cosine", "plateau"),
    "optim.class_weights": ("none", "balanced"),
}


Check = tuple[Callable[[Any], bool], str]  # whether a value is right, and what is expected


def _at_least(least: int, unit: str = "", most: int = 1_000_000) -> Check:
    """Above ``most`` a number is a slip of the keyboard, which would take years or all memory."""
    return (lambda value: least <= value <= most), f"{least} to {most:,}{unit}"


def _distinct_odd_numbers(values: tuple[int, ...]) -> bool:
    odd = all(type(value) is int and value > 0 and value % 2 == 1 for value in values)
    return odd and len(set(values)) == len(values) > 0


_ABOVE_0: Check = (lambda value: 0 < value <= 1e30), "a number above 0, at most 1e30"
_FRACTION: Check = (lambda value: 0 < value < 1), "a number in (0, 1)"
_SEED: Check = (lambda value: 0 <= value < 2**32), "0 .. 2**32 - 1"
_RANGES = {
    "model.alpha": ((lambda a: 1 / 32 <= a <= 16), "a width of 1/32 (one channel) to 16, above 0"),
    "model.batch_norm_momentum": ((lambda m: 0 <= m < 1), "a momentum in [0, 1)"),
    "model.dropout": ((lambda rate: 0 <= rate < 1), "a rate in [0, 1)"),
    "model.kernel_sizes": (_distinct_odd_numbers, "distinct odd whole numbers"),
    "data.image_size": _at_least(32, " pixels", most=4096),
    "data.window_centre": ((lambda hu: -2000 <= hu <= 5000), "-2000 to 5000 HU"),
    "data.window_width": ((lambda hu: 1 < hu <= 65_536), "above 1, at most 65,536 HU"),
    "data.max_tilt": ((lambda degrees: 0 <= degrees <= 45), "0 to 45 degrees"),
    "data.validation_fraction": _FRACTION,
    "data.folds": _at_least(2, most=1000),
    "data.phantom_patients": _at_least(10, most=100_000),
    "data.phantom_seed": _SEED,
    "data.rsna_beyond": ((lambda mm: 0 <= mm <= 1000), "0 to 1000 mm"),
    "data.rsna_every": _at_least(1, most=1000),
    "optim.learning_rate": _ABOVE_0,
    "optim.epsilon": _ABOVE_0,
    "optim.plateau_factor": _FRACTION,
    "optim.plateau_patience": _at_least(1),
    "train.early_stopping": _at_least(0),
    "train.epochs": _at_least(1),
    "train.batch_size": _at_least(2, most=65_536),  # BatchNorm needs two
    "train.steps_per_dispatch": _at_least(1, most=1024),
    "train.log_every": _at_least(1),
    "train.seed": _SEED,
    "eval.batch_size": _at_least(1, most=65_536),
    "eval.threshold": _FRACTION,
}


def _value(config: Any, path: str) -> Any:
    section, field = path.split(".")
    return getattr(getattr(config, section), field)


def _choice_problems(config: Any) -> list[str]:
    values = {path: _value(config, path) for path in CHOICES}
    return [
        f"{path}: expected one of {', '.join(CHOICES[path])}; got {value!r}"
        for path, value in values.items()
        if value not in CHOICES[path]
    ]


def _range_problems(config: Any) -> list[str]:
    return [
        f"{path}: expected {expected}, got {_value(config, path)!r}"
        for path, (is_right, expected) in _RANGES.items()
        if not is_right(_value(config, path))
    ]


def _source_problems(data: Any) -> list[str]:
    problems = []
    if data.source in ("folder", "rsna2022") and not data.root:
        problems.append(
            f"data.root: source {data.source!r} needs the data set's folder; none was given"
        )
    if (data.source == "manifest") != bool(data.manifest):
        problems.append(
            "data.manifest: source 'manifest' needs its table of labels, a CSV file, and no other "
            f"source has one; got {data.manifest!r} with source {data.source!r}"
        )
    if data.source == "manifest" and data.root:
        problems.append("data.root: paths of a table start from its own folder; leave it out")
    if data.source in ("phantom", "rsna2022") and data.protocol != "kfold":
        problems.append(
            f"data.protocol: source {data.source!r} is split by patient (kfold), got "
            f"{data.protocol!r}"
        )
    needed = 8 * data.phantom_patients * data.image_size**2  # eight slices per patient, in bytes
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if data.source == "phantom" and needed > memory:
        problems.append(
            f"data.phantom_patients: {data.phantom_patients:,} patients at {data.image_size} "
            f"pixels need {needed / 1e9:,.0f} GB, there are {memory / 1e9:,.0f} GB"
        )
    return problems


def _combination_problems(config: Any) -> list[str]:
    model, data = config.model, config.data
    problems = [*_class_problems(data), *_source_problems(data)]
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
