"""A whole archive: what there is to do, who does it, and the tables of what has been done."""

import hashlib
import logging
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from msa_flax.config import PREPARED_FIELDS, DataConfig
from msa_flax.data import rsna, shards
from msa_flax.data.folder import Listing, check_bad_files
from msa_flax.files import csv_text, flatten, sha256, write_json, write_text
from msa_flax.preparation.engines import Engine
from msa_flax.preparation.tasks import PreparationError, Task, counts, not_overwritten

log = logging.getLogger("msa_flax")
_COLUMNS = ("study", "file", "slices", "positive", "refused", "bytes", "sha256")


def prepare_archive(config: DataConfig, out: Path, engine: Engine) -> dict[str, Any]:
    """Prepares the studies of the challenge that have not been prepared yet.

    Args:
        config: ``root``, ``on_bad_file`` and the fields of ``config.PREPARED_FIELDS`` are used.
        out: the prepared folder, see :mod:`msa_flax.data.shards`; new, empty, or of a run that was
            stopped.
        engine: does the tasks.

    Returns:
        The numbers of "studies", "slices", "positive" slices, "refused" studies, slices and boxes,
        and studies that were "kept", because they had been prepared before.

    Raises:
        DataError: the challenge's folder is not as expected, or something was refused and
            ``config.on_bad_file`` is "error".
        PreparationError: ``out`` holds something else, or was prepared otherwise.
    """
    began, out = time.perf_counter(), out.absolute()
    listing = rsna.list_rsna(config)
    tasks = _tasks(config, listing, out)
    about = _about(config, listing, len(tasks))
    _check_out(out, about)
    standing = [(task, task.standing()) for task in tasks]
    if changed := [task for task, one in standing if one == "changed"]:
        raise not_overwritten(changed)
    to_do = [task for task, one in standing if one == "new"]
    if to_do:
        write_json(out / shards.RECORD, about)  # without a content: not whole
        log.info("preparing %d studies, %d are prepared", len(to_do), len(tasks) - len(to_do))
        engine(to_do)
        log.info("prepared in %.0f s", time.perf_counter() - began)
    for left_over in out.rglob(".*.tmp"):  # of processes that were killed, on any machine
        left_over.unlink(missing_ok=True)
    found = _finish(config, out, about, tasks, listing)
    return found | {"kept": len(tasks) - len(to_do)}


def describe(found: dict[str, Any], config: DataConfig, out: Path) -> str:
    """Says what :func:`prepare_archive` has found, and how to train on it, in two lines."""
    named, default = ("source", "protocol", "on_bad_file", *PREPARED_FIELDS), DataConfig()
    fields = {name: getattr(config, name) for name in named} | {"root": out}
    differ = [(name, one) for name, one in fields.items() if one != getattr(default, name)]
    return (
        f"{found['slices']} slices of {found['studies']} studies ({found['positive']} with a "
        f"fracture); {found['kept']} studies had been prepared before; {found['refused']} "
        f"refused, see {out / shards.REFUSED}\ntrain on them with "
        + " ".join(f"--config.data.{name}={value}" for name, value in differ)
    )


def _tasks(config: DataConfig, listing: Listing, out: Path) -> list[Task]:
    """Returns a task for each study that labels slices: its number follows from the tables."""
    slices, refused = defaultdict(list), defaultdict(list)
    for file in listing.files:
        slices[file.study].append((file.slice_index, file.path.stem, file.label))
    for name, reason in listing.bad_files:
        refused[name.split("/")[1]].append((name, reason))
    studies = rsna.labelled_studies(config)
    shared: dict[str, Any] = {"count": len(studies), "out": out, "config": config}
    return [
        Task(
            study=study,
            index=index,
            slices=tuple((stem, label) for _, stem, label in sorted(slices[study])),
            refused=tuple(refused[study]),
            challenge=listing.root,
            **shared,
        )
        for index, study in enumerate(studies)
    ]


def _about(config: DataConfig, listing: Listing, count: int) -> dict[str, Any]:
    return {
        "challenge": str(listing.root),
        "tables": {name: sha256(listing.root / name) for name in (rsna.STUDIES, rsna.BOXES)},
        "data": {name: getattr(config, name) for name in PREPARED_FIELDS},
        "studies": count,
        "version": shards.VERSION,
    }


def _check_out(out: Path, about: dict[str, Any]) -> None:
    """Refuses a folder with other files, or one that was prepared otherwise or from other tables.

    A challenge that has moved is the same challenge.
    """
    before = shards.read_record(out)
    if not before:
        if out.is_dir() and any(out.iterdir()):
            raise PreparationError(
                f"--out: {out} holds other files than a prepared folder's; name a new or empty one"
            )
        return
    old, new = flatten(before), flatten(about)
    differ = [
        f"another {name[7:]}"
        if name.startswith("tables.")
        else f"{name.removeprefix('data.')} {old[name]} (not {value})"
        for name, value in new.items()
        if name != "challenge" and old[name] != value
    ]
    if differ:
        raise PreparationError(
            f"--out: {out} was prepared with {', '.join(differ)}; name another folder, or delete it"
        )


def _finish(
    config: DataConfig, out: Path, about: dict[str, Any], tasks: list[Task], listing: Listing
) -> dict[str, Any]:
    """Writes the tables and, if nothing was refused that must not be, what makes it a data set."""
    from msa_flax.data.tfds import describe_shards

    records = [task.record() for task in tasks]
    refused = {*listing.bad_files, *(tuple(one) for r in records for one in r["refused"])}
    rows = [
        [task.study, task.path.name, *counts(r).values(), r["bytes"], r["sha256"]]
        for task, r in zip(tasks, records, strict=True)
    ]
    write_text(out / shards.STUDIES, csv_text(_COLUMNS, rows))
    write_text(out / shards.REFUSED, csv_text(("path", "reason"), sorted(refused)))
    total = {name: sum(r[name] for r in records) for name in ("slices", "positive", "bytes")}
    skip = config.on_bad_file == "skip"
    check_bad_files(sorted(refused), skip=skip, total=total["slices"] + len(refused))
    describe_shards(out, [record["slices"] for record in records], total.pop("bytes"))
    content = hashlib.sha256("".join(record["sha256"] for record in records).encode()).hexdigest()
    write_json(out / shards.RECORD, about | {"content": content})
    return total | {"studies": len(tasks), "refused": len(refused)}
