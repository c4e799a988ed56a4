"""Predictions, runs and figures for the tests of plots."""

import pytest

from msa_flax.evaluation.summary import metrics_json

STAMPS = ["copies cross the split"]


@pytest.fixture(scope="session")
def metrics_of():
    """Returns metrics.json of predictions."""
    options = {"split": "test", "threshold": 0.25, "stamps": STAMPS, "seconds": 1.0}
    return lambda table: metrics_json(table, **options)


@pytest.fixture
def saved_figures(monkeypatch):
    """The matplotlib figures that are saved, in their order."""
    from matplotlib.figure import Figure

    saved, original = [], Figure.savefig

    def savefig(self, *args, **kwargs):
        original(self, *args, **kwargs)
        saved.append(self)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


@pytest.fixture
def texts(saved_figures):
    """Returns the texts of the figure that was saved last."""
    from matplotlib.text import Text

    return lambda: [text.get_text() for text in saved_figures[-1].findobj(Text) if text.get_text()]


@pytest.fixture
def assert_sound(saved_figures, texts, tmp_path):
    """Checks of any figure, given a function that draws it to a path.

    The same bytes each time and under any matplotlibrc, nothing over the edge, notice and stamps.
    """

    def check(draw, stamps=STAMPS):
        import cv2
        import matplotlib as mpl

        draw(tmp_path / "a.png")
        with mpl.rc_context({"font.size": 30, "axes.grid": True, "savefig.dpi": 20}):
            draw(tmp_path / "b.png")
            assert mpl.rcParams["font.size"] == 30  # the user's settings are left alone
        data = (tmp_path / "a.png").read_bytes()
        assert data == (tmp_path / "b.png").read_bytes()
        assert b"Software" not in data
        picture = cv2.imread(str(tmp_path / "a.png"))
        assert picture.min() < 128 < picture.max()
        for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
            assert edge.min() == 255
        assert {"Research use only, not a medical device.", *stamps} <= set(texts())

    return check
