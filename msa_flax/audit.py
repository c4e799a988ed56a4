"""Audit a data set before training on it: python -m msa_flax.audit --root DIR [--out OUT].

--manifest FILE.csv audits the images of a table of labels instead of those of a folder.

Looks for copies (equal pixels; rotated, mirrored, sharpened, blurred versions of one slice) within
and across splits, for groups that cross splits or hold one class, for what predicts the label or
the split without looking at the anatomy, and for odd files. --root takes any folder of the form
[PART/]CLASS/[GROUP/]FILE. --config audits a configured experiment, on the splits that it would
train with; --workdir a run, on its own. With --ladder ever better shortcuts are fitted on those
splits: what a model adds is what it adds to the best of them.

Writes audit.json, audit.md and pictures to OUT (default: audit/, or audit/ in the workdir).
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from absl import flags

from msa_flax import cli
from msa_flax.config import Config, ConfigError, DataConfig, quickstart

if TYPE_CHECKING:
    from msa_flax.auditing.audit import Audit
    from msa_flax.data.folder import Progress

log = logging.getLogger("msa_flax")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "audit the data of this run, on its own splits")
    cli.define_moved(values)
    cli.define_config(values)
    data = DataConfig()
    flags.DEFINE_string("root", None, "audit this folder: [PART/]CLASS/FILE", flag_values=values)
    flags.DEFINE_string(
        "manifest", None, "audit the images of this table of labels, a CSV file", flag_values=values
    )
    flags.DEFINE_string("out", None, "folder of the results", flag_values=values)
    flags.DEFINE_boolean("ladder", False, "fit shortcuts on the splits", flag_values=values)
    flags.DEFINE_string(
        "family_pattern",
        data.family_pattern,
        "of --root or --manifest: finds the source slice, (?P<family>...), in a file's name; '' "
        "for nothing",
        flag_values=values,
    )
    flags.DEFINE_string(
        "group_pattern",
        data.group_pattern,
        "of --root or --manifest: finds the series or patient, (?P<group>...), in a file's name",
        flag_values=values,
    )
    flags.DEFINE_float(
        "family_threshold",
        None,
        "similarity from which two images are copies of one source",
        lower_bound=0.0,
        upper_bound=1.0,
        flag_values=values,
    )


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    chosen = [f"--{name}" for name in ("root", "manifest", "workdir") if getattr(args, name)]
    if len(chosen) > 1:
        raise cli.UsageError(f"{' and '.join(chosen)}: expected one of them, got {len(chosen)}")
    if chosen and args.config != quickstart():
        raise cli.UsageError(
            f"--config: a configuration is not used with {chosen[0]}; leave one of them out "
            "(files of a configuration are those of --config.data.root or .manifest)"
        )
    files = args.root or args.manifest
    if args.ladder and files:
        raise cli.UsageError(
            f"--ladder: shortcuts are fitted on a training split, which {chosen[0]} does not have; "
            f"use --config with --config.data.{chosen[0][2:]}, or --workdir"
        )
    if args.workdir:
        cli.workdir(args, trained=True)
    elif unused := [f"--{name}" for name in ("moved_to", "accept_changes") if getattr(args, name)]:
        raise cli.UsageError(f"{' and '.join(unused)}: expected --workdir with it")
    out = _output(args)
    audit = _audit_files(args) if files else _audit_splits(args)
    audit.write(out)
    print(audit.text())
    log.info("written: %s", out)


def _output(args: SimpleNamespace) -> Path:
    """Returns the folder for the results; refuses one that holds anything but an earlier audit."""
    inside = Path(args.workdir) / "audit" if args.workdir else Path("audit")
    out = Path(args.out) if args.out else inside
    cli.check_folder("--out", out)
    if out.is_dir() and any(out.iterdir()) and not (out / "audit.json").exists():
        raise cli.UsageError(
            f"--out: {str(out)!r} holds other files than an audit's; name an empty or new folder"
        )
    return out


def _audit_files(args: SimpleNamespace) -> "Audit":
    """Audits the files of ``--root`` or ``--manifest``, whatever classes and parts are called."""
    patterns = {"family_pattern": args.family_pattern, "group_pattern": args.group_pattern}
    place = {"root": args.root} if args.root else {"source": "manifest", "manifest": args.manifest}
    config = Config(data=DataConfig(**place, **patterns))
    try:
        config.validate()
    except ConfigError as error:
        raise cli.UsageError(str(error).replace("data.", "--")) from error
    from msa_flax.auditing.audit import audit
    from msa_flax.data import inspect
    from msa_flax.data.families import find_families
    from msa_flax.data.folder import list_folder
    from msa_flax.data.group_names import group_hint
    from msa_flax.data.manifest import list_manifest

    if args.manifest:
        listing = list_manifest(args.manifest, config.data, any_class=True)
    else:
        listing = list_folder(args.root, config.data, layout="any")
    with _bar() as progress:
        examples = inspect(listing, progress=progress)
    for flag, pattern in patterns.items():
        fits = any(re.search(pattern, file.path.name) for file in listing.files)
        if pattern and not fits and flag == "family_pattern" and not args.manifest:
            log.warning("--%s '%s' fits no file name", flag, pattern)
        elif pattern and not fits and not examples.groups_known:
            hint = group_hint(examples.example_id.tolist(), table=bool(args.manifest))
            log.warning("--%s '%s' fits no file name: %s", flag, pattern, hint)
    with _bar() as progress:
        families = find_families(
            examples.images, threshold=args.family_threshold, progress=progress
        )
    return audit(examples, families, name=listing.root.resolve().name)


def _audit_splits(args: SimpleNamespace) -> "Audit":
    """Audits a configuration's images on the splits that it trains with, or a run on its own."""
    from msa_flax import data
    from msa_flax.results.audits import audit_splits
    from msa_flax.run import read_data, split_data
    from msa_flax.run_files import check_run_files
    from msa_flax.training.workdir import read_config
    from msa_flax.training.xla import prepare_jax

    prepare_jax()
    workdir = Path(args.workdir) if args.workdir else None
    accept = args.accept_changes
    changes = check_run_files(workdir, accept=accept) if workdir else []
    config = read_config(workdir) if workdir else args.config.validate()
    if workdir and args.moved_to:
        config.data = data.with_place(config.data, args.moved_to)
    with _bar() as progress:
        return audit_splits(
            config,
            read_data(workdir, config, changes) if workdir else split_data(config),
            workdir=workdir,
            with_ladder=args.ladder,
            threshold=args.family_threshold,
            progress=progress,
        )


@contextmanager
def _bar() -> "Iterator[Progress]":
    """Gives a function (what is done, images done, images) that moves a progress bar."""
    from tqdm import tqdm

    with tqdm(unit=" images", leave=False, disable=None) as bar:  # None: not into files

        def progress(what: str, done: int, total: int) -> None:
            if done == 1:  # another stage begins
                bar.reset(total)
                bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        yield progress


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
