"""The log and the numbers of a watcher."""

import json

import pytest

from msa_flax.archive.records import append_line, write_metrics


@pytest.mark.parametrize("left", [b"", b'{"a": 1}\n', b'{"a": 1}\n{"b": ', b'{"b":'])
def test_a_line_is_there_once_whatever_a_kill_has_left(tmp_path, left):
    path = tmp_path / "log.jsonl"
    path.write_bytes(left)
    for _ in range(2):
        append_line(path, {"b": 2})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"a": 1}] * left.startswith(b'{"a"') + [{"b": 2}]


def test_the_metrics_are_what_prometheus_reads(tmp_path):
    path = tmp_path / "m.prom"
    numbers = [("unsent", {"destination": 'a"b\\c'}, 3), ("passed_over", {}, 0)]
    write_metrics(path, [*numbers, ("unsent", {"destination": "d"}, 4)])
    assert path.read_text() == (
        "# HELP msa_flax_watch_passed_over Things in the folder that are no CT images of a study, "
        "links among them.\n"
        "# TYPE msa_flax_watch_passed_over gauge\n"
        "msa_flax_watch_passed_over 0\n"
        "# HELP msa_flax_watch_unsent Results that a destination has not got.\n"
        "# TYPE msa_flax_watch_unsent gauge\n"
        'msa_flax_watch_unsent{destination="a\\"b\\\\c"} 3\n'
        'msa_flax_watch_unsent{destination="d"} 4\n'
    )
