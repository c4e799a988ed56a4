"""The tables hold what finished runs have left behind, and nothing else."""

from types import SimpleNamespace

import aggregate
import pytest

from msa_flax.config import Config


@pytest.fixture
def small_ablation():
    return SimpleNamespace(
        __name__="t",
        TITLE="A table",
        METRICS=("auc",),
        ROWS={"none": "without", "msa": "with", "k3": "three"},
        PAPER={"msa": {"auc": 0.9}},
        BASELINES={"msa": "none", "k3": "none"},
        get_config=lambda row: Config(),
    )


def cells(text, name):
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_table_shows_mean_and_range_paired_differences_and_what_was_not_run(
    write_run, small_ablation, tmp_path
):
    for seed, (without, with_it) in enumerate([(0.5, 0.7), (0.6, 0.7), (0.7, 1.0)]):
        write_run(tmp_path / f"t/none/seed-{seed}", seed=seed, auc=without)
        write_run(tmp_path / f"t/msa/seed-{seed}", seed=seed, auc=with_it, stamps=["a stamp"])
    text = aggregate.markdown(small_ablation, tmp_path)
    assert "Stamps: a stamp." in text
    assert ". No 95 % interval over patients: 1 group; needs 10. 2026-01-02, Linux" in text
    assert cells(text, "without")[1:3] == ["0.6000 [0.5000, 0.7000]", ""]
    # differences 0.2, 0.1, 0.3: mean 0.2, standard error 0.1 / sqrt(3), t(2 degrees) 4.3027
    expected = "+0.2000 [-0.0484, +0.4484]"
    assert cells(text, "with")[1:3] == ["0.9; ours 0.8000 [0.7000, 1.0000]", expected]
    assert cells(text, "three")[1] == "not run here"
    assert cells(text, "with")[3:] == [
        *("from scratch", "2", "0 1 2", "3,229,889", "1.14", "0.250 (cpu)", "1.5")
    ]


def test_an_undefined_metric_stays_undefined(write_run, small_ablation, tmp_path):
    write_run(tmp_path / "t/none/seed-0", seed=0, auc=None)
    write_run(tmp_path / "t/none/seed-1", seed=1, auc=0.5)
    text = aggregate.markdown(small_ablation, tmp_path)
    assert cells(text, "without")[1] == "undefined"


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (None, "from scratch"),
        ({"hash": "unknown", "source": "mine.h5"}, "mine.h5"),
        (
            {
                "hash": "5ce2dffbe3268af3673750bbc23bf38e6574be0b839491969c4843741d040344",
                "source": "a.h5",
            },
            "ImageNet",
        ),
        (
            {
                "hash": "fa3b084a7fc661f7602d18c01217f1a77f540d8e608de3ccf8d88d4ca6c11bbd",
                "source": "b.h5",
            },
            "ImageNet, re-expressed BatchNorm",
        ),
    ],
)
def test_the_weights_are_named_by_their_tensors(write_run, small_ablation, tmp_path, report, said):
    write_run(tmp_path / "t/none/seed-0", seed=0, auc=0.5, weights=report)
    assert cells(aggregate.markdown(small_ablation, tmp_path), "without")[3] == said


def test_networks_from_random_weights_are_shown_on_both_splits_once_each(
    write_run, small_ablation, tmp_path, monkeypatch
):
    other = SimpleNamespace(
        **vars(small_ablation) | {"__name__": "u", "TITLE": "Paper 3, Table 9: more"}
    )
    other.SHARED = {"msa": "t/msa"}
    tables = {"t": small_ablation, "u": other}
    monkeypatch.setattr(aggregate, "table_files", lambda: tables)
    monkeypatch.setattr(aggregate, "load_table", tables.get)
    assert aggregate.from_random_weights(tmp_path) == ""
    for seed, accuracy in enumerate([0.25, 0.75]):
        write_run(tmp_path / f"t/msa/seed-{seed}", seed=seed, auc=0.5)
        path = tmp_path / f"t/msa/seed-{seed}/eval/test/metrics.json"
        path.write_text(path.read_text().replace('"value": 0.5', f'"value": {accuracy}'))
    write_run(tmp_path / "u/none/seed-3", seed=3, auc=0.5)
    write_run(tmp_path / "u/k3/seed-0", seed=0, auc=0.5, weights={"hash": "", "source": "a.h5"})
    text = aggregate.from_random_weights(tmp_path)
    assert cells(text, "with") == [
        *("with", "A table", "2", "0 1"),
        *("0.5000 [0.5000, 0.5000]", "0.5000 [0.2500, 0.7500]"),
    ]
    assert cells(text, "without") == ["without", "Paper 3, Table 9", "2", "3", "0.5000", "0.5000"]
    assert len(text.strip().splitlines()) == 4
