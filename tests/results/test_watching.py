"""A folder watched, from files to archives, with a made-up model."""

import datetime
import json
import re
import shutil
from contextlib import closing
from pathlib import Path

import pydicom
import pytest
from archives import peer
from dicom_files import write_series
from dicom_results import ABOUT
from made_up_model import model_of

from msa_flax.archive import sending
from msa_flax.archive.queue import Queue
from msa_flax.archive.visits import Patience
from msa_flax.data.phantom import draw_patient
from msa_flax.files import UserError
from msa_flax.results import watching
from msa_flax.results.watching import Rules, Watcher

# pynetdicom leaves a socket that could not connect to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MODEL = model_of()
PATIENCE = Patience(attempts=3, pause=0.0)
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
        given = {"still": 0.0, "keep": 10**9, "patience": PATIENCE, "once": True}
        given |= {"metrics": self.out / "metrics.prom"}
        where = sending.destinations(names, [], calling="X", tls=False, security=sending.Security())
        with closing(Queue(self.out / "queue.sqlite")) as queue:
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
    numbers = (place.out / "metrics.prom").read_text()
    assert 'msa_flax_watch_studies{state="done"} 2' in numbers
    assert f'msa_flax_watch_destination_up{{destination="{name}"}} 1' in numbers


def test_only_dicom_objects_name_the_patient_the_study_or_a_file(place):
    folder = place.arrive("1")
    uid = pydicom.dcmread(folder / "1.dcm").StudyInstanceUID
    folder.rename(place.folder / f"Quill^Zeb {uid}")
    assert place.watch()["done"] == 1
    files = [path for path in place.out.rglob("*") if path.is_file()]
    objects = [path for path in files if path.suffix == ".dcm"]
    assert len(objects) == 4
    for word in (b"Quill", b"ZX-1", uid.encode()):
        assert word in objects[0].read_bytes()
        assert [path for path in files if word in path.read_bytes() and path not in objects] == []
        assert word.decode() not in " ".join(map(str, files))


# What is killed after each of these was begun, in the order in which they happen.
MOMENTS = ("note_attempt", "predict_all", "add_result", "send", "note_sent", "note_send", "settle")
MOMENTS += ("append_line", "note_logged")


class KilledError(BaseException):
    """As a kill: nothing after it is done."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(place, monkeypatch, moment, when):
    owner = {"predict_all": watching, "append_line": watching, "send": sending.Peer}
    owner = owner.get(moment, Queue)
    original = getattr(owner, moment)

    def killed(*given, **more):
        if when == "after":
            original(*given, **more)
        raise KilledError

    place.arrive("1")
    place.arrive("2")
    with peer() as (name, offered):
        with monkeypatch.context() as patch:
            patch.setattr(owner, moment, killed)
            with pytest.raises(KilledError):
                place.watch(name)
        assert place.watch(name)["done"] == 2
        # An object may be offered again whose arrival could not be noted; its UID is the same.
        assert len(set(offered)) == 8
        assert len(offered) <= 8 + (moment in ("send", "note_sent"))
    lines = place.log()
    assert len(lines) == len({line["study"] for line in lines}) == 2


def test_a_study_that_grows_is_reported_again(place):
    place.arrive("1", count=2)
    with peer() as (name, offered):
        place.watch(name)
        place.arrive("1", count=3)
        place.watch(name)
        assert len(offered) == len(set(offered)) == 3 + 4
        for path in place.folder.rglob("*.dcm"):  # as when the same study is sent once more
            path.write_bytes(path.read_bytes())
        place.watch(name)
        assert len(offered) == 7
    assert [line["images"] for line in place.log()] == [2, 3, 3]
    assert len({line["study"] for line in place.log()}) == 1


def test_a_study_that_grows_while_it_is_predicted_is_not_reported_as_it_was(place, monkeypatch):
    def growing(*given, **more):
        found = predict_all(*given, **more)
        if len(grown) < 2:
            grown.append(place.arrive("1", count=3))
        return found

    predict_all, grown = watching.predict_all, [place.arrive("1", count=2)]
    monkeypatch.setattr(watching, "predict_all", growing)
    place.watch()
    assert len(list((place.out / "results").iterdir())) == 1
    assert [line["images"] for line in place.log()] == [3]


def test_our_own_results_in_the_folder_are_no_study(place):
    place.arrive("1")
    with peer() as (name, offered):
        place.watch(name)
        for path in place.out.rglob("*.dcm"):
            shutil.copy(path, place.folder)
        place.watch(name)
        assert len(offered) == 4
    assert len(place.log()) == 1
    assert "msa_flax_watch_passed_over 4" in (place.out / "metrics.prom").read_text()


def test_one_study_that_fails_does_not_stop_the_others(place, monkeypatch):
    predict_all = watching.predict_all

    def failing(model, paths, out, **more):
        if any(pydicom.dcmread(path).PatientID == "ZX-1" for path in Path(paths[0]).iterdir()):
            raise RuntimeError("Quill^Zeb")
        return predict_all(model, paths, out, **more)

    monkeypatch.setattr(watching, "predict_all", failing)
    place.arrive("1")
    place.arrive("2")
    assert place.watch() == {"waiting": 0, "predicted": 0, "done": 1, "failed": 1}
    states = {line["state"]: line for line in place.log()}
    assert states["failed"]["attempts"] == 3
    assert re.fullmatch(r"RuntimeError in \w+\.py, line \d+", states["failed"]["reason"])
    monkeypatch.setattr(watching, "predict_all", predict_all)
    assert place.watch()["failed"] == 1
    with closing(Queue(place.out / "queue.sqlite")) as queue:
        queue.retry_failed()
    assert place.watch()["done"] == 2


def test_a_study_that_ends_the_process_is_given_up(place, monkeypatch):
    def killed(*given, **more):
        raise KilledError

    place.arrive("1")
    monkeypatch.setattr(watching, "predict_all", killed)
    for _ in range(3):
        with pytest.raises(KilledError):
            place.watch()
    assert place.watch()["failed"] == 1
    assert place.log()[0]["reason"] == "the process ended each time"


def test_too_many_files_are_refused_at_once(place, monkeypatch):
    monkeypatch.setattr(watching, "MOST_FILES", 2)
    place.arrive("1", count=3)
    place.arrive("2", count=2)
    assert place.watch() == {"waiting": 0, "predicted": 0, "done": 1, "failed": 1}
    (failed,) = [line for line in place.log() if line["state"] == "failed"]
    assert failed["reason"] == "expected 1 to 2 whole files, got 3"
    assert failed["attempts"] == 1


def test_what_is_no_image_is_reported_and_nothing_else(place):
    folder = place.arrive("1", count=1)
    ds = pydicom.dcmread(folder / "1.dcm")
    ds.Rows = ds.Columns = 60_000
    ds.save_as(folder / "1.dcm")
    del ds.PixelData, ds.Rows
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    ds.save_as(folder / "2.dcm")
    (folder / "3.dcm").write_bytes((folder / "1.dcm").read_bytes()[:200])
    (folder / "4.dcm").write_text("nothing")
    with peer() as (name, offered):
        assert place.watch(name)["done"] == 1
        assert len(offered) == 1
    (line,) = place.log()
    assert (line["slices"], line["refused"], line["objects"]) == (0, 2, 1)


def test_an_archive_that_is_away_gets_everything_when_it_is_back(place):
    place.arrive("1")
    with peer() as (name, _):
        pass
    port = int(name.rpartition(":")[2])
    assert place.watch(name, patience=Patience(pause=60.0))["predicted"] == 1
    assert not (place.out / "log.jsonl").exists()
    with peer(port=port) as (_, offered):
        assert place.watch(name)["done"] == 1
        assert len(offered) == 4


def test_results_are_bounded_and_unsent_ones_are_kept(place):
    for study in ("1", "2", "3"):
        place.arrive(study)
    assert place.watch(keep=0)["done"] == 3
    assert list((place.out / "results").iterdir()) == []
    place.arrive("4")
    place.arrive("5")
    with peer() as (name, _):
        pass
    # The archive is away, and one result is more than may be kept.
    counts = place.watch(name, keep=1, patience=Patience(pause=60.0))
    assert (counts["predicted"], counts["waiting"]) == (1, 1)
    assert len(list((place.out / "results").iterdir())) == 1
    assert "msa_flax_watch_stuck 1" in (place.out / "metrics.prom").read_text()
    with peer(port=int(name.rpartition(":")[2])) as (_, offered):
        assert place.watch(name, keep=1)["done"] == 5
        assert len(offered) == 8


def test_images_are_removed_when_asked_for_once_they_are_sent(place):
    place.arrive("1")
    (place.folder / "note.txt").write_text("stays")
    with peer(status=lambda uid: 0xC000) as (name, _):
        assert place.watch(name, delete_images=True)["failed"] == 1
    assert len(list(place.folder.rglob("*.dcm"))) == 3
    with closing(Queue(place.out / "queue.sqlite")) as queue:
        queue.retry_failed()
    with peer() as (name, offered):
        assert place.watch(name)["done"] == 1
        assert len(list(place.folder.rglob("*.dcm"))) == 3
        place.watch(name, delete_images=True)
        assert [path.name for path in place.folder.iterdir()] == ["note.txt"]
        assert len(offered) == 4


def test_without_room_it_waits_and_goes_on(place, monkeypatch, caplog):
    received, predict_all, times = [], watching.predict_all, []

    def full(*given, **more):
        times.append(1)
        if len(times) < 7:  # more often than a study is tried
            raise UserError("a file cannot be written") from OSError(28, "No space left on device")
        received.append(15)
        return predict_all(*given, **more)

    monkeypatch.setattr(watching, "predict_all", full)
    caplog.set_level("INFO", "msa_flax")
    place.arrive("1")
    with pytest.raises(UserError, match="cannot be written"):
        place.watch()
    assert place.watch(once=False, received=received)["done"] == 1
    assert caplog.text.count("no room in") == caplog.text.count("going on") == 1


def test_a_signal_ends_it_after_the_present_study(place, monkeypatch):
    predict_all, received = watching.predict_all, []

    def signalled(*given, **more):
        received.append(15)
        return predict_all(*given, **more)

    monkeypatch.setattr(watching, "predict_all", signalled)
    place.arrive("1")
    place.arrive("2")
    assert place.watch(once=False, received=received) == {
        "waiting": 1,
        "predicted": 0,
        "done": 1,
        "failed": 0,
    }


def test_it_waits_until_a_study_is_still(place):
    place.arrive("1")
    newest = max(path.stat().st_ctime for path in place.folder.rglob("*.dcm"))
    assert place.watch(still=0.5)["done"] == 1
    done = datetime.datetime.fromisoformat(place.log()[0]["time"]).timestamp()
    assert done >= newest + 0.5
