"""The checklist has every item, and claims nothing that the files do not say."""

import dataclasses

from saved_runs import write_run

from msa_flax.reporting.checklist import NOT_STATED, fill_checklist
from msa_flax.reporting.saved import read_run


def test_all_items_are_there_and_those_about_the_study_are_left_to_the_authors(run):
    items = fill_checklist(run)
    assert [item.number for item in items] == list(range(1, 45))
    unknown = {1, 2, 3, 4, 5, 6, 8, 11, 13, 14, 15, 16, 17, 18, 21, 33, 34, 36, 41, 42, 44}
    assert {item.number for item in items if item.answer == NOT_STATED} >= unknown
    assert all(item.answer == NOT_STATED for item in items if item.number in unknown)


def test_answers_are_those_of_the_files(run):
    answers = {item.number: item.answer for item in fill_checklist(run)}
    assert "train 180, test 120" in answers[19]
    assert "kernels 3, 5" in answers[22]
    assert "jax 0.10" in answers[23]
    assert "adam, learning rate 0.001" in answers[25]
    assert f"accuracy {run.metrics['metrics']['accuracy']['value']:.4f}" in answers[37]
    assert f"{run.metrics['confusion']['fn']} missed images of 'fracture'" in answers[39]


def test_a_leaking_split_is_said_where_the_checklist_asks(tmp_path):
    stamps = ["copies cross the split", "groups unknown"]
    answers = {
        item.number: item.answer
        for item in fill_checklist(read_run(write_run(tmp_path / "w", stamps=stamps), "test"))
    }
    for number in (20, 32, 40):
        assert "not known" in answers[number]
        assert "Copies of one slice cross it" in answers[number]


def test_files_that_say_nothing_leave_everything_to_the_authors(run):
    silent = dataclasses.replace(run, config={}, run={}, audit={}, explained=[], history=[])
    items = {item.number: item for item in fill_checklist(silent)}
    for number in (9, 12, 22, 23, 24, 25, 30, 31, 35, 43):
        assert items[number].answer == NOT_STATED
