"""A run calls its classes by the names that its configuration gives them, whatever it writes."""

import re

from msa_flax import audit, cli, evaluate, explain, report
from msa_flax.config import Config, DataConfig, ModelConfig

CONFIG = Config(
    model=ModelConfig(backbone="lenet_alexnet", attention="none", pretrained="none"),
    data=DataConfig(
        source="phantom",
        protocol="kfold",
        phantom_patients=12,
        image_size=64,
        classes=("intact", "broken neck"),
    ),
).validate()
OTHER = re.compile(r"fracture", re.IGNORECASE)
COMMANDS = (
    (evaluate, "--calibrate", "--sensitivity=0.2"),
    (evaluate, "--split=test"),
    (audit,),
    (explain, "--split=test", "--limit=2"),
    (report,),
)


def call(module, *arguments):
    return cli.call(module.main, module.define_flags, module.__doc__, ["x", *map(str, arguments)])


def test_no_artefact_calls_a_class_by_another_name(tmp_path, untrained_run, capsys):
    workdir = tmp_path / "run"
    untrained_run(workdir, CONFIG)
    for module, *arguments in COMMANDS:
        assert call(module, f"--workdir={workdir}", *arguments) == 0, capsys.readouterr()
    said = capsys.readouterr()
    assert "'broken neck'" in said.out
    assert not OTHER.search(said.out + said.err)
    written = [path for path in workdir.rglob("*") if path.is_file()]
    assert len(written) > 20
    for path in written:
        assert not OTHER.search(path.name)
        if path.suffix in {".csv", ".json", ".jsonl", ".md", ".html", ".log"}:
            found = OTHER.search(path.read_text())
            assert not found, f"{path}: {path.read_text()[found.start() - 80 : found.end() + 80]}"
    header = (workdir / "eval/test/calibrated.csv").read_text().splitlines()[0]
    assert header.endswith("set,p_broken neck,p_intact")
