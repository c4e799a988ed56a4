"""The table of methods: what is chosen by which name, and what is refused."""

import pytest

from msa_flax.saliency.interface import SaliencyError
from msa_flax.saliency.methods import METHODS, choose
from msa_flax.saliency.titles import TITLES


def test_unknown_methods_and_layers_for_the_wrong_ones_are_refused_by_name():
    with pytest.raises(SaliencyError, match=r"got 'gradcan'; did you mean gradcam\?") as caught:
        choose(["hirescam", "gradcan"])
    assert caught.value.exit_code == 2
    assert all(name in str(caught.value) for name in METHODS)
    with pytest.raises(SaliencyError, match="got nothing"):
        choose([])
    with pytest.raises(SaliencyError, match="score_cam has no layer to choose"):
        choose(["gradcam", "Score-CAM"], layer="backbone/first")


def test_names_are_chosen_in_their_order_and_once_however_they_are_spelt():
    assert list(choose(["occlusion", "gradcam", "Grad-CAM"])) == ["occlusion", "gradcam"]
    assert list(choose(["all"])) == list(METHODS)


def test_every_method_has_a_title_and_every_title_a_method():
    assert list(METHODS) == list(TITLES)
