"""The model card in markdown, as the page of a run shows it, for a model that leaves its run."""

from pathlib import Path
from typing import Any

from msa_flax.files import UserError
from msa_flax.reporting import facts
from msa_flax.reporting.checklist import NOT_STATED
from msa_flax.reporting.saved import SavedRun, read_run
from msa_flax.reporting.template import fill_text


def render_card(workdir: Path, **values: Any) -> str:
    """Returns the model card of a run; what was not evaluated on the test split, it says.

    Args:
        workdir: of the run.
        values: about (name, backbone, checkpoint, step and trained_on of the model), stamps (what
            must be said beside every result), threshold, and positive, the class that it decides.
    """
    run: SavedRun | None = None
    missing = ""
    try:
        run = read_run(workdir, "test")
    except UserError as error:
        missing = str(error)
    known = {"run": run, "missing": missing, "facts": facts, "not_stated": NOT_STATED}
    return fill_text("card.md.j2", **known, **values)
