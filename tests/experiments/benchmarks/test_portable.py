"""The benchmark of the portable model: what is compared with what, and when a bar is met."""

import importlib.util
import pathlib

import pytest
import results  # the benchmarks' folder is on the path by now, or this test says so
from timings import Series

SCRIPT = pathlib.Path(results.__file__).with_name("portable.py")
TIMES = {"ours": [20.0, 22.0], "onnx": [30.0, 33.0], "keras": [25.0, 21.0]}  # ms a batch


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_portable", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def measured(benchmark):
    series = {key: Series(1, turns=times) for key, times in TIMES.items()}
    return dict.fromkeys(benchmark.BATCHES, series)


def test_every_contestant_that_could_be_run_has_a_row(benchmark, measured):
    started = {key: [1.0, 1.2] for key in TIMES}
    rows = benchmark.rows([4.0, 1.5, 1.6], started, measured)
    assert len({len(row) for row in rows}) == 1
    assert [row[0] for row in rows[2:]] == [
        *("portable model", "onnxruntime", "Keras 2.15, saved model")
    ]
    assert rows[0][1] == "4.00"
    assert rows[3][-1] == "1.50 (1.50)"  # 31.5 / 21, 30 / 20


def test_a_bar_is_met_by_the_fastest_of_the_others(benchmark, measured):
    start, speed, size = benchmark.bars([9.0, 2.6, 2.4], measured, 1.2)
    assert (start[2:], size[2:]) == (["2.50 s", "yes"], ["1.200", "no"])
    assert speed[2:] == ["1.10 (keras)", "yes"]  # 23 / 21
    measured[16]["keras"] = Series(1, turns=[19.0, 20.0])
    assert benchmark.bars([9.0, 2.6, 2.4], measured, 1.0)[1][3] == "no"
