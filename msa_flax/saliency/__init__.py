"""Explanations: maps of what speaks for a class, their pictures and files, and tests of them.

Every method is one function ``(features_fn, head_fn, images, target) -> maps``, for any network in
two halves; :func:`at_layer` cuts a Flax Linen model in two at any layer.
"""

from msa_flax.saliency.assessment import Settings, assess
from msa_flax.saliency.controls import attention_maps, attention_method, centre_prior, random_map
from msa_flax.saliency.eigencam import eigen_gradcam, eigencam
from msa_flax.saliency.examination import Examination, examination_json, examine
from msa_flax.saliency.explanations import (
    Explanations,
    explain_images,
    make_explain_step,
    mass_report,
    table,
    write_explanations,
)
from msa_flax.saliency.gradcam import (
    gradcam,
    gradcam_plus_plus,
    hirescam,
    layercam,
    xgradcam,
)
from msa_flax.saliency.input_gradients import integrated_gradients, smoothgrad
from msa_flax.saliency.interface import FeaturesFn, HeadFn, SaliencyMethod, Target
from msa_flax.saliency.layers import Split, at_layer, layer_names
from msa_flax.saliency.methods import METHODS, Method, choose
from msa_flax.saliency.occlusion import occlusion
from msa_flax.saliency.perturbation import ablation_cam, score_cam
from msa_flax.saliency.render import (
    SaliencyError,
    area_share,
    attention_image,
    display,
    mass_inside,
    overlay,
    safe_stem,
    upsample,
    write_explanation,
)
from msa_flax.saliency.sanity import label_randomisation

__all__ = [
    "METHODS",
    "Examination",
    "Explanations",
    "FeaturesFn",
    "HeadFn",
    "Method",
    "SaliencyError",
    "SaliencyMethod",
    "Settings",
    "Split",
    "Target",
    "ablation_cam",
    "area_share",
    "assess",
    "at_layer",
    "attention_image",
    "attention_maps",
    "attention_method",
    "centre_prior",
    "choose",
    "display",
    "eigen_gradcam",
    "eigencam",
    "examination_json",
    "examine",
    "explain_images",
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "integrated_gradients",
    "label_randomisation",
    "layer_names",
    "layercam",
    "make_explain_step",
    "mass_inside",
    "mass_report",
    "occlusion",
    "overlay",
    "random_map",
    "safe_stem",
    "score_cam",
    "smoothgrad",
    "table",
    "upsample",
    "write_explanation",
    "write_explanations",
    "xgradcam",
]
