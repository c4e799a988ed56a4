"""Explain predictions: python -m msa_flax.explain --workdir DIR --out DIR2 IMAGE...

IMAGE is an image file, or the example id of an image of the run's own data. With --split test
instead of images a whole split is explained (--limit so many a class). For each image the folder
--out receives the image, the Grad-CAM overlays for fracture and for normal, the raw maps (.npy)
and the attention maps; explanations.csv lists them. On the phantom, whose fractures are known, the
share of the map's mass on the fracture is given.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from absl import flags

from msa_flax import cli

if TYPE_CHECKING:
    import numpy as np

    from msa_flax.api import Run
    from msa_flax.data.examples import Examples
    from msa_flax.data.splits import Splits
    from msa_flax.saliency import Explanations

FIGURE_CASES = 4  # images a class in the figure that training draws (paper 1 Figure 4)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "folder of the trained run")
    flags.DEFINE_list("images", [], "set by the arguments IMAGE...", flag_values=values)
    flags.DEFINE_string("out", None, "folder for the results", flag_values=values)
    flags.DEFINE_enum(
        "split", None, ["validation", "test"], "explain this split's images", flag_values=values
    )
    flags.DEFINE_integer(
        "limit", 0, "with --split: at most so many images a class; 0: all", 0, flag_values=values
    )
    flags.DEFINE_enum(
        "checkpoint",
        "best",
        ["best", "last"],
        "lowest validation loss, or the newest",
        flag_values=values,
    )


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    workdir = cli.workdir(args, trained=True)
    names, split = args.images, args.split
    if bool(names) == bool(split):
        raise cli.UsageError(
            "expected either images or --split, got " + ("both" if split else "neither")
        )
    if names and not args.out:
        raise cli.UsageError("--out: expected a folder for the results, got nothing")
    from msa_flax import api, evaluate

    api.prepare_jax()
    run = api.restore(workdir, checkpoint_name=args.checkpoint)
    out = Path(args.out) if args.out else None
    if split:
        examples, splits, stamps = evaluate.read_data(run.workdir, run.config)
        explain_split(run, examples, splits, stamps, split=split, limit=args.limit, out=out)
    else:
        chosen = _find_images(run, names)
        assert out is not None
        _write(run, chosen, run.explain(chosen.images), out)


def explain_split(
    run: "Run",
    examples: "Examples",
    splits: "Splits",
    stamps: list[str],
    *,
    split: str = "test",
    limit: int = 0,
    out: Path | None = None,
) -> None:
    """Explains images of a split, writes ``eval/<split>/explanations/`` and paper 1's Figure 4.

    Args:
        run: a restored run.
        examples: the run's data.
        splits: its split table.
        stamps: what is wrong with the split; written into the figure.
        split: "validation" or "test".
        limit: images a class, evenly spaced in the order of their ids; 0 for all.
        out: another folder.
    """
    import numpy as np

    rows = splits.indices(split)
    if limit:
        rows = np.concatenate(
            [
                _spaced(rows[examples.label[rows] == k], limit)
                for k in np.unique(examples.label[rows])
            ]
        )
    chosen = examples.take(rows)
    found = run.explain(chosen.images)
    _write(run, chosen, found, out or run.results(split) / "explanations")
    if chosen.masks is not None:
        everything = examples.take(splits.indices(split)) if limit else chosen
        report_mass(run, everything, run.explain(everything.images) if limit else found)
    _draw(run, chosen, found, split, stamps)


def report_mass(run: "Run", examples: "Examples", found: "Explanations") -> None:
    """Prints how much of the maps' mass lies on the known fractures, for detected fractures."""
    import numpy as np

    from msa_flax.evaluation.predictions import sigmoid

    assert examples.masks is not None
    detected = (examples.label == 1) & (sigmoid(found.logit) >= run.config.eval.threshold)
    mass = found.mass(examples.masks)[detected]
    defined = mass[~np.isnan(mass[:, 0])]
    if len(defined) == 0:
        print("Grad-CAM on detected fractures: none detected, nothing to measure")
        return
    inside, area = defined.mean(axis=0)
    print(
        f"Grad-CAM on {len(mass)} detected fractures: {inside:.3f} of the map's mass lies inside "
        f"the widened fracture mask, which covers {area:.3f} of the image "
        f"(ratio {inside / area:.1f}); {len(mass) - len(defined)} maps are all zero"
    )


def _spaced(rows: "np.ndarray", count: int) -> "np.ndarray":
    import numpy as np

    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def _find_images(run: "Run", names: list[str]) -> "Examples":
    """Returns the images named on the command line: files, or ids of the run's own data."""
    import numpy as np

    from msa_flax import evaluate
    from msa_flax.data import DataError, examples, preprocess

    files = [name for name in dict.fromkeys(names) if Path(name).is_file()]
    ids = [name for name in names if name not in files]
    pictures = [preprocess.read_image(Path(name)) for name in files]
    blank = {"label": -1, "group": "", "family": "", "slice_index": -1, "part": ""}
    rows = [
        {**blank, "example_id": name, "height": picture.shape[0], "width": picture.shape[1]}
        for name, picture in zip(files, pictures, strict=True)
    ]
    size, equalize = run.config.data.image_size, run.config.data.equalize
    resized = [preprocess.preprocess(p, size=size, equalize=equalize) for p in pictures]
    images = np.array(resized, np.uint8).reshape(-1, size, size)
    if not ids:
        return examples.from_rows(rows, images)
    known, _, _ = evaluate.read_data(run.workdir, run.config)
    missing = sorted(set(ids) - set(known.example_id.tolist()))
    if missing or files:
        raise DataError(
            "expected image files, or example ids of the run's data, not both; neither a file nor "
            f"an id: {', '.join(missing) or 'none'}"
        )
    return known.take(np.flatnonzero(np.isin(known.example_id, ids)))


def _write(run: "Run", examples: "Examples", found: "Explanations", out: Path) -> None:
    from msa_flax import saliency
    from msa_flax.evaluation.predictions import sigmoid, write_atomically

    table = saliency.write_explanations(
        out,
        found,
        example_id=examples.example_id,
        label=examples.label,
        probability=sigmoid(found.logit),
        images=examples.images,
        masks=examples.masks,
    )
    write_atomically(out / "explanations.csv", table.encode("utf-8", "surrogateescape"))
    zero = int((found.fracture.max(axis=(1, 2)) == 0).sum())
    print(
        f"{len(examples)} images explained in {out} ({zero} maps for fracture are all zero and "
        f"shown as the plain image); checkpoint {run.checkpoint}, step {run.step}; {cli.NOTICE}"
    )


def _draw(
    run: "Run", examples: "Examples", found: "Explanations", split: str, stamps: list[str]
) -> None:
    """Draws paper 1's Figure 4: the predicted class's map, row A normal, row B fracture."""
    import numpy as np

    from msa_flax import saliency
    from msa_flax.evaluation import figures
    from msa_flax.evaluation.predictions import sigmoid

    probabilities = sigmoid(found.logit)
    rows: dict[str, list[figures.Case]] = {}
    for label, name in enumerate(run.config.data.classes):
        members = _spaced(np.flatnonzero(examples.label == label), FIGURE_CASES)
        rows[name] = []
        for i in members if (examples.label == label).any() else []:
            maps = found.fracture if probabilities[i] >= run.config.eval.threshold else found.normal
            rows[name].append(
                figures.Case(
                    example_id=str(examples.example_id[i]),
                    probability=float(probabilities[i]),
                    image=examples.images[i],
                    overlay=saliency.overlay(examples.images[i], maps[i]),
                )
            )
    figures.gradcam_panel(
        rows,
        run.workdir / "figures" / f"gradcam_{run.results(split).name}.png",
        f"Grad-CAM for the predicted class ({split})",
        stamps,
    )


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
