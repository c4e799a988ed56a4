import numpy as np
import phantom_bones
import pytest

from msa_flax.data.drawing import Canvas

SIDE = 320


@pytest.fixture(scope="module")
def pieces():
    return phantom_bones.make_pieces(1.0, [0.0] * 9, 0.0, np.random.default_rng(0))


@pytest.fixture(scope="module")
def canvas():
    return Canvas(
        side=SIDE,
        scale=2.0,
        matrix=2 * np.eye(2),
        origin=np.full(2, SIDE / 2),
        waves=np.zeros((2, 3)),
        phases=np.zeros(3),
        bend=np.zeros((3, 2)),
    )


def volume(canvas, pieces, heights):
    return np.stack([phantom_bones.draw_bones(canvas, pieces, z)[0] for z in heights])


def test_levels_follow_each_other_from_head_to_chest(canvas, pieces):
    drawn = volume(canvas, pieces, np.arange(2, 147, 2.0))
    middle = [np.argwhere(drawn == number)[:, 0].mean() for number in range(1, 9)]
    assert middle == sorted(middle)
    assert (drawn == phantom_bones.SKULL)[0].any()
    assert all((slice_ > 0).any() and np.isin(slice_, range(1, 8)).any() for slice_ in drawn)


def test_neighbouring_slices_show_the_same_bones(canvas, pieces):
    near, far = (volume(canvas, pieces, np.arange(40.0, 120.0, 8) + shift) for shift in (0.25, 4.0))
    here = volume(canvas, pieces, np.arange(40.0, 120.0, 8))

    def overlap(a, b):
        return ((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum()

    assert overlap(here, near) > 0.9  # a quarter of a millimetre away
    assert overlap(here, far) < 0.8  # so that the bound above says something


def test_the_dens_is_the_second_vertebra_inside_the_ring_of_the_first(canvas, pieces):
    owner, _ = phantom_bones.draw_bones(canvas, pieces, phantom_bones.MIDDLES[1])
    ring, dens = (np.argwhere(owner == number) for number in (1, 2))
    assert (ring.min(0) < dens.min(0)).all()
    assert (ring.max(0) > dens.max(0)).all()


def test_bones_are_densest_at_their_ends_in_height(canvas, pieces):
    body = next(p for p in pieces if (p.number, p.part) == (5, "body"))
    point = tuple((canvas.place(np.array([[0.0, -17.0]]))[0] // 16)[::-1])
    distances = [
        phantom_bones.draw_bones(canvas, pieces, body.middle + z)[1][point] / 16
        for z in (0, 3, body.half - 1)
    ]
    assert distances == pytest.approx([body.half, body.half - 3, 1], abs=0.05)  # 1/16 mm


def test_a_tilt_moves_what_lies_behind_down(pieces):
    tilted = phantom_bones.make_pieces(1.0, [0.1] * 9, 0.0, np.random.default_rng(0))
    for plain, moved in zip(pieces[1:], tilted[1:], strict=True):
        assert moved.middle - plain.middle == pytest.approx(0.1 * plain.outline[:, 1].mean())


def test_every_height_has_places_to_break(pieces):
    counts = [len(phantom_bones.sites_at(pieces, z)) for z in np.arange(4, 147, 1.0)]
    assert min(counts) >= 1
    assert {p.number for z in range(2, 147) for _, p in phantom_bones.sites_at(pieces, z)} == set(
        range(1, 8)
    )
