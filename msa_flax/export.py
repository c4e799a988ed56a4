"""Export a run as one folder or file: python -m msa_flax.export --workdir DIR --out MODEL.

MODEL is a folder, or one file with --zip, that predicts like the run wherever JAX is, without the
run, Flax or TensorFlow: python -m msa_flax.predict --model MODEL PATH... It holds the network as
StableHLO, its weights, how images are prepared, the operating point, the calibration, what the
training images look like, and a model card. The same run gives the same bytes; what is there is
never overwritten. --onnx adds the network as an ONNX graph, for runtimes without JAX (extra onnx).

--keras FILE.weights.h5, with or without --out, writes the backbone for keras.applications, and
beside it FILE.keras, the whole network with scaling and attention.
"""

from pathlib import Path
from types import SimpleNamespace

from absl import flags

from msa_flax import cli


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "folder of the trained run")
    cli.define_moved(values)
    flags.DEFINE_string("out", None, "the new folder, or the new file with --zip", values)
    flags.DEFINE_boolean("zip", False, "write one file", flag_values=values)
    flags.DEFINE_boolean("onnx", False, "add model.onnx to MODEL", flag_values=values)
    flags.DEFINE_string("keras", None, "a new file, FILE.weights.h5", values)
    cli.define_checkpoint(values)


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    workdir = cli.workdir(args, trained=True)
    places = {"--out": args.out, "--keras": args.keras}
    if not any(places.values()):
        raise cli.UsageError("--out: expected a new folder or file, got nothing; --help says more")
    for flag, place in places.items():
        cli.check_folder(flag, place and Path(place).parent)
    from msa_flax.results.exports import export_keras, export_run
    from msa_flax.run import restore
    from msa_flax.training.xla import prepare_jax

    prepare_jax()
    taken = {"root": args.moved_to, "accept_changes": args.accept_changes}
    run = restore(workdir, checkpoint_name=args.checkpoint, **taken)
    if args.keras:
        print(export_keras(run, Path(args.keras)))
    if args.out:
        print(export_run(run, Path(args.out), zipped=args.zip, onnx=args.onnx))


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
