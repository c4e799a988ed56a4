"""The page of a prediction: the series in a table, the highest ones with curves and pictures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msa_flax.plots.charts import Chart, draw_positions
from msa_flax.reporting.gallery import Picture, jpeg_uri
from msa_flax.reporting.tables import Table
from msa_flax.reporting.template import fill
from msa_flax.reporting.text import shown
from msa_flax.saliency.render import overlay

_REFUSED = 100  # files in the table of refused ones; refused.csv has all

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pictured:
    """A slice with its pictures.

    Attributes:
        row: of slices.csv.
        pictures: the slice as it is, and with the map over it.
    """

    row: Row
    pictures: Sequence[Picture]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A series that the page shows in full.

    Attributes:
        row: of series.csv.
        chart: the probability along the position.
        top: the slices that drove its score.
    """

    row: Row
    chart: Chart
    top: Sequence[Pictured]


def picture_slice(row: Row, image: np.ndarray, saliency: np.ndarray, positive: str) -> Pictured:
    """Returns a slice with its pictures, at the resolution of the image.

    Args:
        row: of slices.csv.
        image: uint8 [h, w].
        saliency: the map of what speaks for the positive class, float [mh, mw].
        positive: the name of that class.
    """
    title = f"Grad-CAM, {positive}"
    over = overlay(image, saliency)[..., ::-1]
    alt = f"{title}: where {row['path']} speaks for it"
    pictures = [
        Picture(name="slice", alt=f"slice {row['path']}", uri=jpeg_uri(image)),
        Picture(name=title, alt=alt, uri=jpeg_uri(over)),
    ]
    return Pictured(row=row, pictures=pictures)


def show_series(
    number: int, row: Row, slices: Sequence[Row], top: Sequence[Pictured], threshold: float
) -> Shown:
    """Returns a series that is shown in full.

    Args:
        number: in the page, from 1.
        row: of series.csv.
        slices: its rows of slices.csv.
        top: the slices that drove its score.
        threshold: of a decision.
    """
    title = f"Probability along series {number}"
    chart = draw_positions(str(number), title, slices, threshold)
    return Shown(row=row, chart=chart, top=top)


def render_prediction(
    about: Mapping[str, Any],
    series: Sequence[Row],
    in_full: Sequence[Shown],
    refused: Sequence[tuple[str, str]],
) -> str:
    """Returns the page as HTML.

    Args:
        about: what run.json of the prediction holds.
        series: the first rows of series.csv, the highest first; the page says how many there are.
        in_full: the first of them.
        refused: (path, reason) of every file that was refused.
    """
    return fill(
        "prediction.html.j2",
        scripts=("charts.js", "prediction.js"),
        data={"charts": {f"series-{one.chart.key}": one.chart.figure for one in in_full}},
        about=about,
        in_full=in_full,
        series=_series(series, about["counts"]["series"]),
        refused=_refused(refused),
        positive=about["input"]["classes"][1],
    )


def _series(rows: Sequence[Row], total: int) -> Table:
    more = f" The table shows {len(rows)} of {total}; series.csv has all." * (len(rows) < total)
    return Table(
        title="All series",
        head=["Series", "Patient", "Slices", "Probability", "Calibrated", "Decision", "Flags"],
        rows=[
            [
                *(row["series"], row["patient"] or "unknown", str(row["slices"])),
                shown(row["probability"]),
                "none" if row["calibrated"] is None else shown(row["calibrated"]),
                *(row["decision"] or "not decided", row["flags"].replace(";", "; ") or "none"),
            ]
            for row in rows
        ],
        note="The highest probability first; series that are unlike the training images come last."
        + more,
    )


def _refused(refused: Sequence[tuple[str, str]]) -> Table:
    more = f"The table shows {_REFUSED} of {len(refused)} files; refused.csv has all."
    return Table(
        title="Refused files",
        head=["File", "Reason"],
        rows=[list(one) for one in refused[:_REFUSED]],
        note=more if len(refused) > _REFUSED else "" if refused else "No file was refused.",
    )
