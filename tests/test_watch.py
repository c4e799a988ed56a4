"""The command watch as a user gives it."""

from msa_flax import cli, watch


def call(*arguments):
    return cli.call(watch.main, watch.define_flags, watch.__doc__, ["watch", *map(str, arguments)])


def test_the_results_may_not_be_in_the_folder(tmp_path, capsys):
    assert call("--model", "m", "--folder", tmp_path, "--out", tmp_path / "out") == 2
    assert "expected a folder outside of --folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
