"""What readers need of the JSON files of a run, as :func:`msa_flax.files.misshapen` understands it.

A file that was edited, or that another program wrote under the same name, is so refused in one
sentence, before anything is computed from it.
"""

_NUMBER = (float, None)  # null where it is undefined
_ROW = {
    **dict.fromkeys(("method", "measure", "better"), str),
    **dict.fromkeys(("verdict", "verdict_reason"), (str, None)),
    **{"images": int, "score": _NUMBER},
}
FAITHFULNESS = {
    "checkpoint": str,
    "step": int,
    "layer?": (str, None),
    "rule": str,
    "tables": [{"rows": [_ROW], "random_weights": {"*": _NUMBER}}],
}
CONFIG = {
    "config": {
        "name?": str,
        "data?": {"classes?": [str], "root?": str, "*": (str, bool, float, [str])},
        "model?": {"kernel_sizes?": [int]},
        "train?": {"*": (str, bool, float)},
    }
}
HISTORY = {"epoch?": int, "split?": str, "loss?": _NUMBER, "accuracy?": _NUMBER}
