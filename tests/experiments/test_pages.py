"""What stands between a page's marker lines is replaced, and nothing else."""

import pages
import pytest

from msa_flax.files import UserError


def test_tables_replace_what_stands_between_their_markers(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    pages.write_between(path, "t", "new")
    assert path.read_text() == "before\n<!-- t -->\nnew\n<!-- /t -->\nafter\n"
    with pytest.raises(UserError, match="expected the lines <!-- u -->"):
        pages.write_between(path, "u", "new")
    assert path.read_text() == "before\n<!-- t -->\nnew\n<!-- /t -->\nafter\n"


def test_without_a_page_the_table_is_printed(capsys):
    pages.print_or_write(None, "t", "new")
    assert capsys.readouterr().out == "new\n"
