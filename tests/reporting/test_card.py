"""The model card says what a run's page says, and what nobody has measured."""

from prediction_tables import mostly_right
from saved_runs import write_run

from msa_flax.files import NOTICE
from msa_flax.reporting.card import render_card

ABOUT = {
    **{"name": "toy", "backbone": "mobilenet_v1", "checkpoint": "best", "step": 7},
    "trained_on": {"source": "folder", "images": 180, "groups": 0},
}


def test_a_card_says_what_the_page_says(tmp_path):
    workdir = write_run(tmp_path / "run", mostly_right())
    card = render_card(
        workdir, about=ABOUT, stamps=["a stamp"], threshold=0.25, positive="fracture"
    )
    assert card.startswith("# Model card: toy\n")
    for said in (
        f"**{NOTICE}**",
        "- **Note:** a stamp",
        "mobilenet_v1 (width 1.0)",
        "180 images of an unknown number of groups",
        "'fracture' at a probability of 0.25 or more",
        "images of test: accuracy",
        "Not stated by the software",
    ):
        assert said in card
    assert "/data/toy" not in card  # where the images lie is nobody's business


def test_a_run_that_was_not_evaluated_says_so(tmp_path):
    card = render_card(tmp_path, about=ABOUT, stamps=[], threshold=0.5, positive="fracture")
    assert "- Numbers: Not measured: " in card
    assert "- Network: mobilenet_v1" in card
