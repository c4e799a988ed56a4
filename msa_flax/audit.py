"""Audit a data set before training on it: python -m msa_flax.audit --root DIR [--out OUT].

Looks for copies (equal pixels; rotated, mirrored, sharpened, blurred versions of one slice) within
and across splits, for groups that cross splits or hold one class, for what predicts the label or
the split without looking at the anatomy, and for odd files. --root takes any folder of the form
[PART/]CLASS/[GROUP/]FILE. --config audits a configured experiment, on the splits that it would
train with; --workdir a run, on its own. With --ladder ever better shortcuts are fitted on those
splits: what a model adds is what it adds to the best of them.

Writes audit.json, audit.md and pictures to OUT (default: audit/, or audit/ in the workdir).
"""

import dataclasses
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from absl import flags

from msa_flax import cli, files
from msa_flax.config import Config, ConfigError, DataConfig, quickstart

if TYPE_CHECKING:
    from msa_flax.auditing.auditing import Audit
    from msa_flax.data.examples import Examples
    from msa_flax.data.inspection import Inspection
    from msa_flax.data.splits import Splits

log = logging.getLogger("msa_flax")


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli.define_workdir(values, "audit the data of this run, on its own splits")
    cli.define_config(values)
    data = DataConfig()
    flags.DEFINE_string("root", None, "audit this folder: [PART/]CLASS/FILE", flag_values=values)
    flags.DEFINE_string("out", None, "folder of the results", flag_values=values)
    flags.DEFINE_boolean("ladder", False, "fit shortcuts on the splits", flag_values=values)
    flags.DEFINE_string(
        "family_pattern",
        data.family_pattern,
        "of --root: finds the source slice, (?P<family>...), in a file's name; '' for nothing",
        flag_values=values,
    )
    flags.DEFINE_string(
        "group_pattern",
        data.group_pattern,
        "of --root: finds the series or patient, (?P<group>...), in a file's name",
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
    if args.root and args.workdir:
        raise cli.UsageError("--root and --workdir: expected one of them, got both")
    if (args.root or args.workdir) and args.config != quickstart():
        raise cli.UsageError(
            f"--config: a configuration is not used with --{'root' if args.root else 'workdir'}; "
            "leave one of them out (files of a configuration are those of --config.data.root)"
        )
    if args.ladder and args.root:
        raise cli.UsageError(
            "--ladder: shortcuts are fitted on a training split, which --root does not have; "
            "use --config with --config.data.root, or --workdir"
        )
    if args.workdir:
        cli.workdir(args, trained=True)
    out = _output(args)
    config, inspection, examples, splits = _read(args)
    audit = _audit(args, inspection, examples, splits, config)
    audit.write(out)
    print(audit.text())
    log.info("everything: %s", out)


def _output(args: SimpleNamespace) -> Path:
    """Returns the folder for the results; refuses one that holds anything but an earlier audit."""
    inside = Path(args.workdir) / "audit" if args.workdir else Path("audit")
    out = Path(args.out) if args.out else inside
    for path in (out, *out.parents):
        if path.is_file():
            raise cli.UsageError(f"--out: expected a folder, got the file {str(path)!r}")
    if out.is_dir() and any(out.iterdir()) and not (out / "audit.json").exists():
        raise cli.UsageError(
            f"--out: {str(out)!r} holds other files than an audit's; name an empty or new folder"
        )
    return out


def _read(
    args: SimpleNamespace,
) -> tuple[Config, "Inspection", "Examples | None", "Splits | None"]:
    """Returns what is to be audited: configuration, files, and, where there are splits, those."""
    if args.root:
        return *_read_root(args), None, None
    from msa_flax.data import inspection as inspecting
    from msa_flax.data import scan
    from msa_flax.run import read_config, read_data, split_data

    if args.workdir:
        config = read_config(Path(args.workdir))
        data = read_data(Path(args.workdir), config)
    else:
        config = args.config.validate()
        data = split_data(config)
    examples, splits = data.examples, data.splits
    if config.data.source == "folder":
        root = scan.scan_folder(config.data.root, config.data).root  # the ids begin below it
        with _bar() as progress:
            found = inspecting.inspect_folder(root, config.data, progress=progress)
        found = _same_rows(found, examples)
    else:
        found = inspecting.inspect_examples(examples, config.data.classes)
    return config, found, examples, splits


def _read_root(args: SimpleNamespace) -> tuple[Config, "Inspection"]:
    """Returns the files of ``--root``, and the configuration that its flags make."""
    from msa_flax.data import inspection as inspecting

    patterns = {"family_pattern": args.family_pattern, "group_pattern": args.group_pattern}
    config = Config(data=DataConfig(root=args.root, **patterns))
    try:
        config.validate()
    except ConfigError as error:
        raise cli.UsageError(str(error).replace("data.", "--")) from error
    with _bar() as progress:
        found = inspecting.inspect_folder(args.root, config.data, progress=progress)
    files = [Path(name).name for name in found.example_id.tolist()]
    for name, pattern in patterns.items():
        if pattern and not any(re.search(pattern, file) for file in files):
            log.warning("--%s '%s' fits no file name", name, pattern)
    return config, found


def _same_rows(found: "Inspection", examples: "Examples") -> "Inspection":
    """Returns the inspection of exactly the images that are trained with, in their order."""
    import numpy as np

    order = {name: i for i, name in enumerate(found.example_id.tolist())}
    rows = np.array([order[name] for name in examples.example_id.tolist()])
    values = {
        field.name: value[rows] if isinstance(value, np.ndarray) else value
        for field in dataclasses.fields(found)
        for value in [getattr(found, field.name)]
    }
    facts = {name: value[rows] for name, value in found.facts.items()}
    return dataclasses.replace(found, **(values | {"facts": facts}))


def _audit(
    args: SimpleNamespace,
    inspection: "Inspection",
    examples: "Examples | None",
    splits: "Splits | None",
    config: Config,
) -> "Audit":
    from msa_flax.auditing import auditing, families, findings, leakage, shortcuts

    images = findings.Images(
        example_id=inspection.example_id,
        label=inspection.label,
        classes=inspection.classes,
        split=inspection.part if splits is None else splits.split,
        group=inspection.group,
        family=inspection.family,
        pixels=inspection.pixels,
    )
    threshold = families.THRESHOLD if args.family_threshold is None else args.family_threshold
    with _bar() as progress:
        found = families.find_families(inspection.images, threshold=threshold, progress=progress)
    rungs = []
    if args.ladder and examples is not None and splits is not None:
        from msa_flax.run import pooled_features
        from msa_flax.training.compile import prepare_jax

        prepare_jax()
        rows = shortcuts.Rows(
            label=inspection.label,
            split=splits.split,
            source=leakage.all_sources(images, found),
            slice_index=inspection.slice_index,
            facts=inspection.facts,
            images=inspection.images,
            features=pooled_features(config, examples),
        )
        rungs = shortcuts.ladder(rows, seed=config.train.seed)
    return auditing.audit(
        images,
        found,
        name=inspection.root.expanduser().resolve().name
        if config.data.source == "folder"
        else config.name,
        facts=inspection.facts,
        slice_index=inspection.slice_index,
        pictures=inspection.images,
        bad_files=inspection.bad_files,
        ladder=rungs,
        model=_model_scores(args),
    )


def _model_scores(args: SimpleNamespace) -> dict[str, Any]:
    """Returns accuracy and AUC of the run's own evaluations by split, where there are any."""
    if not args.workdir:
        return {}

    found = {}
    for split in ("validation", "test"):
        values = files.read_json(Path(args.workdir) / "eval" / split / "metrics.json")
        if values:
            scores = values["metrics"]
            found[split] = {name: scores[name]["value"] for name in ("accuracy", "auc")}
    return found


@contextmanager
def _bar() -> Iterator[Any]:
    """Gives a function (what is done, images done, images) that moves a progress bar."""
    from tqdm import tqdm

    with tqdm(unit=" images", leave=False, disable=None) as bar:  # None: not into files
        stage = ""

        def progress(what: str, done: int, total: int) -> None:
            nonlocal stage
            if what != stage:
                stage = what
                bar.reset(total)
                bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        yield progress


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
