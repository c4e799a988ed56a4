"""python -m msa_flax says which commands there are."""

import os
import subprocess
import sys

import pytest

from msa_flax.__main__ import COMMANDS, main


def test_every_command_has_one_line_and_nothing_heavy_is_imported():
    code = (
        "import atexit, os, runpy, sys; sys.argv = ['msa_flax'];"
        "heavy = {'numpy', 'cv2', 'sklearn', 'matplotlib', 'jax', 'flax', 'tensorflow'};"
        "atexit.register(lambda: heavy & set(sys.modules) and os._exit(3));"
        "runpy.run_module('msa_flax', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    listed = done.stdout.split("\n\n")[1].splitlines()
    assert len(listed) == len(COMMANDS)
    for name, line in zip(COMMANDS, listed, strict=True):
        command, _, purpose = line.strip().partition("  ")
        assert command == f"python -m msa_flax.{name}"
        assert purpose.strip()
    assert "not a medical device" in done.stdout
    assert "--help" in done.stdout


@pytest.mark.parametrize(
    ("argument", "said"),
    [("nonsense", "msa_flax.audit"), ("train", "the command is python -m msa_flax.train")],
)
def test_an_argument_is_refused_in_one_sentence(argument, said, capsys):
    assert main([argument]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["msa_flax"], ["msa_flax.train", "--help"]])
def test_a_reader_that_has_gone_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
