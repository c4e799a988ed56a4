"""A benchmark replaces its own section of the results, and leaves what people wrote."""

import pytest
import results

from msa_flax.files import UserError


def test_a_section_is_added_at_the_end_and_replaced_later(tmp_path):
    path = tmp_path / "RESULTS.md"
    results.write_section(path, "a", "first\n")
    page = path.read_text()
    path.write_text(f"{page}\nA remark.\n")
    results.write_section(path, "b", "other")
    results.write_section(path, "a", "second")
    assert path.read_text() == (
        "# Results of the benchmarks\n\n<!-- a -->\nsecond\n<!-- /a -->\n\nA remark.\n\n"
        "<!-- b -->\nother\n<!-- /b -->\n"
    )


def test_a_section_without_an_end_is_refused(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text("<!-- a -->\nold\n")
    with pytest.raises(UserError, match="<!-- /a -->"):
        results.write_section(path, "a", "new")
    assert path.read_text() == "<!-- a -->\nold\n"


def test_paths_of_this_machine_are_not_part_of_the_command(monkeypatch):
    command = ["x/whole.py", "--root", "/home/me/images", "--results", "/tmp/r.md", "--epochs", "2"]
    monkeypatch.setattr("sys.argv", command)
    line = results.provenance().splitlines()[0]
    assert line == "    python experiments/benchmarks/whole.py --root DIR --epochs 2"
