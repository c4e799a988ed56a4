"""Names of methods, images and classes: in files, in titles, as people spell them.

It imports nothing heavy.
"""

import difflib
import hashlib
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


def safe_stem(example_id: str) -> str:
    """Returns a file name without ending for any example id, one that stays in its folder.

    A readable part of ASCII letters, digits, "_" and "-", then 16 hexadecimal digits of the id's
    SHA-256, so that different ids get different names even where case is ignored. At most 81
    characters.
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", example_id).strip("-")[:64] or "example"
    digest = hashlib.sha256(example_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}-{digest[:16]}"


def class_in_file_name(name: str) -> str:
    """Returns the name of a class as the files of its maps have it.

    A plain name is taken as it is, any other as :func:`safe_stem` makes it one.
    """
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) else safe_stem(name)


def _letters(spelling: str) -> str:
    return re.sub(r"[^a-z0-9]", "", spelling.lower().replace("+", "plus"))


_NAMES = {_letters(name): name for name in TITLES}
