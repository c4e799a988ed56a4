"""Small sets of images that the tests of an audit share."""

import dataclasses

import numpy as np
import pytest

from msa_flax.auditing.audit import audit
from msa_flax.data.examples import Examples
from msa_flax.data.families import Families

SOURCES, COPIES = 40, 3  # images 3 i to 3 i + 2 show source i
N = SOURCES * COPIES
LADDER = [
    {
        "rung": "majority class",
        "validation": {"accuracy": 0.5, "auc": 0.5, "n": 8},
        "test": {"accuracy": 0.25, "auc": None, "n": 4},
    },
    {
        "rung": "slice position",
        "validation": {"accuracy": 0.75, "auc": 0.875, "n": 8},
        "test": {"accuracy": 0.5, "auc": None, "n": 4},
    },
    {"rung": "facts about the files", "reason": "there are no files"},
    {
        "rung": "permuted labels",
        "validation": {"accuracy": 0.9, "auc": 0.9, "n": 8},
        "test": {"accuracy": 0.9, "auc": 0.9, "n": 4},
    },
]
MODEL = {"validation": {"accuracy": 0.7, "auc": 0.8}, "test": {"accuracy": 0.75, "auc": None}}

# Ten images, their families by pixels beside them; h is where names and pixels differ.
TABLE = """
a 0 train      A f1 p1
b 0 train      A f1
c 1 train      A f2 p1
d 1 train      B f2
e 0 validation B f1
f 1 validation B f3
g 0 validation B -
h 1 test       C f3
i 0 test       C f4 p2
j 0 test       C f4 p2
"""


@pytest.fixture(scope="session")
def examples_from():
    return _examples_from


@pytest.fixture(scope="session")
def families_of():
    return _families_of


@pytest.fixture(scope="session")
def simulated():
    return _simulated


@pytest.fixture(scope="session")
def rungs():
    return LADDER


@pytest.fixture(scope="session")
def scores():
    return MODEL


@pytest.fixture
def ten_images():
    return _examples_from(TABLE)


@pytest.fixture
def ten_families():
    return _families_of(0, 0, 2, 2, 0, 5, 6, 2, 8, 8)


def _examples_from(text, *, classes=("normal", "fracture"), height=None, width=None):
    """Reads rows of "id label part group family pixels"; a dash is "", no pixels are unique."""
    rows = [line.split() for line in text.strip().splitlines()]
    rows = [[*row, *"-" * (6 - len(row))] for row in rows]
    columns = [
        np.array(["" if cell == "-" else cell for cell in column])
        for column in zip(*rows, strict=True)
    ]
    example_id, label, part, group, family, pixels = columns
    n = len(example_id)
    return Examples(
        example_id=example_id,
        label=label.astype(int),
        group=group,
        family=family,
        slice_index=np.full(n, -1),
        part=part,
        height=np.full(n, 8) if height is None else np.array(height),
        width=np.full(n, 8) if width is None else np.array(width),
        images=np.zeros((n, 8, 8), np.uint8),
        classes=classes,
        file_hash=np.where(pixels == "", example_id, pixels),
    )


def _families_of(*family):
    """Returns families without the comparisons that they come from."""
    return Families(
        family=np.array(family, int),
        pairs=np.zeros((0, 2), int),
        similarity=np.zeros(0, np.float32),
        degrees=np.zeros(0, np.float32),
        mirrored=np.zeros(0, np.bool_),
        threshold=0.7,
    )


@dataclasses.dataclass
class Case:
    """What an audit is made from; a test changes what it is about."""

    examples: Examples
    families: Families

    def audit(self, **options):
        return audit(self.examples, self.families, name="a set", **options)

    def change(self, **columns):
        self.examples = dataclasses.replace(self.examples, **columns)
        return self

    def change_facts(self, **facts):
        """Replaces some facts; None takes one away."""
        changed = {**self.examples.facts, **facts}
        return self.change(facts={k: fact for k, fact in changed.items() if fact is not None})

    def change_families(self, **fields):
        self.families = dataclasses.replace(self.families, **fields)
        return self


def _simulated(*, tied=True):
    """Forty sources of three copies, in ten groups; the first half of slices is fractured, or any.

    The last eight sources are the validation images, so no copy and no group is in two parts.
    """
    source = np.repeat(np.arange(SOURCES), COPIES)
    rng = np.random.default_rng(0)
    position = np.arange(SOURCES) * 7 % SOURCES  # spread over the groups
    label = (position < SOURCES / 2).astype(int)
    if not tied:
        position = rng.permutation(position)
    first = np.arange(0, N, COPIES)
    examples = Examples(
        example_id=np.array([f"source {i // 3} copy {i % 3}.png" for i in range(N)]),
        label=label[source],
        group=np.array([f"G{i // 4}" for i in source]),
        family=np.full(N, ""),
        slice_index=position[source],
        part=np.where(source < 32, "train", "validation"),
        height=np.full(N, 224),
        width=np.full(N, 224),
        facts={
            "bytes": rng.normal(1000, 100, SOURCES)[source],
            "height": np.full(N, 224.0),
            "width": np.full(N, 224.0),
            "mean": rng.normal(100, 10, N),
        },
        images=rng.integers(0, 256, (N, 16, 16), dtype=np.uint8),
        file_hash=np.array([f"{i}" for i in range(N)]),
    )
    families = Families(
        family=first[source],
        # Every copy with its source, and every source with the next one.
        pairs=np.array([(i - i % 3, i) for i in range(N) if i % 3] + [(0, 3), (3, 6)]),
        similarity=np.array([0.9] * (2 * SOURCES) + [0.1, 0.2], np.float32),
        degrees=np.full(2 * SOURCES + 2, 30, np.float32),
        mirrored=np.arange(2 * SOURCES + 2) % 2 == 1,
        threshold=0.7,
    )
    return Case(examples=examples, families=families)
