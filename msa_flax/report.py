"""Check published metrics: python -m msa_flax.report --check TABLE.csv.

Says for each row whether any confusion matrix of the given class sizes has the printed metrics:
every matrix that does, how the metrics must be read for it (of which class, or averaged how) and
how exact it is; or the nearest one, and the metrics that contradict it.

The table has the columns name, positives, negatives (images of the first and the second class) and
any of accuracy, precision, recall, specificity, f1, npv, balanced_accuracy, mcc and auc, which is
not checked. Copy the numbers with all digits that are printed; above 1 or with a sign % they are
in per cent; leave empty what is not reported. This reads no run and needs no --workdir.
"""

from pathlib import Path
from types import SimpleNamespace

from absl import flags

from msa_flax import cli


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("check", None, "table of published metrics, as CSV", flag_values=values)


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    if not args.check:
        raise cli.UsageError("--check: expected a table, got nothing; --help says more")
    print(check(Path(args.check)), end="")


def check(path: Path) -> str:
    """Returns which rows of a table of published metrics can be true, as text.

    Raises:
        ConsistencyError: the file is no such table.
    """
    from msa_flax.evaluation import published

    return published.check(published.read(path))


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
