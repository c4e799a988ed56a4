"""The methods by name: what each one needs and costs."""

import dataclasses
import difflib
from collections.abc import Sequence

from msa_flax.saliency.controls import centre_prior, random_map
from msa_flax.saliency.eigencam import eigen_gradcam, eigencam
from msa_flax.saliency.gradcam import gradcam, gradcam_plus_plus, hirescam, layercam, xgradcam
from msa_flax.saliency.input_gradients import integrated_gradients, smoothgrad
from msa_flax.saliency.interface import SaliencyMethod
from msa_flax.saliency.occlusion import occlusion
from msa_flax.saliency.perturbation import ablation_cam, score_cam
from msa_flax.saliency.render import SaliencyError


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A saliency method as a command knows it.

    Attributes:
        explain: the function.
        title: its name in figures and tables.
        from_image: it needs the images, not their features alone: it costs passes through the whole
            network, and needs that memory.
        forward_only: it evaluates the network once for every channel or patch instead of
            differentiating it: hundreds of passes an image.
        antisymmetric: the maps of the two classes differ in their sign alone, so that one of them
            is enough to compute.
    """

    explain: SaliencyMethod
    title: str
    from_image: bool = False
    forward_only: bool = False
    antisymmetric: bool = False

    @property
    def fine(self) -> bool:
        """Whether its maps tell single pixels apart, by gradients; others show regions."""
        return self.from_image and self.antisymmetric and not self.forward_only


METHODS: dict[str, Method] = {
    "gradcam": Method(explain=gradcam, title="Grad-CAM"),
    "gradcam_plus_plus": Method(explain=gradcam_plus_plus, title="Grad-CAM++"),
    "hirescam": Method(explain=hirescam, title="HiResCAM"),
    "xgradcam": Method(explain=xgradcam, title="XGrad-CAM"),
    "layercam": Method(explain=layercam, title="LayerCAM"),
    "eigencam": Method(explain=eigencam, title="Eigen-CAM"),
    "eigen_gradcam": Method(explain=eigen_gradcam, title="Eigen-Grad-CAM"),
    "score_cam": Method(explain=score_cam, title="Score-CAM", from_image=True, forward_only=True),
    "ablation_cam": Method(explain=ablation_cam, title="Ablation-CAM", forward_only=True),
    "integrated_gradients": Method(
        explain=integrated_gradients,
        title="Integrated gradients",
        from_image=True,
        antisymmetric=True,
    ),
    "smoothgrad": Method(
        explain=smoothgrad, title="SmoothGrad", from_image=True, antisymmetric=True
    ),
    "occlusion": Method(
        explain=occlusion, title="Occlusion", from_image=True, forward_only=True, antisymmetric=True
    ),
    "random_map": Method(explain=random_map, title="Random map", from_image=True),
    "centre_prior": Method(explain=centre_prior, title="Centre prior", from_image=True),
}
CONTROLS = ("random_map", "centre_prior")


def choose(names: Sequence[str], *, layer: str | None = None) -> dict[str, Method]:
    """Returns the named methods, in the given order; the name "all" stands for all of them.

    Args:
        names: keys of :data:`METHODS`.
        layer: the layer that they are to explain; None for the backbone's last.

    Raises:
        SaliencyError: an unknown name, or a layer for a method that varies the image and has none;
            names the choices.
    """
    wanted = list(METHODS) if list(names) == ["all"] else list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        near = difflib.get_close_matches(unknown[0], METHODS, 1) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SaliencyError(
            f"method: expected all, or some of {', '.join(METHODS)}; got "
            f"{', '.join(map(repr, unknown)) or 'nothing'}{hint}"
        )
    without = [name for name in wanted if METHODS[name].from_image]
    if layer and without:
        others = ", ".join(name for name, method in METHODS.items() if not method.from_image)
        raise SaliencyError(
            f"layer: {', '.join(without)} has no layer to choose; expected some of {others} "
            f"for {layer!r}"
        )
    return {name: METHODS[name] for name in wanted}
