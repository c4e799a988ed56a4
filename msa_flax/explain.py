"""Explain predictions: python -m msa_flax.explain --workdir DIR --out DIR2 IMAGE...

IMAGE is an image file, a DICOM slice, a folder of them, or the example id of an image of the run's
own data. Its probability is printed, and DIR2 receives one picture of it: the image, and beside it
what speaks for the positive class by each --method; explanations.csv has a row for each. With
--maps the files of every map are written instead: overlays for both classes, raw maps (.npy), and
attention maps.

With --split test instead of images a whole split is explained (--limit so many per class) into
eval/test/explanations/, all maps of it and contact_sheet.png. On the phantom, whose fractures are
known, the command says which share of the Grad-CAM maps lies on the fractures.

Methods: gradcam, gradcam_plus_plus, hirescam, xgradcam, layercam, eigencam, eigen_gradcam,
score_cam, ablation_cam, integrated_gradients, smoothgrad, occlusion; and the controls random_map
and centre_prior. Other spellings are understood: GradCAM++, grad-cam, ScoreCAM, "Eigen-Grad-CAM".

With --faithfulness the maps are tested on one image per family, beside a random map and a prior of
the centre: what happens to the score when the pixels that a map names are removed, and how maps
change with the image and with the weights. faithfulness.md and .json have the table and the
verdicts: is a method better than the controls on this model?
"""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from absl import flags

from msa_flax import cli

if TYPE_CHECKING:
    from msa_flax.data.examples import Examples
    from msa_flax.run import Run

TESTED = 100  # images per class on which --faithfulness tests by default


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "folder of the trained run")
    cli.define_moved(values)
    flags.DEFINE_list("images", [], "set by the arguments IMAGE...", flag_values=values)
    flags.DEFINE_string("out", None, "folder for the results", flag_values=values)
    how = "methods, separated by commas, or all; case, - and _ do not matter"
    flags.DEFINE_list("method", ["gradcam"], how, flag_values=values)
    flags.DEFINE_string(
        "layer", None, "explain this layer instead of the backbone's last", flag_values=values
    )
    flags.DEFINE_enum(
        "split", None, ["validation", "test"], "explain this split's images", flag_values=values
    )
    flags.DEFINE_integer(
        "limit",
        None,
        "with --split: at most so many images per class; 0: all (the default; with --faithfulness "
        f"it is {TESTED})",
        0,
        flag_values=values,
    )
    few = (
        "with --split: at most so many of those images per class for methods that need hundreds of "
        "passes per image; 0: as many as for the others"
    )
    flags.DEFINE_integer("limit_forward", 16, few, 0, flag_values=values)
    what = "with images: write the files of every map, raw ones too, instead of one picture"
    flags.DEFINE_boolean("maps", False, what, flag_values=values)
    flags.DEFINE_boolean("faithfulness", False, "with --split: test the maps", flag_values=values)
    cli.define_checkpoint(values)


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
    if names and args.faithfulness:
        raise cli.UsageError("--faithfulness: expected --split test or validation, got images")
    if names and args.limit is not None:
        raise cli.UsageError("--limit: expected --split test or validation with it, got images")
    _check_out(args.out)
    from msa_flax import saliency
    from msa_flax.results.maps import explain_split
    from msa_flax.run import restore
    from msa_flax.training.xla import prepare_jax

    methods = list(saliency.choose(args.method))
    prepare_jax()
    taken = {"root": args.moved_to, "accept_changes": args.accept_changes}
    run = restore(workdir, checkpoint_name=args.checkpoint, **taken)
    out = Path(args.out) if args.out else None
    if not split:
        assert out is not None
        _explain_images(run, args, methods, out)
        return
    limit = args.limit if args.limit is not None else TESTED * args.faithfulness
    explain_split(
        run,
        split=split,
        methods=methods,
        layer=args.layer,
        limit=limit,
        limit_forward=args.limit_forward,
        faithfulness=args.faithfulness,
        out=out,
    )


def _check_out(out: str | None) -> None:
    """Refuses a folder that holds anything but explanations, such as a data set."""
    cli.check_folder("--out", out)
    if not out or not Path(out).is_dir() or (Path(out) / "explanations.csv").is_file():
        return
    kinds = {".png", ".npy", ".tmp"}  # of a command that did not get to its table
    others = [one.name for one in Path(out).iterdir() if one.is_dir() or one.suffix not in kinds]
    if others:
        raise cli.UsageError(
            f"--out: expected a new folder, or one of earlier explanations; {out} holds other "
            f"files, such as {min(others)!r}"
        )


def _explain_images(run: "Run", args: SimpleNamespace, methods: list[str], out: Path) -> None:
    """Explains the images that can be read; names the others at the end, as an error."""
    from msa_flax.data import DataError
    from msa_flax.data.folder import first_reasons
    from msa_flax.results.maps import write_maps

    chosen, bad = _find_images(run, args.images)
    found = run.explain(chosen.images, methods=methods, layer=args.layer)
    write_maps(run, out, methods, [(chosen, found)], one_picture=not args.maps)
    if bad:
        raise DataError(
            f"{len(bad)} of {len(chosen) + len(bad)} files cannot be explained: "
            f"{first_reasons(bad)}; the others are explained in {out}"
        )


def _find_images(run: "Run", names: list[str]) -> "tuple[Examples, list[tuple[str, str]]]":
    """Returns the images named on the command line, and (name, reason) of what cannot be read.

    They are files and folders, or ids of the run's own data.
    """
    import numpy as np

    from msa_flax import data
    from msa_flax.data.folder import first_reasons
    from msa_flax.prediction.inputs import find_inputs

    places = [name for name in dict.fromkeys(names) if Path(name).exists()]
    ids = [name for name in names if name not in places]
    if not ids:
        inside = find_inputs([name for name in places if Path(name).is_dir()], run.config.data)
        files = [name for name in places if Path(name).is_file()]
        files += dict.fromkeys(str(one.file) for one in inside.slices)
        if not files:
            raise data.DataError(f"no file can be explained: {first_reasons(inside.refused)}")
        found = data.load_files(list(dict.fromkeys(files)), run.config.data, skip=True)
        return found, sorted([*inside.refused, *found.bad_files])
    known = run.data.examples
    missing = sorted(set(ids) - set(known.example_id.tolist()))
    if missing or places:
        raise data.DataError(
            "expected image files, or example ids of the run's data, not both; neither a file nor "
            f"an id: {', '.join(missing) or 'none'}"
        )
    return known.take(np.flatnonzero(np.isin(known.example_id, ids))), []


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
