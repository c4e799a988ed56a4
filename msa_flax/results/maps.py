"""Maps of the images of a run: pictures, raw maps, ``explanations.csv``, and trials of the maps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msa_flax import saliency
from msa_flax.data.examples import Examples
from msa_flax.data.layout import printable
from msa_flax.evaluation.predictions import WORST, Predictions, sigmoid
from msa_flax.files import NOTICE, write_json, write_text
from msa_flax.plots import sheets
from msa_flax.run import Run
from msa_flax.saliency import Explanations

FIGURE_CASES = 4  # images per class in the figure that training draws (paper 1 Figure 4)
SHEET_CASES = 6  # images per class on the contact sheet

Part = tuple[Examples, Explanations]  # images, and the maps of some methods that were made of them


def explain_split(
    run: Run,
    *,
    split: str = "test",
    methods: Sequence[str] = ("gradcam",),
    layer: str | None = None,
    limit: int = 0,
    limit_forward: int = 16,
    faithfulness: bool = False,
    out: Path | None = None,
) -> None:
    """Explains images of a split, writes ``eval/<split>/explanations/`` and paper 1's Figure 4.

    Args:
        run: a restored run.
        split: its name.
        methods: keys of ``msa_flax.saliency.METHODS``.
        layer: see :meth:`msa_flax.run.Run.explain`.
        limit: images per class, evenly spaced in the order of their ids; 0 for all.
        limit_forward: of those, for methods that are ``forward_only``; 0 for all of those.
        faithfulness: whether to test the maps too.
        out: another folder.
    """
    chosen = saliency.choose(methods, layer=layer)
    forward = [name for name, method in chosen.items() if method.forward_only]
    fine = [name for name, method in chosen.items() if method.fine]
    coarse = [name for name in chosen if name not in (*forward, *fine)]
    whole = run.data.take(split)
    sampled = whole.take(whole.first_of_each_family()) if faithfulness else whole
    folder = out or run.results(split) / "explanations"
    many = _spaced(sampled, limit)
    parts = []
    for names, taken in ((coarse, many), (fine, many), (forward, _spaced(many, limit_forward))):
        if names:
            parts.append((taken, run.explain(taken.images, methods=names, layer=layer)))
    write_maps(run, folder, list(chosen), parts)
    _draw_contact_sheet(run, folder / "contact_sheet.png", parts, split)
    if "gradcam" in coarse:
        if whole.masks is not None:
            taken, found = parts[0]
            if len(taken) < len(whole):
                taken, found = whole, run.explain(whole.images, layer=layer)
            print(_mass_on_fractures(run, taken, found))
        figures = folder if out else run.workdir / "figures"
        path = figures / f"gradcam_{run.results(split).name}.png"
        _draw_gradcam_panel(run, path, parts[0], split)
    if faithfulness:
        _examine(run, folder, parts, split, layer=layer)


def explain_errors(run: Run, *, split: str, threshold: float) -> None:
    """Explains the worst errors of an evaluated split, writes ``eval/<split>/errors/``.

    The gallery of a report begins with them. Where there is no error the table is empty.

    Args:
        run: a restored run.
        split: its name.
        threshold: the one that the split was evaluated with.
    """
    table, parts = Predictions.read(run.results(split) / "predictions.csv"), []
    rows = [table.worst_first(outcome, threshold)[:WORST] for outcome in ("fn", "fp")]
    whole = run.data.take(split)
    chosen = np.isin(whole.example_id, table.example_id[np.concatenate(rows)])
    if chosen.any():
        errors = whole.take(np.flatnonzero(chosen))
        parts.append((errors, run.explain(errors.images)))
    write_maps(run, run.results(split) / "errors", ["gradcam"], parts)


def write_maps(
    run: Run, out: Path, methods: Sequence[str], parts: Sequence[Part], *, one_picture: bool = False
) -> None:
    """Writes the files of all images and ``explanations.csv``, and says what was written.

    Args:
        run: a restored run.
        out: the folder.
        methods: that explained the images.
        parts: images and their maps.
        one_picture: see :func:`msa_flax.saliency.write_explanations`; then probabilities are
            printed too.
    """
    rows, classes = [], run.config.data.classes
    for examples, found in parts:
        rows += saliency.write_explanations(
            out,
            found,
            example_id=examples.example_id,
            label=examples.label,
            images=examples.images,
            classes=classes,
            masks=examples.masks,
            one_picture=one_picture,
        )
        if one_picture:
            for name, p in zip(examples.example_id, sigmoid(found.logit), strict=True):
                print(f"{printable(str(name))}: probability of {classes[1]!r} {p:.4f}")
    write_text(out / "explanations.csv", saliency.explanations_csv(rows, classes))
    zero = sum(
        int((maps["fracture"].max(axis=(1, 2)) <= 0).sum())
        for _, found in parts
        for maps in found.maps.values()
    )
    images = max((len(examples) for examples, _ in parts), default=0)
    print(
        f"images explained in {out}: {images}, by {', '.join(methods)}; maps in which nothing "
        f"speaks for {classes[1]!r}, shown as the plain image: {zero}; checkpoint "
        f"{run.checkpoint}, step {run.step}; {NOTICE}"
    )


def _spaced(examples: Examples, limit: int) -> Examples:
    """Returns at most so many images per class; of fewer, so that all methods share some."""
    return examples.take(sorted(row for rows in examples.spaced(limit).values() for row in rows))


def _predicted_fracture(run: Run, found: Explanations) -> np.ndarray:
    return sigmoid(found.logit) >= run.config.eval.threshold


def _mass_on_fractures(run: Run, examples: Examples, found: Explanations) -> str:
    """Says how much of the Grad-CAM maps lies on the fractures that the run has detected."""
    assert examples.masks is not None
    detected = (examples.label == 1) & _predicted_fracture(run, found)
    return saliency.mass_report(found, examples.masks, detected, run.config.data.classes[1])


def _examine(run: Run, out: Path, parts: Sequence[Part], split: str, *, layer: str | None) -> None:
    """Tests the maps, writes ``faithfulness.json`` and ``.md``, prints the table."""
    other = run.with_random_weights()
    examined = [
        saliency.examine(
            lambda images, methods: run.explain(images, methods=methods, layer=layer),
            lambda images, methods: other.explain(images, methods=methods, layer=layer),
            run.predict,
            found if i == 0 else dataclasses.replace(found, attention={}),  # tested once
            images=examples.images,
            signs=np.where(_predicted_fracture(run, found), 1, -1),
            groups=examples.group,
            masks=examples.masks,
            at_layer=layer is not None,
            settings=saliency.Settings(batch_size=run.config.eval.batch_size),
        )
        for i, (examples, found) in enumerate(parts)
    ]
    stamps = run.data.stamps
    about = {"split": split, "layer": layer, "step": run.step, "checkpoint": run.checkpoint}
    tables = {"stamps": stamps, **saliency.examination_json(examined)}
    write_json(out / "faithfulness.json", {**about, **tables})
    text = "\n".join([*map(saliency.examination_text, examined), *stamps, NOTICE, ""])
    write_text(out / "faithfulness.md", text)
    print(text, end="")


def _with_maps(
    run: Run, examples: Examples, parts: Sequence[Part], rows: Sequence[int] | np.ndarray
) -> list[sheets.ImageWithMaps]:
    """Returns images with the maps, of all parts, of the class that was predicted."""
    members = []
    for i in rows:
        overlays, name, probability = [], str(examples.example_id[i]), 0.0
        for others, found in parts:
            (at,) = (others.example_id == name).nonzero()[0]
            probability = float(sigmoid(found.logit)[at])
            target = "fracture" if _predicted_fracture(run, found)[at] else "normal"
            overlays += [
                saliency.overlay(examples.images[i], maps[target][at])
                for maps in found.maps.values()
            ]
        members.append(
            sheets.ImageWithMaps(
                example_id=name,
                probability=probability,
                image=examples.images[i],
                overlays=overlays,
                positive=run.config.data.classes[1],
                title=run.config.data.classes[int(examples.label[i])],
            )
        )
    return members


def _draw_gradcam_panel(run: Run, path: Path, part: Part, split: str) -> None:
    """Draws paper 1's Figure 4: the predicted class's map, row A normal, row B fracture."""
    examples, found = part
    only = dataclasses.replace(found, maps={"gradcam": found.maps["gradcam"]})
    rows = {
        run.config.data.classes[label]: _with_maps(run, examples, [(examples, only)], members)
        for label, members in examples.spaced(FIGURE_CASES).items()
    }
    title = f"Grad-CAM for the predicted class ({split})"
    sheets.gradcam_panel(rows, path, title, run.data.stamps)


def _draw_contact_sheet(run: Run, path: Path, parts: Sequence[Part], split: str) -> None:
    """Draws some images of each class that all methods have explained, with all maps."""
    fewest = min((examples for examples, _ in parts), key=len)
    rows = [row for members in fewest.spaced(SHEET_CASES).values() for row in members]
    titles = [saliency.TITLES[name] for _, found in parts for name in found.maps]
    images, title = _with_maps(run, fewest, parts, rows), f"Maps of the predicted class ({split})"
    sheets.contact_sheet(images, titles, path, title, run.data.stamps)
