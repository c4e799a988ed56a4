"""The page of a prediction, made without a network."""

import numpy as np

from msa_flax.reporting.prediction import picture_slice, render_prediction, show_series

EVIL = "</script><b>=x"


def about(**counts):
    counts = {"series": 2, "slices": 9, "flagged": 1, "refused": 1} | counts
    trained = {"source": "a synthetic phantom", "images": 100, "groups": 12}
    model = {"name": EVIL, "backbone": "mobilenet_v1", "checkpoint": "best", "step": 7}
    window = {"centre": 400.0, "width": 1800.0, "unit": "HU"}
    contract = {"classes": ["intact", "broken"], "image_size": 224, "preprocess": "paper"}
    decision = {"threshold": 0.25, "chosen_by": "the stored operating point", "sensitivity": 0.95}
    return {
        "notice": "",
        "stamps": ["trained on a synthetic phantom: says nothing about patients"],
        "model": {**model, "trained_on": trained},
        "input": {**contract, "equalize": "none", "window": window},
        "decision": decision | {"confidence": 0.95, "counted": "groups"},
        "calibrated": "temperature",
        "typicality": {"limit": 3.0, "images": 100},
        "series_score": "the maximum",
        "identifiers": "salted pseudonyms",
        "versions": {"msa_flax": "1"},
        "identity": {"model": "f" * 64},
        "counts": counts,
    }


def slice_row(i, flags=""):
    row = {"path": f"{i} {EVIL}", "position_mm": 2.5 * i, "probability": 0.1 * i, "flags": flags}
    return row | {"decision": "" if flags else "broken"}


def series_row(name, flags="", patient=""):
    row = {"series": name, "patient": patient, "slices": 9, "probability": 0.9, "flags": flags}
    return row | {"calibrated": None if flags else 0.8, "decision": "" if flags else "broken"}


def shown(number=1, flags="", rows=9):
    slices = [slice_row(i, "unlike the training images" * (i == 3)) for i in range(rows)]
    image = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)
    top = [picture_slice(slices[-1], image, np.eye(7), "broken")]
    return show_series(number, series_row(f"s{number}", flags), slices, top, 0.25)


def page_of_two():
    """A page on two series, of which the second is flagged."""
    series = [series_row("s1", patient="p1"), series_row("s2", "unlike;gap")]
    in_full = [shown(1), shown(2, "unlike;gap")]
    return render_prediction(about(), series, in_full, [(EVIL, "truncated")])
