"""Makes the modules beside it importable: pytest leaves this folder out of the path."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
