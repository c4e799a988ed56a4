"""The queue of a watcher: its states, and what a kill leaves of them."""

from contextlib import closing

import pytest

from msa_flax.archive.queue import Queue, QueueError
from msa_flax.archive.visits import Send, Study, Visit


def arrive(queue, study="a", content="1", since=0.0):
    with queue.db:
        queue.db.execute(
            "INSERT OR REPLACE INTO studies (study, content, files, since) VALUES (?, ?, 3, ?)",
            (study, content, since),
        )


def add(queue, entry, *destinations):
    """Notes a result of 10 bytes of the next study."""
    queue.add_result(queue.next_study(1.0, 0.0), "predicted", entry, size=10)
    queue.address(destinations)


@pytest.fixture
def queue(tmp_path):
    with closing(Queue(tmp_path / "queue.sqlite")) as queue:
        yield queue


def test_a_study_is_ready_once_it_is_still(queue):
    arrive(queue, since=100.0)
    assert queue.next_study(now=109.0, still=10.0) is None
    assert queue.is_moving(now=109.0, still=10.0)
    assert queue.next_study(now=110.0, still=10.0) == Study("a", "1", 3, 0, "")
    assert not queue.is_moving(now=110.0, still=10.0)


def test_what_failed_waits_and_comes_after_the_others(queue):
    arrive(queue, "a", since=1.0)
    arrive(queue, "b", since=2.0)
    first = queue.next_study(10.0, 0.0)
    queue.note_attempt(first, 1, due=20.0, reason="why")
    assert queue.next_study(10.0, 0.0).study == "b"
    assert queue.next_study(30.0, 0.0).study == "b"
    queue.add_result(queue.next_study(30.0, 0.0), "failed", {}, now=30.0)
    assert queue.next_study(19.0, 0.0) is None
    assert queue.next_study(20.0, 0.0) == Study("a", "1", 3, 1, "why")


def test_a_result_is_done_when_every_destination_has_it(queue):
    arrive(queue)
    add(queue, {"images": 3}, "x", "y")
    assert queue.next_study(1.0, 0.0) is None
    queue.settle(2.0)
    assert queue.counts() == {"waiting": 0, "predicted": 1, "done": 0, "failed": 0}
    assert queue.unsent() == {"x": 1, "y": 1}
    for name in ("x", "y"):
        assert queue.unlogged() == []
        send = queue.next_send(2.0, [])
        assert send == Send("a", "1", name, 0)
        queue.note_send(send, "sent", 0, 0.0, "")
        queue.settle(3.0)
    ((done, entry),) = queue.unlogged()
    sent = {"destinations": {"x": "sent", "y": "sent"}}
    assert entry == {"images": 3, "state": "done", "finished": 3.0} | sent
    queue.note_logged(done)
    assert queue.unlogged() == []
    assert [one.name for one in queue.done_studies()] == ["a-1"]
    assert queue.oldest_done() == Visit("a", "1")
    queue.note_removed(done)
    assert queue.oldest_done() is None
    assert queue.total_bytes() == 0


def test_a_destination_that_refuses_makes_it_failed_until_it_is_tried_again(queue):
    arrive(queue)
    add(queue, {}, "x")
    queue.note_send(queue.next_send(1.0, []), "refused", 5, 0.0, "why")
    queue.settle(2.0)
    ((_, entry),) = queue.unlogged()
    assert (entry["state"], entry["destinations"]) == ("failed", {"x": "why"})
    assert queue.oldest_done() is None  # what is not sent is kept
    queue.retry_failed()
    assert queue.next_send(3.0, []) == Send("a", "1", "x", 0)
    assert queue.unlogged() == []


def test_a_failed_study_is_predicted_again_when_asked_for(queue):
    arrive(queue)
    queue.add_result(queue.next_study(1.0, 0.0), "failed", {}, now=1.0)
    assert queue.next_study(1.0, 0.0) is None
    queue.retry_failed()
    assert queue.next_study(1.0, 0.0) == Study("a", "1", 3, 0, "")


def test_a_destination_that_is_away_is_passed_over_and_the_longest_waiting_is_next(queue):
    for study in ("a", "b"):
        arrive(queue, study)
        add(queue, {}, "x", "y")
    assert queue.next_send(1.0, ["x"]).destination == "y"
    assert queue.next_send(1.0, ["x", "y"]) is None
    first = queue.next_send(1.0, ["y"])
    queue.note_send(first, "waiting", 0, 1.0, "away")
    assert queue.next_send(1.0, ["y"]) == Send("b", "1", "x", 0)


def test_what_waits_goes_to_the_destinations_that_are_named_now(queue):
    arrive(queue)
    add(queue, {}, "old")
    queue.address(["new"])
    assert queue.unsent() == {"new": 1}
    queue.address([])
    queue.settle(2.0)
    assert queue.counts()["done"] == 1


def test_an_object_is_known_by_destination_and_bytes(queue):
    queue.note_sent("x", "digest")
    queue.note_sent("x", "digest")
    assert queue.has("x", "digest")
    assert not queue.has("y", "digest")
    assert not queue.has("x", "other")


def test_everything_is_there_after_a_kill(queue, tmp_path):
    arrive(queue)
    queue.note_attempt(queue.next_study(1.0, 0.0), 1, due=0.0, reason="the process ended")
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes((tmp_path / "queue.sqlite").read_bytes())  # as a killed process leaves it
    with closing(Queue(copy)) as after:
        assert after.next_study(1.0, 0.0) == Study("a", "1", 3, 1, "the process ended")


def test_one_process_has_a_queue(queue, tmp_path):
    with pytest.raises(QueueError, match="another process watches"):
        Queue(tmp_path / "queue.sqlite")


def test_a_damaged_queue_is_one_sentence(tmp_path):
    (tmp_path / "queue.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(QueueError, match="if it is damaged move it away"):
        Queue(tmp_path / "queue.sqlite")


def test_what_is_forgotten_is_predicted_again(queue):
    arrive(queue)
    add(queue, {}, "x")
    queue.forget(Visit("a", "1"))
    assert queue.next_study(1.0, 0.0).study == "a"
    assert queue.next_send(1.0, []) is None
