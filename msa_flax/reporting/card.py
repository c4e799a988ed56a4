"""A model card: what one must know of a model before using it, from a run's own files."""

from msa_flax.reporting import checklist
from msa_flax.reporting.artefacts import Artefacts
from msa_flax.reporting.checklist import NOT_STATED, get

Rows = list[tuple[str, str]]


def card(run: Artefacts) -> list[tuple[str, Rows]]:
    """Returns the sections of the card (Mitchell et al. 2019), each with its terms and texts."""
    positive = run.classes[1]
    groups = run.metrics.get("groups") or 0
    sections: list[tuple[str, Rows]] = [
        (
            "Model",
            [
                ("Name", run.name),
                ("Date of training", str(run.run.get("date", ""))),
                ("Network", checklist.network(run)),
                ("Started from", checklist.initial(run)),
                ("Trained with", checklist.training(run)),
                ("Licence, contact", ""),
            ],
        ),
        (
            "Intended use",
            [
                ("Use", "Research on methods of classifying single CT slices."),
                (
                    "Not for",
                    "Diagnosis, triage, any decision about a person: it is not a medical device.",
                ),
            ],
        ),
        (
            "Data",
            [
                ("Splits", checklist.partitions(run)),
                ("What splits share", checklist.disjoint(run)),
                ("Groups in this evaluation", str(groups) if groups else "unknown"),
                ("Age, sex, scanner, site", ""),
                ("Consent and ethics", ""),
            ],
        ),
        (
            "Measured",
            [
                (
                    "What is called",
                    f"{positive!r} at a probability of {run.threshold:g} or more; probabilities "
                    "are as the network gives them (see the reliability curve).",
                ),
                ("Numbers", checklist.main_numbers(run)),
                ("Beside shortcuts", _shortcuts(run)),
            ],
        ),
        (
            "Caveats",
            [
                ("Of this split", "; ".join(run.metrics["stamps"]) or "None that is known."),
                (
                    "Of the method",
                    "A slice is judged by itself, without its neighbours; Grad-CAM shows where "
                    "the network's score is sensitive, not why, and is no proof of a finding.",
                ),
                ("Other limits, fairness, risks", ""),
            ],
        ),
    ]
    return [(title, [(t, text or NOT_STATED) for t, text in rows]) for title, rows in sections]


def _shortcuts(run: Artefacts) -> str:
    scored = [r for r in run.audit.get("ladder", []) if get(r, f"{run.split}.accuracy", None)]
    return (
        "Compared with shortcuts: see the summary."
        if scored
        else f"Not known: python -m msa_flax.audit --ladder --workdir {run.workdir} measures it."
    )
