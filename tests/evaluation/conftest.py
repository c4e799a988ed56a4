"""Makes ``prediction_tables.py`` importable: pytest's import mode leaves this folder out."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
