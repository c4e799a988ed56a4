"""Prepare an archive of CT studies for training: python -m msa_flax.prepare --root DIR --out DIR2.

DIR is laid out as the RSNA 2022 challenge was handed out: train_images/STUDY/NUMBER.dcm, train.csv
and train_bounding_boxes.csv. DIR2 receives a file for each study, with its labelled slices in the
bone window, as a TFDS data set; studies.csv, what is in which file; refused.csv, what could not be
used and why. Train on it with

    python -m msa_flax.train --workdir W --config.data.source=rsna2022 --config.data.protocol=kfold
        --config.data.root=DIR2

which gives the same numbers as DIR itself does. The same command again goes on where it was
stopped, and tries again what was refused; DIR2 is never mixed from two settings or two archives.

Studies are shared out among processes of this machine or, with --runner, by Apache Beam (pip
install "msa_flax[beam]", in an environment of its own). What follows "--" are flags of Beam:

    --runner=FnApiRunner                                              on this machine, to try it out
    --runner=FlinkRunner -- --flink_master=HOST:8081 --environment_type=DOCKER
        --environment_config=IMAGE
    --runner=SparkRunner -- --spark_master_url=spark://HOST:7077 --environment_type=DOCKER
        --environment_config=IMAGE
    --runner=DataflowRunner -- --project=P --region=R --temp_location=gs://B/tmp
        --sdk_container_image=IMAGE

IMAGE has this package installed. DIR and DIR2 must be mounted on every worker under the same names.
"""

from pathlib import Path
from types import SimpleNamespace

from absl import flags

from msa_flax import cli
from msa_flax.config import Config, ConfigError, DataConfig
from msa_flax.config_checks import CHOICES

FIELDS = {  # of the section data, in which each is explained
    "window_centre": "HU in the middle of the window",
    "window_width": "HU from black to white",
    "max_tilt": "degrees that a slice may lean from the axial plane",
    "rsna_beyond": "mm from every box from which slices of a study with boxes are normal; 0: none",
    "rsna_every": "of the normal slices, those whose number this divides",
    "rsna_faulty": "what to do about studies with known faults",
    "on_bad_file": "what to do about studies, slices and boxes that cannot be used",
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("root", None, "folder of the archive", flag_values=values)
    flags.DEFINE_string("out", None, "folder for the prepared data set", flag_values=values)
    what = "processes of this machine, each of 0.8 GB; default: one for each core"
    flags.DEFINE_integer("processes", None, what, lower_bound=1, flag_values=values)
    flags.DEFINE_string("runner", None, "a runner of Apache Beam to use instead", values)
    flags.DEFINE_list("beam_options", [], "set by the arguments after --", flag_values=values)
    for name, what in FIELDS.items():
        default = getattr(DataConfig(), name)
        if isinstance(default, str):
            flags.DEFINE_enum(name, default, CHOICES[f"data.{name}"], what, flag_values=values)
        else:
            define = flags.DEFINE_float if isinstance(default, float) else flags.DEFINE_integer
            define(name, default, what, flag_values=values)


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    for name in ("root", "out"):
        if not getattr(args, name):
            raise cli.UsageError(f"--{name}: expected a folder, got nothing; --help says more")
    cli.check_folder("--out", args.out)
    if args.runner and args.processes:
        raise cli.UsageError("--processes: with --runner, Beam says how many there are")
    if args.beam_options and not args.runner:
        raise cli.UsageError(f"{args.beam_options[0]!r}: flags of Beam need --runner")
    place = {"source": "rsna2022", "protocol": "kfold", "root": args.root}
    config = Config(data=DataConfig(**place, **{name: getattr(args, name) for name in FIELDS}))
    try:
        config.validate()
    except ConfigError as error:
        raise cli.UsageError(str(error).replace("data.", "--")) from error
    from msa_flax.preparation import archive, engines

    if args.runner:
        engine = engines.beam(args.runner, args.beam_options)
    else:
        engine = engines.pool(args.processes or engines.cores())
    out = Path(args.out)
    print(archive.describe(archive.prepare_archive(config.data, out, engine), config.data, out))


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
