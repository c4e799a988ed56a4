"""What a user types wrong costs one sentence and exit code 2, and writes nothing."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from msa_flax import audit, cli, evaluate, explain, files, train

COMMANDS = {"train": train, "evaluate": evaluate, "explain": explain, "audit": audit}


def call(name, *arguments):
    module = COMMANDS[name]
    return cli.call(module.main, module.define_flags, module.__doc__, [name, *arguments])


@pytest.mark.parametrize("name", sorted(COMMANDS))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_no_error_and_says_what_it_is_for(name, flag, capsys):
    assert call(name, flag) == 0
    out = capsys.readouterr().out
    assert "--workdir" in out
    assert "not a medical device" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--workdir"),
        (["--workdir"], "Missing value"),
        (["--bogus=1"], "bogus"),
        (["extra", "--workdir=w"], "unexpected argument 'extra'"),
        (["--workdir=w", "--config.model.alpa=1"], "did you mean model.alpha"),
        (["--workdir=w", "--config.data=1"], "data is a section; set its fields"),
        (["--workdir=w", "--config.data.root=x", "--config.data=1"], "data is a section"),
        (["--workdir=w", "--config.model.alpha=wide"], "wide"),
        (["--workdir=w", "--config.model.attention=senet"], "expected one of msa, cbam, none"),
        (["--workdir=w", "--config.data.fold=7"], "data.fold"),
        (["--workdir=w", "--config=missing.py"], "missing.py"),
        (["--workdir=w", "--config.data.source=folder"], "data.root"),
        (["--workdir=w", "--config.data.classes=fracture,normal"], "classes=normal,fracture"),
        (["--workdir=w", "--config.data.classes='fracture','normal'"], "classes=normal,fracture"),
        (["--workdir=w", "--config.model.kernel_sizes=3,4"], "distinct odd whole numbers"),
    ],
)
def test_train_refuses_bad_usage(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("train", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["evaluate", "explain", "audit"])
def test_other_commands_need_a_trained_workdir(name, capsys, tmp_path):
    assert call(name, f"--workdir={tmp_path}") == 2
    assert "config.json" in capsys.readouterr().err


def test_a_configuration_file_that_raises_is_named(tmp_path, capsys):
    path = tmp_path / "broken.py"
    path.write_text("def get_config(arg=''):\n    raise RuntimeError('no such experiment')\n")
    assert call("train", f"--config={path}", "--workdir=w") == 2
    assert "no such experiment" in capsys.readouterr().err


def test_the_configuration_is_printed_with_its_overrides(capsys):
    assert call("train", "--print_config", "--config.train.epochs=3", "--config.model.alpha=1") == 0
    out = capsys.readouterr().out
    assert '"epochs": 3' in out
    assert '"name": "quickstart"' in out


def test_a_failure_is_one_line_and_exit_code_1_and_debug_shows_where(capsys):
    def fail(args):
        raise RuntimeError("the disk\nis full")

    assert cli.call(fail, lambda values: None, "doc", ["x"]) == 1
    assert (
        capsys.readouterr().err == "error: RuntimeError: the disk is full (--debug shows where)\n"
    )
    assert cli.call(fail, lambda values: None, "doc", ["x", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_parsing_leaves_the_command_line_of_the_process_alone():
    before = list(sys.argv)
    call("train", "--print_config")
    assert sys.argv == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit(3)", "SystemExit"),
        ("def get_config(a=''):\n  x=(", "SyntaxError"),
        ("def get_config(a=''):\n  raise SystemExit", "SystemExit"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("def get_config(a=''):\n  return 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_configuration_file_may_be_broken_in_any_way(text, said, tmp_path, capsys):
    (tmp_path / "c.py").write_text(text)
    assert call("train", f"--workdir={tmp_path / 'w'}", f"--config={tmp_path / 'c.py'}") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "w").exists()


def saying(error):
    def main(args):
        raise error

    return cli.call(main, lambda values: None, "doc", ["command"])


def test_a_sentence_with_a_long_list_is_cut_and_says_how_much_more_there_is(capsys):
    assert saying(files.UserError("unknown: " + ", ".join(f"file-{i}" for i in range(2000)))) == 2
    said = capsys.readouterr().err
    assert len(said) < 620
    shown = said.count("file-")
    assert f"and {2000 - shown} more" in said


def test_what_the_system_says_of_a_path_is_one_sentence(capsys, tmp_path):
    assert saying(PermissionError(errno.EACCES, "Permission denied", "/a/b")) == 2
    assert capsys.readouterr().err == "error: /a/b cannot be used: Permission denied\n"
    assert saying(OSError(errno.ENOSPC, "No space left on device")) == 2
    said = "error: a file cannot be used: No space left on device; make room and give the same"
    assert capsys.readouterr().err.startswith(said)
    (tmp_path / "file").write_text("")
    with pytest.raises(files.UserError, match=r"x\.json cannot be written"):
        files.write_json(tmp_path / "file/x.json", {})


def test_a_reader_that_has_read_enough_ends_a_command_quietly(capsys):
    assert saying(BrokenPipeError(errno.EPIPE, "Broken pipe")) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("becomes", [None, ImportError])
def test_an_interrupt_ends_a_command_although_a_library_swallows_it(monkeypatch, capsys, becomes):
    monkeypatch.setattr(cli, "_PATIENCE", 0.02)
    swallowed = []

    def main(args):
        del args
        try:  # as some libraries do while they are imported
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            swallowed.append(1)
            if becomes:
                raise becomes from None
        time.sleep(10)

    assert cli.call(main, lambda values: None, "doc", ["x"]) == 130
    assert swallowed == [1]
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_that_ignores_the_interrupt_from_its_start_goes_on_ignoring_it():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup has it
    try:
        main = lambda args: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
        assert cli.call(main, lambda values: None, "doc", ["x"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-"])
def test_a_closed_stream_is_no_failure(closed):
    command = f"{sys.executable} -m msa_flax.train --print_config {closed}"
    assert subprocess.run(["bash", "-c", command], check=False, capture_output=True).returncode == 0
