"""Names of methods as people spell them."""

import re
import subprocess
import sys

import pytest

from msa_flax.saliency.titles import (
    CONTROLS,
    TITLES,
    canonical_name,
    class_in_file_name,
    closest_name,
)


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        *[("gradcam", "gradcam"), ("GradCAM", "gradcam"), ("grad-cam", "gradcam")],
        *[(spelling, "gradcam_plus_plus") for spelling in ("gradcam++", "GradCAMPlusPlus")],
        *[("hirescam", "hirescam"), ("HiResCAM", "hirescam"), ("xgrad-cam", "xgradcam")],
        *[("layer-cam", "layercam"), ("eigen-cam", "eigencam"), ("EigenGradCAM", "eigen_gradcam")],
        *[("scorecam", "score_cam"), ("score-cam", "score_cam"), ("ablationcam", "ablation_cam")],
        *[("Integrated Gradients", "integrated_gradients"), ("smooth_grad", "smoothgrad")],
    ],
)
def test_the_spellings_of_other_packages_are_understood(spelling, name):
    assert canonical_name(spelling) == name


def test_names_and_titles_are_names_of_their_own_method_and_of_no_other():
    for name, title in TITLES.items():
        assert canonical_name(name) == canonical_name(title) == name
    assert set(CONTROLS) < set(TITLES)


def test_what_is_no_method_has_no_name_and_the_closest_one_is_known():
    assert canonical_name("fullgrad") is None
    assert closest_name("Grad-CAN") == "gradcam"
    assert closest_name("gradcam+") == "gradcam_plus_plus"
    assert closest_name("zzz") is None


def test_titles_are_imported_without_anything_heavy():
    code = (
        "import sys; from msa_flax.saliency.titles import TITLES;"
        "sys.exit(bool({'jax', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_of_classes_become_names_of_files_that_differ():
    assert class_in_file_name("no_fracture") == "no_fracture"
    strange = ("no fracture", "골절", "정상", "a.b", "x" * 200, "../up", "")
    found = [class_in_file_name(name) for name in strange]
    assert len(set(found)) == len(strange)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,81}", name) for name in found)
