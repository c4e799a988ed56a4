"""The scripts import one another as plain modules of their folder; so do their tests."""

import pathlib
import sys

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
sys.path[:0] = [str(FOLDER), str(FOLDER / "published")]
