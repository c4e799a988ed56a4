"""A table of PNG and DICOM files through the commands, called in this process."""

import csv
import io
import json
import os

import cv2
import numpy as np
import pytest
from commands import call
from dicom_slices import write_slice
from tiny_training import FLAGS

from msa_flax.data.phantom import draw_patient

SECRETS = ("Quixote", "MRN-7731")  # of the name, of the identifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight patients: the first four as PNG files, the others as DICOM; and an external table."""
    root = tmp_path_factory.mktemp("table")
    tables = {"train": [], "other": []}
    for k in range(9):
        table = tables["train" if k < 8 else "other"]
        for one in draw_patient(0, k)[::2]:
            image = cv2.resize(one.image, (64, 64))
            name = f"images/{k:02d} {one.slice_index}.{'png' if k < 4 else 'dcm'}"
            if k < 4:
                (root / "images").mkdir(exist_ok=True)
                assert cv2.imwrite(str(root / name), image)
            else:
                place = {"patient": f"MRN-7731-{k}", "position": 3.0 * one.slice_index}
                write_slice(root / name, image, **place)
            table.append([name, ("normal", "1")[one.label], f"P{k}" if k < 4 else ""])
    for name, rows in tables.items():
        text = io.StringIO()
        writer = csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL)
        writer.writerows([["path", "label", "group"], *rows])
        (root / f"{name}.csv").write_bytes(text.getvalue().encode("utf-8-sig"))
    return root


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """A function that calls a command with a cache of its own, and returns what it said."""
    monkeypatch.setenv("MSA_FLAX_CACHE", str(folder / "cache"))

    def called(*arguments, code=0):
        found, said = call(*arguments), capsys.readouterr()
        assert found == code, said.err
        return said.out + said.err

    return called


def test_a_table_is_audited_trained_on_and_evaluated_and_no_identifier_is_written(folder, command):
    table, workdir = folder / "train.csv", folder / "run"
    said = command("audit", "--manifest", table, "--out", folder / "audit")
    assert "32 images" in said
    assert "8 groups" in said
    arguments = (
        *("--workdir", workdir, "--config.data.source=manifest"),
        *(f"--config.data.manifest={table}", *FLAGS),
        *("--config.data.folds=3", "--config.train.epochs=1"),
    )
    said += command("train", *arguments)
    assert "fold 0 of 3 is held out, groups stay whole" in said
    config = json.loads((workdir / "config.json").read_text())["config"]["data"]
    assert (config["protocol"], config["manifest"]) == ("kfold", str(table))
    other = ("--manifest", folder / "other.csv", "--external", "other")
    said += command("evaluate", "--workdir", workdir, *other)
    metrics = json.loads((workdir / "eval/other/metrics.json").read_text())
    assert (metrics["n"], metrics["groups"], metrics["stamps"]) == (4, 1, [])
    assert metrics["root"] == str(folder / "other.csv")
    written = [path for place in ("run", "audit", "cache") for path in (folder / place).rglob("*")]
    texts = [said, *(path.read_bytes().decode("latin-1") for path in written if path.is_file())]
    assert len(texts) > 30
    for secret in SECRETS:
        assert not [text for text in texts if secret in text]
        assert not [path for path in written if secret in str(path)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "--manifest", "none.csv", "--out", "o"), "none.csv cannot be read"),
        (("audit", "--manifest", "train.csv", "--root", "images"), "--root and --manifest"),
        (("train", "--workdir", "w", "--config.data.source=manifest"), "needs its table of labels"),
        (("train", "--workdir", "w", "--config.data.manifest=train.csv"), "no other source has"),
    ],
)
def test_wrong_usage_is_one_sentence(folder, command, arguments, said):
    last = command(*arguments, code=2).splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last
    assert np.array_equal(sorted(os.listdir(folder)), sorted({*os.listdir(folder)} - {"w", "o"}))
