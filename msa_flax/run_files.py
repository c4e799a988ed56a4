"""The files of a run that later commands believe: are they what training wrote?"""

import logging
from pathlib import Path

from msa_flax.files import UserError, read_json, sha256

log = logging.getLogger("msa_flax")

RUN_FILES = ("config.json", "splits.csv")  # of a run; run.json has their SHA-256 in "files"
CURVES = "metrics.jsonl"  # grows while a run trains; run.json has its SHA-256 when it has ended

_WEIGHTS = {"source?": str, "hash?": str, "note?": str, "parameters?": int, "kept_initial?": [str]}
RUN_SHAPE = {  # of run.json: all of it may be missing after an early end
    **dict.fromkeys(("msa_flax?", "data_fingerprint?", "date?", "commit?"), (str, None)),
    **{"images?": int, "bad_files?": [(str, list)], "stamps?": [str], "changes?": [str]},
    **{"versions?": {"*": str}, "weights?": (None, _WEIGHTS)},
}


def check_run_files(workdir: Path, *, accept: bool, training: bool = False) -> list[str]:
    """Returns the stamps that name files of a run which are not what training wrote; [] if none.

    Args:
        workdir: of the run.
        accept: whether such files are taken, and named in a stamp, instead of refused.
        training: whether training asks, which writes again what is gone.

    Raises:
        UserError: a file is changed or gone, and is not to be taken.
    """
    path = workdir / "run.json"
    values = read_json(path, RUN_SHAPE)
    known, stamps = values.get("files"), list(values.get("changes", []))
    names = [n for n in (*RUN_FILES, CURVES) if (workdir / n).exists() or not training]
    if isinstance(known, dict):
        names = [n for n in names if n in RUN_FILES or n in known]
        names = [n for n in names if sha256(workdir / n) != known.get(n)]
        wrong = f"{' and '.join(names)} changed since training wrote it"
        stamp = f"files of the run were changed by hand: {', '.join(names)}"
    else:
        names = [] if training and path.exists() else names
        wrong = f"run.json {'has no hashes' if path.exists() else 'is gone'}"
        stamp = f"files of the run could not be checked: {wrong}"
        wrong += ", so that nobody can tell whether files of the run were changed by hand"
    if names and not accept:
        raise UserError(
            f"{workdir}: {wrong}; put the original back, or pass --accept_changes, and everything "
            "that is written says so"
        )
    stamps += [stamp] if names and stamp not in stamps else []
    for one in stamps:
        log.warning("%s: %s", workdir, one)
    return stamps
