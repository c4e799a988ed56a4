"""The page's script computes the numbers of a threshold as the evaluation defines them."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from msa_flax.evaluation.metrics import confusion, rates
from msa_flax.reporting.template import TEMPLATES
from msa_flax.reporting.text import shown

NODE = shutil.which("node")
THRESHOLDS = (0.0, 0.1, 0.123, 0.3, 0.5, 0.7, 0.9, 1.0)


@pytest.fixture(scope="module")
def of_the_script():
    """Returns counts, numbers and texts that the script makes at each threshold."""
    if NODE is None:
        pytest.skip("node is not installed; the tests in a browser check the same")
    script = (TEMPLATES / "operating_point.js").read_text()

    def run(labels, probabilities):
        data = json.dumps([labels.tolist(), [float(f"{p:.9g}") for p in probabilities], THRESHOLDS])
        code = (
            f"{script}\nconst [labels, probabilities, thresholds] = {data};\n"
            "console.log(JSON.stringify(thresholds.map((t) => {\n"
            "  const counts = confusion(labels, probabilities, t), numbers = rates(counts);\n"
            "  const texts = Object.entries(numbers).map(([key, value]) => [key, shown(value)]);\n"
            "  return [counts, numbers, Object.fromEntries(texts)];\n"
            "})));"
        )
        command = [NODE, "--input-type=commonjs", "-e", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return run


def examples():
    """Scores of which some lie on a threshold in float32 alone; one class; one image."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    probabilities = np.clip(rng.normal(0.5, 0.3, 300), 0, 1).astype(np.float32)
    probabilities[:4] = (0.1, 0.3, 0.7, 0.123)  # 0.1 is not the float32 nearest to it
    yield labels, probabilities
    yield np.ones(5, int), np.linspace(0, 1, 5, dtype=np.float32)
    yield np.zeros(5, int), np.linspace(0, 1, 5, dtype=np.float32)


@pytest.mark.parametrize("labels_and_probabilities", list(examples()), ids=("both", "1", "0"))
def test_counts_and_numbers_are_those_of_the_evaluation(of_the_script, labels_and_probabilities):
    labels, probabilities = labels_and_probabilities
    found = of_the_script(labels, probabilities)
    for threshold, (counts, numbers, texts) in zip(THRESHOLDS, found, strict=True):
        expected = confusion(labels, probabilities, threshold)
        assert counts == expected
        defined = {name: float(value) for name, value in rates(**expected).items()}
        assert numbers.keys() == defined.keys()
        for name, value in defined.items():
            if np.isnan(value):
                assert numbers[name] is None
            else:
                assert numbers[name] == pytest.approx(value, rel=1e-15)
            assert texts[name] == shown(value)
