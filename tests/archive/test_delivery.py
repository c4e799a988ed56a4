"""Results on their way, to destinations that do as they are told."""

from contextlib import closing

import pytest

from msa_flax.archive.delivery import Delivery
from msa_flax.archive.queue import Queue
from msa_flax.archive.sending import AwayError, RefusedError
from msa_flax.archive.visits import Patience, Visit


class Told:
    """A destination that takes, or raises what it is told to, after some objects."""

    def __init__(self, name, *errors, after=0, refuses="-"):
        self.name, self.errors, self.after, self.got = name, list(errors), after, []
        self.refuses = refuses

    def send(self, objects, took):
        error = self.errors.pop(0) if self.errors else None
        if objects[0].name.startswith(self.refuses):
            error = RefusedError("status C000")
        for path in objects[: self.after if error else None]:
            self.got.append(path.name)
            took(path)
        if error:
            raise error


@pytest.fixture
def queue(tmp_path):
    with closing(Queue(tmp_path / "queue.sqlite")) as queue:
        yield queue


def results(queue, folder, *studies):
    for study in studies:
        one = Visit(study, "0")
        queue.add_result(one, "predicted", {})
        for name in ("1", "2"):
            path = folder / one.name / "dicom/1.2" / f"{study}{name}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)


def deliver(queue, folder, *destinations, attempts=3, pause=0.0):
    patience = Patience(attempts=attempts, pause=pause)
    delivery = Delivery(queue, folder, destinations, patience)
    for _ in range(20):
        if not delivery.send_next():
            break
    return delivery


def test_every_destination_gets_every_object_once(queue, tmp_path):
    results(queue, tmp_path, "a", "b")
    x, y = Told("x"), Told("y")
    for _ in range(2):
        deliver(queue, tmp_path, x, y)
    assert x.got == y.got == ["a1.dcm", "a2.dcm", "b1.dcm", "b2.dcm"]
    assert queue.unsent() == {}


def test_an_archive_that_goes_away_gets_the_rest_when_it_is_back(queue, tmp_path):
    results(queue, tmp_path, "a", "b")
    x, y = Told("x", AwayError("no answer"), after=1), Told("y")
    delivery = deliver(queue, tmp_path, x, y, pause=60.0)
    assert x.got == ["a1.dcm"]
    assert len(y.got) == 4  # the others are not held up
    assert queue.unsent() == {"x": 2}
    assert delivery.away["x"][0] == 1
    deliver(queue, tmp_path, x, y)  # as after a restart
    # What it was away at comes last: so it may be an object that ends the archive.
    assert x.got == ["a1.dcm", "b1.dcm", "b2.dcm", "a2.dcm"]


def test_pauses_grow_and_end(queue, tmp_path):
    assert [Patience().wait(failures) for failures in (1, 2, 3, 30)] == [5.0, 10.0, 20.0, 600.0]


def test_what_is_refused_is_offered_some_times_and_others_are_sent(queue, tmp_path):
    results(queue, tmp_path, "a", "b")
    x = Told("x", refuses="a")
    deliver(queue, tmp_path, x)
    assert x.got == ["b1.dcm", "b2.dcm"]
    queue.settle(1.0)
    states = {
        one.study: (entry["state"], entry["destinations"]["x"]) for one, entry in queue.unlogged()
    }
    assert states == {"a": ("failed", "status C000"), "b": ("done", "sent")}


def test_results_that_somebody_has_removed_are_forgotten(queue, tmp_path):
    queue.add_result(Visit("a", "0"), "predicted", {})
    x = Told("x")
    deliver(queue, tmp_path, x)
    assert x.got == []
    assert queue.counts()["predicted"] == 0
