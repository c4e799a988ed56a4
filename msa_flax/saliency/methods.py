"""The table of methods: the function of each name, and what it needs and costs."""

import dataclasses
from collections.abc import Sequence

from msa_flax.saliency import cam, controls, gradients, perturbation
from msa_flax.saliency.interface import SaliencyError, SaliencyMethod
from msa_flax.saliency.titles import canonical_name, closest_name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MethodEntry:
    """A method as the table of methods has it.

    Attributes:
        explain: the function.
        from_image: it needs the images, not only their features: it costs passes through the whole
            network, and the memory of those passes.
        forward_only: it evaluates the network once for every channel or patch instead of
            differentiating it: hundreds of passes per image.
        antisymmetric: the maps of the two classes differ only in their sign, so that one of them is
            enough to compute.
    """

    explain: SaliencyMethod
    from_image: bool = False
    forward_only: bool = False
    antisymmetric: bool = False

    @property
    def fine(self) -> bool:
        """Whether its maps tell single pixels apart, by gradients; others show regions."""
        return self.from_image and self.antisymmetric and not self.forward_only


METHODS: dict[str, MethodEntry] = {
    "gradcam": MethodEntry(explain=cam.gradcam),
    "gradcam_plus_plus": MethodEntry(explain=cam.gradcam_plus_plus),
    "hirescam": MethodEntry(explain=cam.hirescam),
    "xgradcam": MethodEntry(explain=cam.xgradcam),
    "layercam": MethodEntry(explain=cam.layercam),
    "eigencam": MethodEntry(explain=cam.eigencam),
    "eigen_gradcam": MethodEntry(explain=cam.eigen_gradcam),
    "score_cam": MethodEntry(explain=perturbation.score_cam, from_image=True, forward_only=True),
    "ablation_cam": MethodEntry(explain=perturbation.ablation_cam, forward_only=True),
    "integrated_gradients": MethodEntry(
        explain=gradients.integrated_gradients, from_image=True, antisymmetric=True
    ),
    "smoothgrad": MethodEntry(explain=gradients.smoothgrad, from_image=True, antisymmetric=True),
    "occlusion": MethodEntry(
        explain=perturbation.occlusion, from_image=True, forward_only=True, antisymmetric=True
    ),
    "random_map": MethodEntry(explain=controls.random_map, from_image=True),
    "centre_prior": MethodEntry(explain=controls.centre_prior, from_image=True),
}


def choose(names: Sequence[str], *, layer: str | None = None) -> dict[str, MethodEntry]:
    """Returns the named methods, in the given order; the name "all" stands for all of them.

    Args:
        names: keys of :data:`METHODS`, or other spellings of them such as "GradCAM++"; see
            :func:`msa_flax.saliency.titles.canonical_name`.
        layer: the layer that they are to explain; None for the backbone's last.

    Raises:
        SaliencyError: an unknown name, or a layer for a method that varies the image and has none;
            names the choices.
    """
    spelt = list(METHODS) if list(names) == ["all"] else names
    known = {name: canonical_name(name) for name in spelt}
    unknown = [name for name, canonical in known.items() if canonical is None]
    if unknown or not known:
        near = closest_name(unknown[0]) if unknown else None
        raise SaliencyError(
            f"method: expected all, or some of {', '.join(METHODS)}; got "
            f"{', '.join(map(repr, unknown)) or 'nothing'}"
            + (f"; did you mean {near}?" if near else "")
        )
    chosen = {name: METHODS[name] for name in known.values() if name}
    without = [name for name, method in chosen.items() if method.from_image]
    if layer and without:
        others = ", ".join(name for name, method in METHODS.items() if not method.from_image)
        raise SaliencyError(
            f"layer: {', '.join(without)} has no layer to choose; expected some of {others} "
            f"for {layer!r}"
        )
    return chosen
