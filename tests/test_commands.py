"""Every flag of every command: a value that cannot be is one sentence, exit code 2, and no file."""

import importlib

import cv2
import numpy as np
import pytest
from absl import flags

from msa_flax import cli
from msa_flax.__main__ import COMMANDS
from msa_flax.config import Config, DataConfig, ModelConfig

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
    data=DataConfig(source="phantom", protocol="kfold", phantom_patients=12, image_size=64),
)
SET_BY_ARGUMENTS = {"images", "workdirs", "beam_options"}
# What cannot be, for the flags whose type alone allows anything: flag -> values; "{}" is a run.
NO_FOLDER, NO_FILE = "--{}=/dev/null/none", "--{}=/none/file.py"
TEXTS = {
    "workdir": [NO_FOLDER],
    "model": [NO_FOLDER],
    "keras": [NO_FOLDER, "--{}=x.h5"],
    "config": [NO_FILE, "--{}=/dev/null"],
    "coordinator": ["--{}=host", "--{}=host:1"],
    "moved_to": [NO_FOLDER],
    "data_root": [NO_FOLDER],
    "split": ["--{}=../up", "--{}=none", "--{}="],
    "manifest": [NO_FILE, "--{}=/dev/null"],
    "external": ["--{}=../up", "--{}=test", "--{}="],
    "out": [NO_FOLDER],
    "dicom_out": [NO_FOLDER],
    "method": ["--{}=nonsense"],
    "layer": ["--{}=nonsense"],
    "folder": [NO_FOLDER, "--{}="],
    "send": ["--{}=host", "--{}=AE@host", "--{}=AE@host:0", "--{}=A@h:1,B"],
    "stow": ["--{}=host", "--{}=ftp://host", "--{}=http://me:secret@host"],
    "calling_ae": ["--{}=", "--{}=longer-than-16-characters", "--{}=a\\b"],
    "metrics": ["--{}=/dev/null/none", "--{}=/"],
    "tls_ca": [NO_FILE],
    "tls_cert": [NO_FILE],
    "tls_key": [NO_FILE],
    "root": [NO_FOLDER],
    "runner": ["--{}=none"],
    "family_pattern": ["--{}=(", "--{}=nogroup"],
    "group_pattern": ["--{}=(", "--{}=nogroup"],
}
TYPED = {"int": ["x", "1.5", ""], "float": ["x", ""], "bool": ["maybe"], "enum": ["none", ""]}
# What else a command needs before it looks at the flag.
WITH = {
    ("evaluate", "external"): ["--data_root=."],
    ("predict", "model"): ["set"],
    ("watch", "tls_key"): ["--tls_cert=/none"],
    ("explain", "out"): ["--split=test", "--limit=1"],
    ("explain", "layer"): ["--split=test", "--limit=1"],
    ("explain", "method"): ["--split=test", "--limit=1"],
    ("audit", "family_pattern"): ["--root={set}"],
    ("audit", "group_pattern"): ["--root={set}"],
    ("audit", "out"): ["--root={set}"],
    ("prepare", "out"): ["--root={set}"],
    ("prepare", "root"): ["--out=new"],
    ("prepare", "runner"): ["--root={set}", "--out=new"],
}
ALONE = {
    ("predict", "model"),
    ("watch", "model"),
    ("audit", "root"),
    ("audit", "manifest"),
    ("audit", "config"),
}  # instead of a run


def defined(command):
    values = flags.FlagValues()
    module = importlib.import_module(f"msa_flax.{command}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x"])  # where --config looks for its overrides
        module.define_flags(values)
    return module, {name: values[name] for name in values if name not in SET_BY_ARGUMENTS}


def wrong_values():
    """(command, flag, argument) for every flag of every command."""
    for command in COMMANDS:
        for name, flag in defined(command)[1].items():
            kind = flag.flag_type()
            typed = next((v for key, v in TYPED.items() if key in kind), None)
            values = [f"--{name}={value}" for value in typed] if typed else TEXTS[name]
            for value in values:
                yield command, name, value.format(name)


@pytest.fixture(scope="module")
def run(tmp_path_factory, untrained_run):
    folder = tmp_path_factory.mktemp("commands")
    untrained_run(folder / "run", CONFIG.validate())
    return folder / "run"


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("wrong", list(wrong_values()), ids=str)
def test_a_value_that_cannot_be_is_one_sentence(wrong, run, tmp_path, monkeypatch, capfd):
    command, name, argument = wrong
    monkeypatch.chdir(tmp_path)
    for part in ("a", "b"):
        (tmp_path / "set" / part).mkdir(parents=True)
        for number in range(2):
            image = np.full((40, 40), 40 * number, np.uint8)
            cv2.imwrite(str(tmp_path / f"set/{part}/{number}.png"), image)
    before = everything(tmp_path), everything(run)
    alone = name == "workdir" or (command, name) in ALONE or command in ("train", "prepare")
    texts = WITH.get((command, name), []) + ["--folder={set}"] * (command == "watch")
    more = [text.format(set=tmp_path / "set") for text in texts]
    workdir = [] if alone or more[:1] == [f"--root={tmp_path / 'set'}"] else [f"--workdir={run}"]
    if command == "train" and name != "workdir":
        workdir = [f"--workdir={tmp_path / 'new'}"]
    module, _ = defined(command)
    code = cli.call(
        module.main, module.define_flags, module.__doc__, ["x", *workdir, *more, argument]
    )
    said = capfd.readouterr().err.splitlines()
    assert code == 2, said
    assert sum(line.startswith("error: ") for line in said) == 1
    assert said[-1].startswith("error: ")
    assert len(said[-1]) < 700
    assert (everything(tmp_path), everything(run)) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flags_and_stray_arguments_are_one_sentence(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    module, _ = defined(command)
    incomplete = [] if command == "audit" else [["--workdir="], []]  # it audits the quickstart
    for arguments in (["--nonsense"], ["--workdir"], *incomplete):
        code = cli.call(module.main, module.define_flags, module.__doc__, ["x", *arguments])
        said = capfd.readouterr().err.splitlines()
        assert code == 2, said
        assert len([line for line in said if line.startswith("error: ")]) == 1
    assert not list(tmp_path.iterdir())
