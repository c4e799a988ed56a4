import copy_search
import numpy as np

from msa_flax.data.phantom import draw_patient


def test_a_search_is_measured_by_its_hits_and_its_false_hits():
    sources = [one.image for one in draw_patient(3, 0)][:3]
    assert copy_search.measure(sources, copy_search.KINDS["cropped by 6 %"]) == (3, 0, 0)
    others = iter(one.image for one in draw_patient(3, 1))
    assert copy_search.measure(sources, lambda image, rng: next(others)) == (0, 0, 0)
    first = sources[0]
    hits, false, _ = copy_search.measure(sources, lambda image, rng: np.rot90(first))
    assert (hits, false) == (1, 4)  # the first source and three copies of it
