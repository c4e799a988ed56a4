"""The benchmark of DICOM slices: a row per syntax, and a bar that depends on compression."""

import importlib.util
import pathlib

import results  # the benchmarks' folder is on the path by now, or this test says so

SCRIPT = pathlib.Path(results.__file__).with_name("dicom.py")


def test_every_row_says_what_was_compared(tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark_dicom", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    files = list(benchmark.write_files(tmp_path))
    rows = [benchmark.measure(path, 2) for path in files[:2]]
    assert len(files) == 5
    assert all(len(row) == len(benchmark.HEAD) for row in rows)
    assert [row[5].split()[0] for row in rows] == ["1.35", "1.15"]
    assert [row[0] for row in rows] == ["Explicit VR Little Endian", "RLE Lossless"]
