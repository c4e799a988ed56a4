"""The benchmark of prepare: archives of linked files, and folders compared by their bytes."""

import argparse
import importlib.util
import os
import pathlib

import pytest
import results  # the benchmarks' folder is on the path by now, or this test says so

from msa_flax.config import DataConfig
from msa_flax.data.rsna import list_rsna

SCRIPT = pathlib.Path(results.__file__).with_name("prepare.py")


@pytest.fixture
def benchmark(monkeypatch):
    spec = importlib.util.spec_from_file_location("benchmark_prepare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DRAWN", 1)
    return module


def test_archives_are_laid_out_as_the_challenge(benchmark, tmp_path):
    options = argparse.Namespace(few=2, many=3, slices=4, seed=0, matrix=64)
    few, many = benchmark.write_archives(tmp_path, options)
    for root, studies in ((few, 2), (many, 3)):
        files = list_rsna(DataConfig(source="rsna2022", root=str(root))).files
        assert len(files) == 4 * studies
        assert {file.label for file in files} == {0}
    assert os.stat(files[0].path).st_nlink > 1


def test_folders_are_the_same_only_if_all_their_bytes_are(benchmark, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "studies").mkdir(parents=True)
        (tmp_path / name / "studies/0.json").write_text("{}")
    assert benchmark.same(tmp_path / "a", tmp_path / "b") == "yes"
    (tmp_path / "b/studies/0.json").write_text("{ }")
    assert benchmark.same(tmp_path / "a", tmp_path / "b") == "no"
    (tmp_path / "b/studies/0.json").write_text("{}")
    (tmp_path / "b/.left.tmp").touch()
    assert benchmark.same(tmp_path / "a", tmp_path / "b") == "no"


def test_memory_is_that_of_a_process_that_runs(benchmark):
    assert (benchmark.memory(os.getpid()) > 10) == pathlib.Path("/proc/self/status").exists()
    assert benchmark.memory(2**22 + 1) == 0  # above every number of a process
