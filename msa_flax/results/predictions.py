"""The prediction of new images into a folder: tables, what made them, and a page."""

import collections
import hashlib
import json
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from msa_flax import __version__
from msa_flax.files import NOTICE, read_json, write_atomically, write_json
from msa_flax.prediction import tables
from msa_flax.prediction.inputs import Inputs, PredictionError, find_inputs
from msa_flax.prediction.journal import Journal, is_finished
from msa_flax.prediction.predictor import PHANTOM, Predictor, contract, decision
from msa_flax.prediction.score import UNLIKE, Row, Scorer, score
from msa_flax.reporting.prediction import (
    Pictured,
    Shown,
    picture_slice,
    render_prediction,
    show_series,
)
from msa_flax.training.workdir import environment

log = logging.getLogger("msa_flax")

_LISTED = 200  # series in the table of the page; series.csv has all
_IN_FULL = 12  # series with curve and pictures: the page stays below some 15 MB


def predict_into(
    model: Predictor,
    paths: Sequence[str],
    out: Path,
    *,
    identifiers: bool = False,
    dicom_out: Path | None = None,
) -> str:
    """Predicts files and folders into a folder, or goes on where that stopped; returns a summary.

    Args:
        model: of a run, or a portable one.
        paths: files, folders and trees.
        out: the folder, new or of the same prediction.
        identifiers: whether identifiers of DICOM files are written instead of pseudonyms.
        dicom_out: folder for DICOM objects with the results, None for none.

    Raises:
        ArchiveError: these cannot be made, or the folder holds other ones of the same series.
        PredictionError: nothing can be predicted, and what :func:`predict_all` raises.
    """
    counts, refused = predict_all(model, paths, out, identifiers=identifiers, dicom_out=dicom_out)
    if not counts["slices"]:
        raise PredictionError(_nothing(refused, out))
    return _summary(model, out, counts)


def predict_all(
    model: Predictor,
    paths: Sequence[str],
    out: Path,
    *,
    identifiers: bool = False,
    dicom_out: Path | None = None,
) -> tuple[dict[str, int], Sequence[tuple[str, str]]]:
    """Does what :func:`predict_into` does, also where every file is refused.

    Returns:
        How many "slices", "flagged" slices, "series" and "refused" files there are; and, where
        this was not finished before, (path, reason) of what was refused.

    Raises:
        PredictionError: a path is not there, the folder has something else, or there is a
            calibration that cannot be used: slices would be decided at another threshold than the
            one that was chosen.
    """
    model.scorer.check()
    archive = _archive(dicom_out, out) if dicom_out else None
    ours = [out, dicom_out] if dicom_out else [out]
    found = find_inputs(paths, model.scorer.data, identifiers=identifiers, leave_out=ours)
    identity = {
        "inputs": found.fingerprint,
        "model": model.fingerprint,
        "settings": _settings(model.scorer, identifiers=identifiers),
    }
    refused: Sequence[tuple[str, str]] = ()
    if is_finished(out, identity):
        counts = read_json(out / "run.json")["counts"]
        log.info("nothing to do: this prediction is finished")
    else:
        counts, refused = _predict(model, found, out, identity, identifiers=identifiers)
    if archive and dicom_out:
        settings = _settings(model.scorer, identifiers=False)
        log.info("%s", archive(model, found, out, dicom_out, settings))
    return counts, refused


def _archive(folder: Path, out: Path) -> Callable[..., str]:
    """Returns what writes DICOM results; refuses at once what cannot be done at the end."""
    if out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise PredictionError(f"--dicom_out: expected a folder outside of {out}, got {folder}")
    try:
        from msa_flax.results.archive import archive_prediction
    except ImportError as error:
        needs = 'highdicom, which is not installed; pip install "msa_flax[dicom]"'
        raise PredictionError(f"--dicom_out: expected {needs}") from error
    return archive_prediction


def _predict(
    model: Predictor, found: Inputs, out: Path, identity: dict[str, str], *, identifiers: bool
) -> tuple[dict[str, int], Sequence[tuple[str, str]]]:
    """Scores and writes all files, or goes on where that stopped; returns what `_write` does."""
    journal = Journal(out, identity)
    try:
        _score(model.scorer, found, journal)
        written = _write(model, found, journal, out, identity, identifiers=identifiers)
        journal.close(finished=True)
    finally:
        journal.close()
    return written


def _settings(scorer: Scorer, *, identifiers: bool) -> str:
    """Returns the SHA-256 of everything beside the network that rows depend on."""
    known, warm = scorer.typicality, scorer.calibration and scorer.calibration.temperature
    values = [
        *(__version__, identifiers, scorer.threshold, warm and warm.value, contract(scorer.data)),
        known and [known.limit, hashlib.sha256(known.axes.tobytes()).hexdigest()],
    ]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _score(scorer: Scorer, found: Inputs, journal: Journal) -> None:
    """Scores what is not in the journal yet."""
    total = len(found.slices)
    if journal.done:
        log.info("continuing after %d of %d slices", journal.done, total)
    with tqdm(
        total=total,
        initial=journal.done,
        unit="slice",
        disable=None,  # where there is no terminal
        dynamic_ncols=True,
        file=sys.stderr,
    ) as bar:
        for batch in score(scorer, found.slices[journal.done :]):
            journal.add(batch)
            bar.update(batch.taken)


def _write(
    model: Predictor,
    found: Inputs,
    journal: Journal,
    out: Path,
    identity: dict[str, str],
    *,
    identifiers: bool,
) -> tuple[dict[str, int], Sequence[tuple[str, str]]]:
    """Writes tables and run.json; returns the counts, and (path, reason) of what was refused."""
    refused = sorted([*found.refused, *journal.refused()])
    rows = [dict(zip(tables.REFUSED, one, strict=True)) for one in refused]
    tables.write_table(out / "refused.csv", tables.REFUSED, rows)
    counts = collections.Counter(slices=0, flagged=0, series=0, refused=len(refused))
    if next(journal.rows(), None) is None:
        return dict(counts), refused

    def series() -> Iterable[Row]:
        for members in tables.by_series(journal.rows()):
            counts.update(slices=len(members), series=1)
            counts.update(flagged=sum(bool(row["flags"]) for row in members))
            odd = found.flags.get((members[0]["study"], members[0]["series"]), ())
            row = tables.series_row(model.scorer, members, odd)
            highest.append(row)
            if len(highest) > 2 * _LISTED:
                highest[:] = _highest(highest)
            yield row

    highest: list[Row] = []
    tables.write_table(out / "slices.csv", tables.SLICES, journal.rows())
    tables.write_table(out / "series.csv", tables.SERIES, series())
    about = about_prediction(model, identifiers=identifiers)
    about |= {"counts": dict(counts), "identity": identity}
    highest = _highest(highest)
    page = render_prediction(about, highest, _in_full(model, found, journal, highest), refused)
    # File names that are not UTF-8 arrive as surrogates, which a page cannot hold.
    write_atomically(out / "report.html", page.encode("utf-8", "replace"))
    write_json(out / "run.json", about)
    return dict(counts), refused


def _highest(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of the series with the highest scores; what is unlike comes last."""
    return sorted(rows, key=lambda row: (UNLIKE in row["flags"], -row["probability"]))[:_LISTED]


def _in_full(
    model: Predictor, found: Inputs, journal: Journal, highest: Sequence[Row]
) -> list[Shown]:
    """Returns the first of the highest series with their curves, and maps of their top slices."""
    order = {(row["study"], row["series"]): i for i, row in enumerate(highest[:_IN_FULL])}
    members: dict[int, list[Row]] = {}
    for rows in tables.by_series(journal.rows()):
        if (key := (rows[0]["study"], rows[0]["series"])) in order:
            members[order[key]] = rows
    tops = [tables.top_slices(members[i]) for i in range(len(order))]
    pictured = iter(_picture(model, found, [row for top in tops for row in top]))
    return [
        show_series(i + 1, row, members[i], [next(pictured) for _ in top], model.scorer.threshold)
        for i, (row, top) in enumerate(zip(highest, tops, strict=False))
    ]


def _picture(model: Predictor, found: Inputs, rows: Sequence[Row]) -> list[Pictured]:
    """Returns slices with their Grad-CAM over them, at their own resolution."""
    wanted, positive = {row["path"] for row in rows}, model.scorer.data.classes[1]
    places = {one.path: one for one in found.slices if one.path in wanted}
    looked = model.look([places[row["path"]] for row in rows])
    return [picture_slice(row, *one, positive) for row, one in zip(rows, looked, strict=True)]


def about_prediction(model: Predictor, *, identifiers: bool) -> dict[str, Any]:
    """Returns what run.json says about the model and how its answers were made."""
    scorer, known = model.scorer, model.scorer.typicality
    return {
        "notice": NOTICE,
        "stamps": list(model.stamps),
        "model": dict(model.about),
        "input": contract(scorer.data),
        "decision": decision(scorer),
        "calibrated": "temperature" if scorer.calibration else None,
        "series_score": "the maximum over its slices that are not flagged",
        "typicality": {"limit": known.limit, "images": known.images} if known else None,
        "identifiers": "as in the files" if identifiers else "salted pseudonyms",
        "versions": {"msa_flax": __version__, **environment()["versions"]},
    }


def _summary(model: Predictor, out: Path, counts: dict[str, int]) -> str:
    """Returns the last line of the command."""
    parts = [f"{counts['slices']} slices of {counts['series']} series"]
    parts.append(f"{counts['refused']} files refused (refused.csv)")
    parts.append(f"{counts['flagged']} slices flagged, which are not decided")
    point = model.scorer.operating_point
    parts.append(f"threshold {model.scorer.threshold:.4g}, {_chosen(point)}")
    if PHANTOM in model.stamps:
        parts.append(PHANTOM)
    return f"{out}: {'; '.join(parts)}; {NOTICE}"


def _chosen(point: Any) -> str:
    if point is None:
        return "as configured (evaluate --calibrate --sensitivity chooses one)"
    return f"chosen for a sensitivity of {point.sensitivity:g}"


def _nothing(refused: Sequence[tuple[str, str]], out: Path) -> str:
    """Says that nothing could be predicted, and why most often."""
    if not refused:
        return "expected files to predict, found none"
    reasons = collections.Counter(reason for _, reason in refused)
    reason, count = reasons.most_common(1)[0]
    path = next(path for path, why in refused if why == reason)
    return (
        f"none of {len(refused)} files can be predicted; the commonest reason, of {count}: "
        f"{reason}, such as {path}; {out / 'refused.csv'} lists all"
    )
