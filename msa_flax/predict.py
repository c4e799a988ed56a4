"""Predict new images: python -m msa_flax.predict --workdir DIR [--out DIR2] PATH...

Or with --model MODEL, a folder or file that export has written, in place of --workdir DIR. PATH is
an image, a DICOM file with one frame or many, a folder, or a tree of folders. DIR2, by default
DIR/predict (of a MODEL: predict, here), receives slices.csv and series.csv, a row for each slice
and each series; refused.csv, what cannot be read and why; report.html to look at; and run.json,
which says by what it was made. Nothing else is written. A series is that of the DICOM files, or a
folder of PNG and JPEG files; its score is the highest of its slices.

Slices are decided at the operating point that evaluate --calibrate --sensitivity has stored, or
else at the configured threshold. An image that is unlike the training images is flagged, and what
is flagged is not decided. Patients, studies and series of DICOM files are given pseudonyms unless
--identifiers asks for what the files say.

--dicom_out DIR3 also writes the results as DICOM objects, a folder for each DICOM series with a
structured report and pictures of its highest slices, to be sent to the archive that the images came
from (needs highdicom). A series that is not decided gets a report that says why.

The same command again continues where it stopped; other files, another model or other settings need
another --out.
"""

from pathlib import Path
from types import SimpleNamespace

from absl import flags

from msa_flax import cli, cli_model


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    values.set_gnu_getopt()  # flags may follow the paths
    cli_model.define_model(values)
    flags.DEFINE_list("images", [], "set by the arguments PATH...", flag_values=values)
    flags.DEFINE_string(
        "out", None, "folder for the results, default: DIR/predict, or predict", values
    )
    what = "write the identifiers of DICOM files instead of pseudonyms"
    flags.DEFINE_boolean("identifiers", False, what, flag_values=values)
    what = "folder for the results as DICOM objects, default: none"
    flags.DEFINE_string("dicom_out", None, what, flag_values=values)


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    workdir = cli_model.folder_of(args)
    if not args.images:
        raise cli.UsageError("expected files or folders to predict, got nothing; --help says more")
    cli.check_folder("--out", args.out)
    cli.check_folder("--dicom_out", args.dicom_out)
    out = Path(args.out) if args.out else workdir / "predict"
    from msa_flax.results.predictions import predict_into

    model = cli_model.predictor_of(args)
    more = Path(args.dicom_out) if args.dicom_out else None
    print(predict_into(model, args.images, out, identifiers=args.identifiers, dicom_out=more))


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
