"""The flags of commands that predict new images: by a trained run, or by a portable model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import flags

from msa_flax import cli


def define_model(values: flags.FlagValues) -> None:
    """Defines ``--workdir`` with what a run needs, and ``--model``, one of which must be given."""
    cli.define_workdir(values, "folder of the trained run")
    flags.DEFINE_string("model", None, "a model of msa_flax.export, instead of --workdir", values)
    cli.define_moved(values)
    cli.define_checkpoint(values)


def folder_of(args: SimpleNamespace) -> Path:
    """Returns the folder of the run, or the current one where a portable model is given.

    Raises:
        cli.UsageError: neither is given, or both, or the run is none.
    """
    about_run = args.workdir, args.moved_to, args.accept_changes, args.checkpoint != "best"
    if args.model and any(about_run):
        raise cli.UsageError(
            "--model: expected no --workdir, --moved_to, --accept_changes or --checkpoint beside "
            "it, which are about a run"
        )
    if args.moved_to and not Path(args.moved_to).exists():
        raise cli.UsageError(f"--moved_to: expected images that are there, got {args.moved_to!r}")
    return Path() if args.model else cli.workdir(args, trained=True)


def predictor_of(args: SimpleNamespace) -> Any:
    """Returns the model that the flags name, a :class:`prediction.predictor.Predictor`."""
    from msa_flax.training.xla import prepare_jax

    prepare_jax()
    if args.model:
        from msa_flax.exporting import portable, released

        return portable.read(released.find(args.model))
    from msa_flax.results import predictor
    from msa_flax.run import restore

    given = {"root": args.moved_to, "accept_changes": args.accept_changes}
    return predictor.predictor_of(
        restore(folder_of(args), checkpoint_name=args.checkpoint, **given)
    )
