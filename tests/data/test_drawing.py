import numpy as np
import pytest

from msa_flax.data.drawing import Canvas, arc, mirror, oval, ribbon, turned


def canvas(**changes):
    plain = {
        "side": 200,
        "scale": 2.0,
        "matrix": 2 * np.eye(2),
        "origin": np.full(2, 100.0),
        "waves": np.zeros((2, 3)),
        "phases": np.zeros(3),
        "bend": np.zeros((3, 2)),
    }
    return Canvas(**(plain | changes))


def area(polygon):  # mm2, of the shape as it is drawn
    return np.count_nonzero(canvas().region(polygon)) / 4


def test_a_filled_shape_has_the_area_of_its_formula():
    # 24 corners lie inside the ellipse by 1 %; a filled outline adds half a grid point around it.
    assert area(oval(0, 0, 20, 10)) == pytest.approx(np.pi * 200, rel=0.05)
    assert area(ribbon([(-20, 0), (20, 0)], 10)) == pytest.approx(400, rel=0.07)
    assert area(ribbon([(-20, 0), (20, 0)], 2, 18)) == pytest.approx(400, rel=0.1)  # a wedge


def test_a_higher_power_fills_the_corners_of_an_oval():
    areas = [area(oval(0, 0, 20, 20, power)) for power in (2, 3, 8)]
    assert areas == sorted(areas)
    assert areas[-1] < 1600 * 1.05  # the square around it, and half a grid point


def test_angles_run_from_the_right_to_the_back():
    ends = arc((1, 2), (10, 5), 0, 90)[[0, -1]]
    np.testing.assert_allclose(ends, [(11, 2), (1, 7)], atol=1e-9)
    np.testing.assert_allclose(np.array([(1.0, 0.0)]) @ turned(90), [(0, 1)], atol=1e-9)


def test_a_mirrored_shape_lies_on_the_other_side():
    right, left = mirror(oval(30, 5, 4, 4))
    np.testing.assert_array_equal(left, right * (-1, 1))


def test_shapes_are_placed_turned_and_bent():
    point = np.array([(10.0, 0.0)])
    assert canvas().place(point).tolist() == [[16 * 120, 16 * 100]]
    assert canvas(matrix=2 * turned(90)).place(point).tolist() == [[16 * 100, 16 * 120]]
    bent = canvas(phases=np.full(3, np.pi / 2), bend=np.ones((3, 2)))
    assert bent.place(point).tolist() == [[16 * 126, 16 * 106]]  # three waves of 1 mm at their top
