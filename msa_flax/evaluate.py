"""Evaluate a trained run on every example: python -m msa_flax.evaluate --workdir DIR.

Writes predictions.csv and metrics.json to DIR/eval/<split>/ (with --checkpoint last, to
DIR/eval/<split>-last/) and prints the metrics of the paper's Table 4. With --data_root DIR2 the
same model is evaluated on another folder (external validation), DIR2/{fracture,normal}/ or
DIR2/{train,val}/{fracture,normal}/, and with --manifest FILE.csv on the images of a table of
labels; --external names the result. These images are compared with those that the run was trained
or chosen on, and what is known already is said beside every number.

--calibrate fits temperature, isotonic regression, Venn-Abers and conformal prediction on the
validation split and stores them as DIR/checkpoints/calibration-<best or last>.json. From then on
every evaluation of other images with that checkpoint adds calibrated.csv and the sections
"calibration" and "conformal" of metrics.json, which leave everything else as it is.

--calibrate --sensitivity 0.95 also chooses the highest threshold that finds 95 % of new fractures,
guaranteed with 95 % confidence, and stores it in the same file. From then on every evaluation with
that checkpoint uses it instead of the configured one, until --calibrate runs without --sensitivity.

--level study also evaluates whole studies (or patients, where studies are unknown): one score is
made of the scores of a study's slices, in the way that does best on the validation studies, and
written to studies.csv and to the section "study" of metrics.json. With --sensitivity its threshold
is chosen to find that share of the studies with a fracture.
"""

import re
from pathlib import Path
from types import SimpleNamespace

from absl import flags

from msa_flax import cli


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "folder of the trained run")
    flags.DEFINE_enum(
        "split", "test", ["train", "validation", "test"], "what to evaluate", flag_values=values
    )
    cli.define_checkpoint(values)
    cli.define_moved(values)
    flags.DEFINE_string(
        "data_root", None, "evaluate on this folder of images instead", flag_values=values
    )
    flags.DEFINE_string(
        "manifest", None, "evaluate on the images of this table of labels instead", values
    )
    what = "name of the result of --data_root or --manifest, default: external"
    flags.DEFINE_string("external", None, what, values)
    flags.DEFINE_boolean(
        "replace",
        False,
        "replace the result of other images that has the name --external",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "calibrate",
        False,
        "first fit calibration and conformal prediction on the validation split",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "level", "slice", ["slice", "study"], "evaluate whole studies, too", flag_values=values
    )
    flags.DEFINE_float(
        "sensitivity",
        None,
        "with --calibrate or --level study: choose the threshold that finds this share of "
        "fractures, such as 0.95",
        flag_values=values,
    )
    flags.DEFINE_float(
        "conformal_alpha",
        0.1,
        "share of images of a class whose conformal set may miss it",
        flag_values=values,
    )


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    workdir = cli.workdir(args, trained=True)
    name = "external" if args.external is None else args.external
    own = name in ("train", "validation", "test")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) or name.endswith("-last") or own:
        raise cli.UsageError(
            "--external: expected up to 64 letters, digits, _ and -, no split's name and no -last "
            f"at its end; got {name!r}"
        )
    _check_others(args)
    alpha, sensitivity = args.conformal_alpha, args.sensitivity
    _check_share("conformal_alpha", alpha, 0.1)
    if sensitivity is not None:
        _check_share("sensitivity", sensitivity, 0.95)
        if args.calibrate == (args.level == "study"):
            raise cli.UsageError(
                "--sensitivity: the threshold is chosen when calibration is fitted, or of studies; "
                "add --calibrate or --level study, not both"
            )
    from msa_flax.data import load_external
    from msa_flax.results.scores import calibrate, evaluate_external, evaluate_split, report
    from msa_flax.run import restore
    from msa_flax.training.xla import prepare_jax

    prepare_jax()
    taken = {"root": args.moved_to, "accept_changes": args.accept_changes}
    run, results = restore(workdir, checkpoint_name=args.checkpoint, **taken), {}
    if args.calibrate:
        results["validation"] = calibrate(run, sensitivity=sensitivity)
    images = None
    if others := args.data_root or args.manifest:
        images, replace = load_external(others, run.config.data), args.replace
        results[name] = evaluate_external(run, images, others, name, alpha=alpha, replace=replace)
    elif args.split not in results:
        results[args.split] = evaluate_split(run, args.split, alpha=alpha)
    report(run, results)
    if args.level == "study":
        from msa_flax.results.studies import evaluate_studies

        split = name if others else args.split
        evaluate_studies(run, split, sensitivity=sensitivity, others=images)


def _check_others(args: SimpleNamespace) -> None:
    if (args.external is not None or args.replace) and not (args.data_root or args.manifest):
        flag = "replace" if args.replace else "external"
        raise cli.UsageError(f"--{flag}: expected other images with it, --data_root or --manifest")
    if args.data_root and args.manifest:
        raise cli.UsageError("--data_root and --manifest: expected one of them, got both")
    if args.data_root and Path(args.data_root).expanduser().is_file():
        raise cli.UsageError(
            f"--data_root: expected a folder, got the file {args.data_root}; a table of labels is "
            "given with --manifest"
        )
    if args.manifest and not Path(args.manifest).expanduser().is_file():
        raise cli.UsageError(f"--manifest: expected a table, a CSV file; got {args.manifest!r}")


def _check_share(name: str, value: float, example: float) -> None:
    if not 0 < value < 1:
        raise cli.UsageError(
            f"--{name}: expected a number between 0 and 1, such as {example:g}; got {value:g}"
        )


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
