"""What the files of a run say of it, as sentences for the summary, the card and the checklist.

A sentence is "" where the files say nothing.
"""

from typing import Any

from msa_flax.evaluation.summary import TABLE4
from msa_flax.reporting import maps
from msa_flax.reporting.gallery import method_title
from msa_flax.reporting.saved import SPLITS, SavedRun
from msa_flax.reporting.text import with_interval


def get(values: Any, path: str, default: Any = "") -> Any:
    """Returns the value at "section.field" of nested dictionaries, or the default."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return default if values is None else values


def network(run: SavedRun) -> str:
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
    head = f"head {get(config, 'model.head')}, one output"
    parts.append(f"{head}: the probability of {run.classes[1]!r}")
    size = get(config, "data.image_size")
    parts.append(f"input {size} x {size} pixels")
    if weights.get("parameters"):
        parts.append(f"{weights['parameters']:,} parameters in the loaded weights")
    return "; ".join(parts) + "."


def initial_weights(run: SavedRun) -> str:
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
    if weights.get("note"):
        said += f"; {weights['note']}"
    return f"{said}; {len(kept)} other tensors random, seed {seed}."


def training(run: SavedRun) -> str:
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


def sizes(run: SavedRun) -> str:
    """Says how many images are in which split."""
    return ", ".join(f"{name} {run.sizes[name]}" for name in SPLITS if run.sizes[name])


def partitions(run: SavedRun) -> str:
    """Says how many images are in which split, and by what protocol."""
    protocol = get(run.config, "data.protocol")
    return f"Protocol {protocol!r}: {sizes(run)} images." if protocol else f"{sizes(run)} images."


def disjoint(run: SavedRun) -> str:
    """Says what the splits share."""
    stamps = run.metrics["stamps"]
    if "groups unknown" in stamps and run.split in SPLITS:
        more = " Copies of one slice cross it." if "copies cross the split" in stamps else ""
        return "It is not known which images belong to one patient or series." + more
    if stamps:
        return f"Not disjoint: {'; '.join(stamps)}."
    if run.split not in SPLITS:
        return "None of these images was found among those of training and validation."
    return "No copy of a slice, and no known group, is in two splits."


def main_numbers(run: SavedRun) -> str:
    """Returns the metrics of the paper's table with their intervals as one line."""
    entries = run.metrics["metrics"]
    parts = [f"{name} {with_interval(entries[name])}" for name in TABLE4 if name in entries]
    return f"On {run.metrics['n']} images of {run.split}: {', '.join(parts)}."


def software(run: SavedRun) -> str:
    """Returns the versions of the software."""
    versions = run.run.get("versions") or {}
    own = [f"msa_flax {run.run['msa_flax']}"] if run.run.get("msa_flax") else []
    return ", ".join([*own, *(f"{name} {version}" for name, version in versions.items())])


def phantom(run: SavedRun) -> str:
    """Says so where the images are those of the synthetic phantom."""
    source = get(run.config, "data.source")
    return "synthetic phantom, no patients" if source == "phantom" else ""


def data(run: SavedRun) -> str:
    """Says where the images come from."""
    if other := run.metrics.get("root"):
        return f"External: images of {other!r}, not of the data set that the network learned from."
    if phantom(run):
        return "Synthetic images of a phantom (no patients)."
    fingerprint = run.run.get("data_fingerprint")
    shown = f"; fingerprint {fingerprint[:16]}..." if fingerprint else ""
    table = get(run.config, "data.manifest")
    where = f"table {table!r}" if table else f"folder {get(run.config, 'data.root')!r}"
    return f"Images of the {where}{shown}. Where they come from is for the authors."


def preprocessing(run: SavedRun) -> str:
    """Says what is done with an image before the network sees it."""
    size = get(run.config, "data.image_size")
    said = (
        f"Grey, resized to {size} x {size}; scaled as {get(run.config, 'data.preprocess')!r}; "
        f"histogram equalisation: {get(run.config, 'data.equalize')}."
    )
    return said if size else ""


def included(run: SavedRun) -> str:
    """Says how many images are in the data, and how many files were left out."""
    total, bad = run.run.get("images"), run.run.get("bad_files") or []
    said = f"{total} images included, {len(bad)} unreadable files left out; nothing was imputed."
    return "" if total is None else said


def uncertainty(run: SavedRun) -> str:
    """Says how the intervals were made."""
    found = {str(entry.get("method", "none")) for entry in run.metrics["metrics"].values()}
    methods = sorted(found - {"none"})
    if not methods:
        return "No metric has an interval: the summary says why."
    some = " Not every metric has one." if "none" in found else ""
    return f"95 % intervals: {', '.join(methods)}; see the summary.{some}"


def explanations(run: SavedRun) -> str:
    """Says which maps there are, and whether they were tested."""
    if not run.explained:
        return ""
    methods = dict.fromkeys(name for item in run.explained for name in item.methods)
    tested = "tested" if maps.verdicts(run) else "not tested"
    return (
        f"{', '.join(map(method_title, methods))}, and attention maps where the network has "
        f"attention; {len(run.explained)} images explained. The maps are {tested}: see the section "
        "on it."
    )


def failures(run: SavedRun) -> str:
    """Says how many errors there are."""
    counts = run.metrics["confusion"]
    return f"{counts['fn']} missed images of {run.classes[1]!r}, {counts['fp']} false alarms."


def code(run: SavedRun) -> str:
    """Says at which commit the software was."""
    commit = run.run.get("commit")
    return f"Software at commit {commit}; data and weights are for the authors." if commit else ""
