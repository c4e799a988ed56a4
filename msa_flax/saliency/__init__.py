"""Explanations: maps of what speaks for a class, their pictures and files, and tests of them.

Every method is one function ``(features_fn, head_fn, images, target) -> maps``, for any network in
two halves; :func:`at_layer` cuts a Flax Linen model in two at any layer. README.md beside this file
is the guide.

The names below are the public interface; they are imported on first use, so that a report can use
the methods' titles without JAX.
"""

import importlib
from typing import Any

_NAMES = {
    "cam": "eigen_gradcam eigencam gradcam gradcam_plus_plus hirescam layercam xgradcam",
    "controls": "attention_maps centre_prior random_map",
    "explain": "Explanations explain_images make_explain_step",
    "gradients": "integrated_gradients smoothgrad",
    "interface": "FeaturesFn HeadFn SaliencyError SaliencyMethod Target",
    "masks": "area_share mass_inside upsample",
    "methods": "METHODS MethodEntry choose",
    "network": "SplitNetwork at_layer layer_names",
    "outputs": "explanations_csv mass_report write_explanation write_explanations",
    "perturbation": "ablation_cam occlusion score_cam",
    "render": "attention_image display overlay",
    "titles": "CONTROLS TITLES canonical_name class_in_file_name safe_stem",
    "trials.agreement": "label_randomisation",
    "trials.examine": "Examination assess examine",
    "trials.removal": "Settings",
    "trials.tables": "examination_json examination_text",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'msa_flax.saliency' has no attribute {name!r}")
    return getattr(importlib.import_module(f"msa_flax.saliency.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
