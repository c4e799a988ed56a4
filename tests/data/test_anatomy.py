import numpy as np
import pytest

from msa_flax.data import anatomy


def outlines(bone):
    return {name: np.concatenate(shapes) for name, shapes in bone.parts.items()}


@pytest.mark.parametrize("number", [2.5, 4.25, 5.9])
def test_a_vertebra_between_two_levels_lies_between_their_shapes(number):
    between, above, below = (
        outlines(anatomy.vertebra(n)) for n in (number, int(number), int(number) + 1)
    )
    share = number % 1
    for name in ("body", "spinous", "pillars"):  # those whose outlines do not bend
        np.testing.assert_allclose(
            between[name], (1 - share) * above[name] + share * below[name], atol=1e-9
        )


@pytest.mark.parametrize(
    "bone", [anatomy.skull_base(), anatomy.atlas(), *map(anatomy.vertebra, range(2, 8))]
)
def test_every_site_names_a_part_and_lies_near_it(bone):
    for site in bone.all_sites():
        shape = np.concatenate(bone.parts[site.part])
        low, high = shape.min(axis=0), shape.max(axis=0)
        assert (low <= (site.x, site.y)).all()
        assert ((site.x, site.y) <= high).all()


def test_sites_of_a_pair_are_on_both_sides():
    bone = anatomy.atlas()
    sides = sorted(np.sign(site.x) for site in bone.all_sites())
    assert sides == [-1] * len(bone.pairs) + [0] * len(bone.sites) + [1] * len(bone.pairs)


def test_soft_tissue_ends_at_the_skin_and_changes_smoothly():
    def points(level):
        found = anatomy.soft_tissue(level, fat=5, blood=50, airway=1)
        return np.concatenate([shape for _, shapes in found for shape in shapes])

    x, front, back = anatomy.skin(3.5)
    drawn = points(3.5)
    assert (drawn[:, 0].max(), drawn[:, 1].min()) == pytest.approx((x, front))
    assert drawn[:, 1].max() == pytest.approx(back, rel=0.01)  # no corner lies straight behind
    # The steepest outline, the shoulder, widens by 32 mm per level.
    assert np.abs(points(6.51) - points(6.5)).max() < 0.33
