"""The methods' names: in files, in titles, and as people spell them. Imports nothing heavy."""

import difflib
import re

TITLES = {  # the name in files and flags: the title in figures and tables
    "gradcam": "Grad-CAM",
    "gradcam_plus_plus": "Grad-CAM++",
    "hirescam": "HiResCAM",
    "xgradcam": "XGrad-CAM",
    "layercam": "LayerCAM",
    "eigencam": "Eigen-CAM",
    "eigen_gradcam": "Eigen-Grad-CAM",
    "score_cam": "Score-CAM",
    "ablation_cam": "Ablation-CAM",
    "integrated_gradients": "Integrated gradients",
    "smoothgrad": "SmoothGrad",
    "occlusion": "Occlusion",
    "random_map": "Random map",
    "centre_prior": "Centre prior",
}
CONTROLS = ("random_map", "centre_prior")  # they know nothing of the network


def canonical_name(spelling: str) -> str | None:
    """Returns the name in files of a method however it is spelt, or None for an unknown one.

    Case and everything but letters, digits and "+" are ignored, and "+" is read as "plus". So
    "GradCAM++", "grad-cam++" and "GradCAMPlusPlus" are all ``gradcam_plus_plus``, as in the
    package ``grad-cam``, and every title is a name too.
    """
    return _NAMES.get(_letters(spelling))


def closest_name(spelling: str) -> str | None:
    """Returns the method whose name is most like an unknown one, or None if none is like it."""
    close = difflib.get_close_matches(_letters(spelling), _NAMES, 1)
    return _NAMES[close[0]] if close else None


def _letters(spelling: str) -> str:
    return re.sub(r"[^a-z0-9]", "", spelling.lower().replace("+", "plus"))


_NAMES = {_letters(name): name for name in TITLES}
