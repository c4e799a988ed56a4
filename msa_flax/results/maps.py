"""Maps of the images of a run: pictures, raw maps, ``explanations.csv``, and tests of the maps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from msa_flax import files, saliency
from msa_flax.data.examples import Examples
from msa_flax.evaluation.predictions import sigmoid
from msa_flax.files import write_atomically, write_json
from msa_flax.plots import sheets
from msa_flax.run import Run
from msa_flax.saliency import Explanations

FIGURE_CASES = 4  # images a class in the figure that training draws (paper 1 Figure 4)
SHEET_CASES = 6  # images a class on the contact sheet


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
        limit: images a class, evenly spaced in the order of their ids; 0 for all.
        limit_forward: of those, for methods that are ``forward_only``; 0 for all of those.
        faithfulness: whether to test the maps too.
        out: another folder.
    """
    chosen = saliency.choose(methods, layer=layer)
    forward = [name for name, method in chosen.items() if method.forward_only]
    fine = [name for name, method in chosen.items() if method.fine]
    coarse = [name for name in chosen if name not in (*forward, *fine)]
    whole, stamps = run.data.take(split), run.data.stamps
    sampled = whole.take(whole.one_a_family()) if faithfulness else whole
    folder = out or run.results(split) / "explanations"
    many = _spaced(sampled, limit)
    parts = []
    for names, taken in ((coarse, many), (fine, many), (forward, _spaced(many, limit_forward))):
        if names:
            parts.append((taken, run.explain(taken.images, methods=names, layer=layer)))
    write_maps(run, folder, list(chosen), parts)
    figures = folder if out else run.workdir / "figures"
    _draw_sheet(run, folder / "contact_sheet.png", parts, split, stamps)
    if "gradcam" in coarse:
        taken, found = parts[0]
        if whole.masks is not None:
            all_of_it = len(taken) == len(whole)
            everything = found if all_of_it else run.explain(whole.images, layer=layer)
            known = taken if everything is found else whole
            assert known.masks is not None
            called = sigmoid(everything.logit) >= run.config.eval.threshold
            print(saliency.mass_report(everything, known.masks, (known.label == 1) & called))
        path = figures / f"gradcam_{run.results(split).name}.png"
        _draw(run, path, (taken, found), split, stamps)
    if faithfulness:
        _test(run, folder, parts, split, stamps, layer=layer)


def _spaced(examples: Examples, limit: int) -> Examples:
    """Returns at most so many images a class; of fewer, so that all methods share some."""
    return examples.take(sorted(row for rows in examples.spaced(limit).values() for row in rows))


def _test(
    run: Run,
    out: Path,
    parts: Sequence[tuple[Examples, Explanations]],
    split: str,
    stamps: list[str],
    *,
    layer: str | None,
) -> None:
    """Tests the maps, writes ``faithfulness.json`` and ``.md``, prints the table."""
    other = run.with_random_weights()
    found = [
        saliency.examine(
            lambda images, methods: run.explain(images, methods=methods, layer=layer),
            lambda images, methods: other.explain(images, methods=methods, layer=layer),
            run.predict,
            explained if i == 0 else dataclasses.replace(explained, attention={}),
            images=examples.images,
            signs=np.where(sigmoid(explained.logit) >= run.config.eval.threshold, 1, -1),
            groups=examples.group,
            masks=examples.masks,
            at_layer=layer is not None,
            settings=saliency.Settings(batch_size=run.config.eval.batch_size),
        )
        for i, (examples, explained) in enumerate(parts)
    ]
    about = {"split": split, "layer": layer, "step": run.step, "checkpoint": run.checkpoint}
    tables = {"stamps": stamps} | saliency.examination_json(found)
    write_json(out / "faithfulness.json", about | tables)
    text = "\n".join([*(part.text() for part in found), *stamps, files.NOTICE, ""])
    write_atomically(out / "faithfulness.md", text.encode())
    print(text, end="")


def write_maps(
    run: Run,
    out: Path,
    methods: Sequence[str],
    parts: Sequence[tuple[Examples, Explanations]],
) -> None:
    """Writes maps, pictures and a table; ``parts`` are images with the maps made of them."""
    rows, images = [], 0
    for examples, found in parts:
        images = max(images, len(examples))
        rows += saliency.write_explanations(
            out,
            found,
            example_id=examples.example_id,
            label=examples.label,
            probability=sigmoid(found.logit),
            images=examples.images,
            masks=examples.masks,
        )
    table = saliency.table(rows).encode("utf-8", "surrogateescape")
    write_atomically(out / "explanations.csv", table)
    zero = sum(
        int((maps["fracture"].max(axis=(1, 2)) <= 0).sum())
        for _, found in parts
        for maps in found.maps.values()
    )
    print(
        f"images explained in {out}: {images}, by {', '.join(methods)}; maps in which nothing "
        f"speaks for fracture, shown as the plain image: {zero}; checkpoint {run.checkpoint}, "
        f"step {run.step}; {files.NOTICE}"
    )


def _with_maps(
    run: Run,
    examples: Examples,
    parts: Sequence[tuple[Examples, Explanations]],
    rows: Sequence[int] | np.ndarray,
) -> list[sheets.ImageWithMaps]:
    """Returns images with the maps, of all parts, of the class that was called."""
    members = []
    for i in rows:
        overlays, name, probability = [], str(examples.example_id[i]), 0.0
        for others, found in parts:
            (at,) = (others.example_id == name).nonzero()[0]
            probability = float(sigmoid(found.logit)[at])
            target = "fracture" if probability >= run.config.eval.threshold else "normal"
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
                title=run.config.data.classes[int(examples.label[i])],
            )
        )
    return members


def _draw(
    run: Run,
    path: Path,
    part: tuple[Examples, Explanations],
    split: str,
    stamps: list[str],
) -> None:
    """Draws paper 1's Figure 4: the predicted class's map, row A normal, row B fracture."""
    examples, found = part
    only = dataclasses.replace(found, maps={"gradcam": found.maps["gradcam"]})
    rows = {
        run.config.data.classes[label]: _with_maps(run, examples, [(examples, only)], members)
        for label, members in examples.spaced(FIGURE_CASES).items()
    }
    title = f"Grad-CAM for the predicted class ({split})"
    sheets.gradcam_panel(rows, path, title, stamps)


def _draw_sheet(
    run: Run,
    path: Path,
    parts: Sequence[tuple[Examples, Explanations]],
    split: str,
    stamps: list[str],
) -> None:
    """Draws some images of each class that all methods have explained, with all maps."""
    fewest = min((examples for examples, _ in parts), key=len)
    rows = [row for members in fewest.spaced(SHEET_CASES).values() for row in members]
    titles = [saliency.METHODS[name].title for _, found in parts for name in found.maps]
    sheets.contact_sheet(
        _with_maps(run, fewest, parts, rows),
        titles,
        path,
        f"Maps of the predicted class ({split})",
        stamps,
    )
