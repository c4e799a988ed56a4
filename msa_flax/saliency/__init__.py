"""Explanations: maps of what speaks for a class (Grad-CAM), their pictures and their files."""

from msa_flax.saliency.explanations import (
    Explanations,
    explain_images,
    make_explain_step,
    write_explanations,
)
from msa_flax.saliency.gradcam import SaliencyMethod, gradcam
from msa_flax.saliency.render import (
    SaliencyError,
    area_share,
    attention_image,
    mass_inside,
    overlay,
    safe_stem,
    upsample,
    write_explanation,
)

__all__ = [
    "Explanations",
    "SaliencyError",
    "SaliencyMethod",
    "area_share",
    "attention_image",
    "explain_images",
    "gradcam",
    "make_explain_step",
    "mass_inside",
    "overlay",
    "safe_stem",
    "upsample",
    "write_explanation",
    "write_explanations",
]
