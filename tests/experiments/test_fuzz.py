"""Every reader takes the good files that fuzzing begins with, and refuses damage with its error."""

import random

import fuzz
import pytest
from command_line import call

from msa_flax.files import UserError


@pytest.mark.parametrize("name", sorted(fuzz.READERS))
def test_a_reader_reads_or_refuses_with_an_error_of_its_own(name):
    read, seeds = fuzz.READERS[name]()
    draw, outcomes = random.Random(0), set()

    def outcome(data):
        try:
            return read(data) is not None
        except UserError:
            return False

    outcomes |= {outcome(data) for data in seeds}
    for data in seeds:
        for _ in range(40):
            damaged = bytearray(data or b"x")
            for _ in range(draw.randint(1, 4)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            outcomes.add(outcome(bytes(damaged[: draw.randint(1, len(damaged))])))
    assert outcomes == {True, False}


def test_without_atheris_one_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "atheris", None)
    assert call(fuzz.main, ["images"]) == 2
    assert "pip install" in capsys.readouterr().err
