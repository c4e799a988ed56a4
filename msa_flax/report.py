"""Report on a run: python -m msa_flax.report --workdir DIR [DIR2 ...].

Writes DIR/report.html (--out FILE elsewhere; with --split NAME DIR/report-NAME.html, about the
images that evaluate --external NAME has scored): one page that needs nothing beside it and loads
nothing, from what the run has saved: numbers with their intervals, audit, curves, a threshold to
move, the worst cases, a model card and a reporting checklist. It needs an evaluated run; explain
and audit add to it. Further runs, evaluated on the same images, are compared with the first.

python -m msa_flax.report --compare DIR DIR2 [DIR3 ...] prints paired comparisons of every further
run with the first instead, and writes them to DIR/compare-SPLIT.csv (--out FILE elsewhere): the
differences of AUC, accuracy, recall, specificity, Brier score and log loss, with 95 % intervals and
p values, which Holm's method corrects for their number. Where it is known which images belong
together, intervals come from draws of whole groups. The report on several runs has this table too.
"""

import dataclasses
import logging
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from absl import flags

from msa_flax import cli, files, run_files

if TYPE_CHECKING:
    from msa_flax.reporting.saved import SavedRun

log = logging.getLogger("msa_flax")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_accept_changes(values)
    values.set_gnu_getopt()  # flags may follow the further folders
    flags.DEFINE_multi_string(
        "workdir", [], "folder of an evaluated run; again, or with commas, for more", values
    )
    flags.DEFINE_list("workdirs", [], "set by the arguments DIR2...", flag_values=values)
    what = "what to report on: test, validation or the --external name of other images"
    flags.DEFINE_string("split", "test", what, flag_values=values)
    flags.DEFINE_string(
        "out",
        None,
        "the page, default: DIR/report.html, or DIR/report-SPLIT.html of other images; with "
        "--compare the table, default: DIR/compare-SPLIT.csv",
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "compare", False, "compare runs in pairs, without a page", flag_values=values
    )


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    folders = _folders(args)
    if not folders:
        raise cli.UsageError(
            "--workdir: expected the folder of a run, got nothing; --help says more"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", args.split):
        raise cli.UsageError(
            f"--split: expected test, validation or the name of an external set, got {args.split!r}"
        )
    if args.compare:
        out = Path(args.out) if args.out else folders[0] / f"compare-{args.split}.csv"
        print(compare(folders, out, split=args.split, accept=args.accept_changes), end="")
        print(f"{out}: {len(folders)} runs; {files.NOTICE}")
        return
    out = Path(args.out) if args.out else folders[0] / _page(args.split)
    size = report(folders, out, split=args.split, accept=args.accept_changes)
    print(f"{out}: {size / 1e6:.1f} MB; {files.NOTICE}")


def report(workdirs: list[Path], out: Path, *, split: str, accept: bool = False) -> int:
    """Writes the report on the first run, compared with the others; returns its size in bytes.

    Raises:
        UsageError: ``out`` is a file of another kind.
        UserError: a run is not evaluated, its files do not fit, or runs cannot be compared.
    """
    from msa_flax.reporting import page

    _check_out(out, "<!DOCTYPE html>", "report")
    runs = [_read(folder, split, accept) for folder in workdirs]
    text = page.render_page(runs[0], runs[1:], commands=commands(runs[0]))
    # File names that are not UTF-8 arrive as surrogates, which a page cannot hold.
    data = text.encode("utf-8", "replace")
    _write(out, data)
    return len(data)


def compare(workdirs: list[Path], out: Path, *, split: str, accept: bool = False) -> str:
    """Writes the paired comparison of runs with the first as CSV; returns it as a table of text.

    Runs are named by their folders.

    Raises:
        UsageError: there are not two different folders, or ``out`` is a file of another kind.
        UserError: a run is not evaluated, its files do not fit, or runs cannot be compared.
    """
    from msa_flax.evaluation.compare import COLUMNS
    from msa_flax.reporting import comparison

    if len(workdirs) < 2 or len(set(workdirs)) < len(workdirs):
        got = ", ".join(map(str, workdirs))
        raise cli.UsageError(f"--compare: expected two or more runs, each once, got {got}")
    _check_out(out, ",".join(COLUMNS), "comparison")
    runs = {str(folder): _read(folder, split, accept) for folder in workdirs}
    table, text = comparison.compare(runs)
    _write(out, table.encode("utf-8", "surrogateescape"))
    return text


def commands(run: "SavedRun") -> list[tuple[str, str]]:
    """Returns what repeats a run, as (what it does, command).

    Nothing where another version's configuration is not understood.
    """
    from msa_flax.config import Config, ConfigError, quickstart

    try:
        config = files.flatten(Config.from_dict(dict(run.config)).to_dict())
    except ConfigError:
        return []
    default = files.flatten(quickstart().to_dict())
    fields = [
        shlex.quote(f"--config.{name}={_argument(value)}")
        for name, value in config.items()
        if value != default.get(name)
    ]
    train = " ".join(["python -m msa_flax.train --workdir NEW", *fields])
    which, place = f"--split {run.split}", run.metrics.get("root")
    if place:  # other images
        flag = "manifest" if Path(place).suffix.lower() == ".csv" else "data_root"
        which = f"--{flag} {shlex.quote(place)} --external {run.split}"
    explain = ("Explain", f"python -m msa_flax.explain --workdir NEW --split {run.split}")
    return [
        ("Train", train),
        ("Evaluate", f"python -m msa_flax.evaluate --workdir NEW {which}"),
        *([] if place else [explain]),
        ("Report", f"python -m msa_flax.report --workdir NEW --split {run.split}"),
    ]


def _page(split: str) -> str:
    return "report.html" if split in ("test", "validation") else f"report-{split}.html"


def _read(folder: Path, split: str, accept: bool) -> "SavedRun":
    from msa_flax.reporting.saved import read_run

    run = read_run(folder, split)
    if changes := run_files.check_run_files(folder, accept=accept):
        stamps = list(dict.fromkeys([*run.metrics["stamps"], *changes]))
        run = dataclasses.replace(run, metrics={**run.metrics, "stamps": stamps})
    if run.differences:
        log.warning(
            "warning: %s differs from predictions.csv, from which the numbers here are computed: "
            "%s; evaluate again",
            *(folder / "eval" / split / "metrics.json", "; ".join(run.differences)),
        )
    return run


def _check_out(out: Path, start: str, what: str) -> None:
    """Refuses to replace a file that does not begin as an earlier result does."""
    if out.is_file() and not out.read_bytes().startswith(start.encode()):
        raise cli.UsageError(
            f"--out: expected a new file or an earlier {what}, got {out}, which is another file; "
            "name another one"
        )


def _write(out: Path, data: bytes) -> None:
    try:
        files.write_atomically(out, data)
    except OSError as error:
        raise cli.UsageError(f"--out: {out} cannot be written: {error.strerror}") from error


def _folders(args: SimpleNamespace) -> list[Path]:
    names: list[str] = []
    for name in [*args.workdir, *args.workdirs]:
        names += [name] if Path(name).exists() else name.split(",")
    return [Path(name) for name in names if name]


def _argument(value: Any) -> str:
    if isinstance(value, list | tuple):
        return repr(tuple(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
