"""A folder watched, from files to archives, with a made-up model."""

import json

import pytest
from archives import peer
from dicom_files import write_series
from dicom_results import ABOUT
from made_up_model import model_of

from msa_flax.archive import sending
from msa_flax.archive.queue import opened
from msa_flax.data.phantom import draw_patient
from msa_flax.results.watching import Rules, Watcher

MODEL = model_of()
IMAGES = [one.image for one in draw_patient(0, 900)][:3]


class Place:
    """A folder with studies, and what a watcher writes."""

    def __init__(self, root):
        self.folder, self.out = root / "in", root / "out"
        self.folder.mkdir()

    def arrive(self, study="1", count=3):
        about = {"patient": f"ZX-{study}", "name": "Quill^Zeb", **ABOUT}
        return write_series(self.folder / study, IMAGES[:count], study=study, **about)

    def watch(self, *names, model=MODEL, received=(), **rules):
        given = {"still": 0.0, "attempts": 3, "keep": 10**9, "pause": 0.0, "once": True}
        given |= {"metrics": self.out / "metrics.prom"}
        where = sending.destinations(names, [], calling="X", security=sending.Security())
        with opened(self.out / "queue.sqlite") as queue:
            more = {"folder": self.folder, "out": self.out, "queue": queue}
            watcher = Watcher(model, destinations=where, rules=Rules(**given | rules), **more)
            watcher.run(received)
            return queue.counts()

    def log(self):
        return [json.loads(line) for line in (self.out / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_studies_are_predicted_and_sent_once(place):
    place.arrive("1")
    place.arrive("2")
    with peer() as (name, offered):
        assert place.watch(name)["done"] == 2
        assert place.watch(name)["done"] == 2
        assert len(offered) == len(set(offered)) == 8
    for line in place.log():
        assert (line["state"], line["images"], line["objects"]) == ("done", 3, 4)
        assert line["destinations"] == {name: "sent"}
    assert len(place.log()) == 2
