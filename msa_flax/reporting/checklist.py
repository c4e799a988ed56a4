"""The reporting checklist CLAIM, filled from a run's own files where they say something.

Items by the numbers of CLAIM's 2024 update (Tejani et al., Radiology: Artificial Intelligence 2024,
6(4), e240300), in our words. What the files do not say is for the authors, and is said to be.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from msa_flax.evaluation.summary import TABLE4
from msa_flax.reporting import maps, points
from msa_flax.reporting.artefacts import SPLITS, Artefacts
from msa_flax.reporting.gallery import TITLES

NOT_STATED = "Not stated by the software: to be filled by the authors."

Fill = Callable[[Artefacts], str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item, answered from the files or left to the authors."""

    number: int
    section: str
    asks: str
    answer: str  # NOT_STATED where the files say nothing

    @property
    def stated(self) -> bool:
        """Whether the files say something."""
        return self.answer != NOT_STATED


def checklist(run: Artefacts) -> list[Item]:
    """Returns all 44 items."""
    return [
        Item(
            number=number,
            section=section,
            asks=asks,
            answer=(fill(run) if fill else "") or NOT_STATED,
        )
        for number, (section, asks, fill) in enumerate(_ITEMS, 1)
    ]


def get(values: Any, path: str, default: Any = "") -> Any:
    """Returns the value at "section.field" of nested dictionaries, or the default."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return default if values is None else values


def network(run: Artefacts) -> str:
    """Says what the network is."""
    config, weights = run.config, run.run.get("weights") or {}
    if not get(config, "model.backbone"):
        return ""
    attention = get(config, "model.attention")
    parts = [f"{get(config, 'model.backbone')} (width {get(config, 'model.alpha')})"]
    if attention == "msa":
        kernels = get(config, "model.kernel_sizes", [])
        parts.append(f"multi-scale spatial attention, kernels {', '.join(map(str, kernels))}")
    elif attention and attention != "none":
        parts.append(f"{attention} attention")
    parts.append(f"head {get(config, 'model.head')}, one output: the probability of a fracture")
    size = get(config, "data.image_size")
    parts.append(f"input {size} x {size} pixels")
    if weights.get("parameters"):
        parts.append(f"{weights['parameters']:,} parameters in the loaded weights")
    return "; ".join(parts) + "."


def initial(run: Artefacts) -> str:
    """Says what training started from."""
    pretrained, weights = get(run.config, "model.pretrained"), run.run.get("weights") or {}
    if not pretrained:
        return ""
    seed = get(run.config, "train.seed")
    if pretrained == "none":
        return f"Random, seed {seed}; no pretrained weights."
    kept = weights.get("kept_initial", [])
    said = f"Pretrained backbone from {weights.get('source', pretrained)}"
    if weights.get("hash"):
        said += f" (SHA-256 of its tensors {weights['hash'][:16]}...)"
    return f"{said}; {len(kept)} other tensors random, seed {seed}."


def training(run: Artefacts) -> str:
    """Says how the network was trained."""
    config = run.config
    if not get(config, "optim.name"):
        return ""
    frozen = get(config, "train.freeze_backbone", False)
    return (
        f"{get(config, 'optim.name')}, learning rate {get(config, 'optim.learning_rate')} "
        f"({get(config, 'optim.schedule')}), {get(config, 'train.epochs')} epochs of batches of "
        f"{get(config, 'train.batch_size')}, {get(config, 'train.compute_dtype')}; augmentation "
        f"{get(config, 'data.augment')}; class weights {get(config, 'optim.class_weights')}; "
        f"backbone {'frozen' if frozen else 'trained'}."
    )


def partitions(run: Artefacts) -> str:
    """Says how many images are in which split, and by what protocol."""
    sizes = ", ".join(f"{name} {run.sizes[name]}" for name in SPLITS if run.sizes[name])
    protocol = get(run.config, "data.protocol")
    return f"Protocol {protocol!r}: {sizes} images." if protocol else f"{sizes} images."


def disjoint(run: Artefacts) -> str:
    """Says what the splits share."""
    stamps = run.metrics["stamps"]
    if "groups unknown" in stamps:
        more = " Copies of one slice cross it." if "copies cross the split" in stamps else ""
        return "It is not known which images belong to one patient or series." + more
    if stamps:
        return f"Not disjoint: {'; '.join(stamps)}."
    return "No copy of a slice, and no known group, is in two splits."


def main_numbers(run: Artefacts) -> str:
    """Returns the metrics of the paper's table with their intervals as one line."""
    parts = []
    for name, entry in run.metrics["metrics"].items():
        if name not in TABLE4:
            continue
        limits = points.interval(entry)
        parts.append(f"{name} {points.shown(entry['value'])}{' ' + limits if limits else ''}")
    return f"On {run.metrics['n']} images of {run.split}: {', '.join(parts)}."


def software(run: Artefacts) -> str:
    """Returns the versions of the software."""
    versions = run.run.get("versions") or {}
    own = [f"msa_flax {run.run['msa_flax']}"] if run.run.get("msa_flax") else []
    return ", ".join([*own, *(f"{name} {version}" for name, version in versions.items())])


def _data(run: Artefacts) -> str:
    source, root = get(run.config, "data.source"), get(run.config, "data.root")
    if source == "phantom":
        return "Synthetic images of a phantom (no patients)."
    fingerprint = run.run.get("data_fingerprint")
    shown = f"; fingerprint {fingerprint[:16]}..." if fingerprint else ""
    return f"Images of the folder {root!r}{shown}. Where they come from is for the authors."


def _preprocessing(run: Artefacts) -> str:
    size = get(run.config, "data.image_size")
    said = (
        f"Grey, resized to {size} x {size}; scaled as {get(run.config, 'data.preprocess')!r}; "
        f"histogram equalisation: {get(run.config, 'data.equalize')}."
    )
    return said if size else ""


def _missing(run: Artefacts) -> str:
    bad = run.run.get("bad_files")
    return "" if bad is None else f"{len(bad)} unreadable files left out; nothing was imputed."


def _selection(run: Artefacts) -> str:
    return "The checkpoint of the lowest validation loss; the test split has no part in it."


def _uncertainty(run: Artefacts) -> str:
    found = {str(entry.get("method", "none")) for entry in run.metrics["metrics"].values()}
    methods = sorted(found - {"none"})
    if not methods:
        return "No metric has an interval: the summary says why."
    some = " Not every metric has one." if "none" in found else ""
    return f"95 % intervals: {', '.join(methods)}; see the summary.{some}"


def _explanations(run: Artefacts) -> str:
    if not run.explained:
        return ""
    methods = dict.fromkeys(name for item in run.explained for name in item.methods)
    names = ", ".join(TITLES.get(name, name) for name in methods)
    tested = "tested" if maps.verdicts(run) else "not tested"
    return (
        f"{names}, and attention maps where the network has attention; {len(run.explained)} "
        f"images explained. The maps are {tested}: see the section on it."
    )


def _robustness(run: Artefacts) -> str:
    said = "What shortcuts reach on the same splits is in the section on the audit."
    return said if run.audit.get("ladder") else ""


def _failures(run: Artefacts) -> str:
    counts = run.metrics["confusion"]
    return f"{counts['fn']} missed fractures and {counts['fp']} false alarms; see the gallery."


def _internal(run: Artefacts) -> str:
    return f"This report: split {run.split!r}, {run.metrics['n']} images. {disjoint(run)}"


def _included(run: Artefacts) -> str:
    total, bad = run.run.get("images"), run.run.get("bad_files") or []
    return "" if total is None else f"{total} images included, {len(bad)} files left out."


def _limits(run: Artefacts) -> str:
    return f"At least this: {disjoint(run)}" if run.metrics["stamps"] else ""


def _code(run: Artefacts) -> str:
    commit = run.run.get("commit")
    said = f"Software at commit {commit}; data and weights are for the authors."
    return said if commit else ""


_TITLE, _INTRO, _DESIGN, _DATA = "Title and abstract", "Introduction", "Study design", "Data"
_TRUTH, _PARTS, _TEST, _MODEL = "Reference standard", "Partitions", "Testing data", "Model"
_TRAIN, _EVAL, _FOUND, _END = "Training", "Evaluation", "Results", "Discussion and other"
_ITEMS: list[tuple[str, str, Fill | None]] = [
    (_TITLE, "Is it said to be a study of AI, and of which kind?", None),
    (_TITLE, "Does the abstract summarise design, methods, results and conclusions?", None),
    (_INTRO, "Background, and the use and role that the system is meant for", None),
    (_INTRO, "Aims, objectives, hypotheses", None),
    (_DESIGN, "Prospective or retrospective", None),
    (_DESIGN, "Goal of the study", None),
    (_DATA, "Sources of the data", _data),
    (_DATA, "Whom and what was included and excluded", None),
    (_DATA, "Preprocessing", _preprocessing),
    (_DATA, "Selection of parts of the data", None),
    (_DATA, "De-identification", None),
    (_DATA, "Handling of missing data", _missing),
    (_DATA, "Protocol of image acquisition", None),
    (_TRUTH, "How the reference standard was obtained", None),
    (_TRUTH, "Why this reference standard", None),
    (_TRUTH, "Who annotated", None),
    (_TRUTH, "How the test set was annotated", None),
    (_TRUTH, "Variability between and within annotators", None),
    (_PARTS, "How data were assigned to partitions", partitions),
    (_PARTS, "Level at which partitions are disjoint", disjoint),
    (_TEST, "Intended size of the sample, and why", None),
    (_MODEL, "The model in detail", network),
    (_MODEL, "Software, libraries, versions", software),
    (_MODEL, "Initial parameters", initial),
    (_TRAIN, "Training in detail", training),
    (_TRAIN, "How the final model was chosen", _selection),
    (_TRAIN, "Ensembles", lambda run: "None: one network, one checkpoint."),
    (_EVAL, "Metrics of performance", lambda run: ", ".join(run.metrics["metrics"]) + "."),
    (_EVAL, "Measures of uncertainty and significance", _uncertainty),
    (_EVAL, "Robustness and sensitivity analysis", _robustness),
    (_EVAL, "Methods of explanation, and their validation", _explanations),
    (_EVAL, "Evaluation on internal data", _internal),
    (_EVAL, "Testing on external data", None),
    (_EVAL, "Registration of a clinical trial", None),
    (_FOUND, "Numbers included and excluded", _included),
    (_FOUND, "Demographic and clinical features of each partition", None),
    (_FOUND, "Performance with its uncertainty", main_numbers),
    (_FOUND, "Diagnostic performance and its precision", main_numbers),
    (_FOUND, "Analysis of failures", _failures),
    (_END, "Limitations", _limits),
    (_END, "What it means for practice", None),
    (_END, "Where the full protocol or more technical detail is", None),
    (_END, "Availability of software, model and data", _code),
    (_END, "Funding and the role of the funders", None),
]
