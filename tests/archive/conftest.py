"""Programs of others are started by what the soak of the archive uses too."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2] / "experiments/faults"))
