"""The model card in markdown, as the page of a run shows it, for a model that leaves its run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msa_flax.files import NOTICE, UserError
from msa_flax.reporting import facts
from msa_flax.reporting.checklist import NOT_STATED
from msa_flax.reporting.saved import read_run


def render_card(
    workdir: Path, about: Mapping[str, Any], stamps: Sequence[str], threshold: float, positive: str
) -> str:
    """Returns the model card of a run; what was not evaluated on the test split, it says.

    Args:
        workdir: of the run.
        about: name, backbone, checkpoint, step and trained_on of the model.
        stamps: what must be said beside every result.
        threshold: at and above which an image is called by the positive class.
        positive: the name of that class.
    """
    try:
        run, missing = read_run(workdir, "test"), ""
    except UserError as error:
        run, missing = None, f"Not measured: {error}"
    trained = about["trained_on"]
    groups = trained["groups"] or "an unknown number of"
    sections: dict[str, dict[str, str]] = {
        "Model": {
            "Name": f"{about['name']}, checkpoint {about['checkpoint']}, step {about['step']}",
            "Network": facts.network(run) if run else about["backbone"],
            "Started from": facts.initial_weights(run) if run else "",
            "Trained with": facts.training(run) if run else "",
            "Licence, contact": "",
        },
        "Intended use": {
            "Use": "Research on methods of classifying single CT slices.",
            "Not for": "Diagnosis, triage, any decision about a person: no medical device.",
        },
        "Data": {
            "Trained on": f"{trained['source']}: {trained['images']} images of {groups} groups "
            "(patients or series)",
            "Splits": facts.partitions(run) if run else "",
            "What splits share": facts.disjoint(run) if run else "",
            "Age, sex, scanner, site": "",
            "Consent and ethics": "",
        },
        "Measured": {
            "What is predicted": f"{positive!r} at a probability of {threshold:g} or more",
            "Numbers": facts.main_numbers(run) if run else missing,
        },
    }
    lines = [f"# Model card: {about['name']}", "", f"**{NOTICE}**", ""]
    lines += [f"- **Note:** {stamp}" for stamp in stamps]
    for title, entries in sections.items():
        lines += ["", f"## {title}", ""]
        lines += [f"- {name}: {text or NOT_STATED}" for name, text in entries.items()]
    return "\n".join(lines) + "\n"
