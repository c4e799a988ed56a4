"""Runs compared as tables: the numbers of metrics.json, the paired differences, and their notes."""

import dataclasses

import numpy as np
import pytest
from prediction_tables import mostly_right
from saved_runs import write_run

from msa_flax.evaluation.compare import ComparisonError, compare_runs
from msa_flax.reporting import comparison
from msa_flax.reporting.page import render_page
from msa_flax.reporting.saved import read_run
from msa_flax.reporting.tables import metric_name
from msa_flax.reporting.text import interval


@pytest.fixture
def runs(tmp_path):
    """Three runs on the same images, "x", "y" and "z", the last much the best; y leaks."""
    write_run(tmp_path / "a", mostly_right(seed=0), name="first")
    write_run(
        tmp_path / "b", mostly_right(seed=1), name="second", stamps=["copies cross the split"]
    )
    write_run(tmp_path / "c", mostly_right(seed=2, spread=0.3), name="third", threshold=0.4)
    return {
        name: read_run(tmp_path / folder, "test") for name, folder in zip("xyz", "abc", strict=True)
    }


def test_the_page_has_the_same_table(runs):
    beside, paired, *_ = comparison.tables(runs)
    assert beside.title == "Metrics side by side"
    found = compare_runs({n: (r.predictions, r.threshold) for n, r in runs.items()})
    assert paired == comparison.paired(found)
    text = render_page(runs["x"], [runs["y"], runs["z"]])
    section = text[text.index('<section id="comparison"') : text.index('<section id="origin"')]
    assert 'role="region" aria-label="Table: Paired differences"' in section
    assert '<th scope="col">p, Holm</th>' in section
    for row in found:
        name = {"y": "second", "z": "third"}[row.second]
        assert f'<th scope="row">{name}: {metric_name(row.metric)}</th>' in section
        limits = interval({"low": row.low, "high": row.high})
        for cell in (
            comparison._signed(row.difference),
            limits,
            comparison._p_value(row.p_holm),
        ):
            assert f'<td class="number">{cell}</td>' in section


def test_where_runs_agree_is_counted_image_by_image_whatever_their_order(runs, tmp_path):
    *_, agreement, _ = comparison.tables(runs)
    first, other = (
        dict(zip(r.predictions.example_id.tolist(), r.outcome.tolist(), strict=True))
        for r in (runs["x"], runs["y"])
    )
    right = [(first[name] in ("tp", "tn"), other[name] in ("tp", "tn")) for name in first]
    kinds = ((True, True), (True, False), (False, True), (False, False))
    expected = ["y", *(str(right.count(kind)) for kind in kinds)]
    assert list(agreement.rows[0]) == expected
    shuffled = mostly_right(seed=1)
    order = np.random.default_rng(0).permutation(len(shuffled))
    fields = {name: getattr(shuffled, name)[order] for name in shuffled.__slots__}
    again = read_run(write_run(tmp_path / "d", type(shuffled)(**fields)), "test")
    *_, agreement, _ = comparison.tables({"x": runs["x"], "y": again})
    assert list(agreement.rows[0]) == expected


def test_settings_that_differ_are_listed(runs):
    *_, settings = comparison.tables(runs)
    assert (settings.rows, settings.note) == ([], "Their configurations are equal.")
    config = {**runs["y"].config, "optim": {"learning_rate": 0.5}}
    changed = runs | {"y": dataclasses.replace(runs["y"], config=config)}
    *_, settings = comparison.tables(changed)
    assert ["optim.learning_rate", "0.001", "0.5", "0.001"] in settings.rows


def test_runs_on_other_images_are_not_compared(runs, tmp_path):
    for name, options in (("fewer", {"n": 90}), ("relabelled", {"label": 1})):
        other = read_run(write_run(tmp_path / name, mostly_right(**options), name=name), "test")
        with pytest.raises(ComparisonError, match=f"{name}: expected the"):
            render_page(runs["x"], [other])


def paired(**options):
    runs = {
        "a": (mostly_right(seed=0, **options), 0.5),
        "b": (mostly_right(seed=1, **options), 0.5),
    }
    return comparison.paired(compare_runs(runs))


def test_what_is_missing_has_its_reason_and_methods_are_explained():
    known, few, unknown = (paired(groups=groups) for groups in (12, 9, 0))
    assert "120 images; groups: 12." in known.note
    assert "flips of groups: exact" in known.note
    assert "independent" not in known.note
    assert "No group is known: images are taken as independent" in unknown.note
    assert "mcnemar: McNemar's exact test" in unknown.note
    losses = [row for row in unknown.rows if "loss" in row[0] or "Brier" in row[0]]
    assert {row[-1].split(" there")[0] for row in losses} == {"without groups"}
    assert {row[4] for row in few.rows} == {"none"}
    assert all("9 groups; a clustered interval needs 10" in row[-1] for row in few.rows)


def test_images_of_one_class_have_undefined_differences():
    shown = {row[0]: row for row in paired(label=1).rows}
    assert shown["b: AUC"][1:5] == ["undefined", "undefined", "undefined", "none"]
    assert shown["b: Specificity"][-1] == "there is no 'normal' among the images"


def test_numbers_that_round_to_0_have_no_sign_and_small_p_values_their_size():
    signed = [comparison._signed(value) for value in (0.0, -1e-6, 0.01, -0.01, None)]
    assert signed == ["0.0000", "0.0000", "+0.0100", "-0.0100", "undefined"]
    assert [comparison._p_value(p) for p in (None, 1.0, 0.04, 2e-9)] == (
        ["none", "1.0000", "0.0400", "2.0e-09"]
    )
