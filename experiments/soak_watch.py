"""Disturbs the watching command as a bad night would, and counts what came of it.

    python experiments/soak_watch.py --out DIR [--studies 300] [--kills 20] [--by store] [--seed 0]

Small studies of the phantom arrive one after the other at dcmtk's storescp; ``msa_flax.watch``
scores them with a toy model and sends the results to Orthanc, by C-STORE or STOW-RS. Meanwhile the
command is killed at moments drawn at random, and started again at once; for a while the archive is
away, and for a while the disk of the results is full, and the command is killed then too. The last
quarter of the studies is not disturbed. Then everything is counted: studies that came, results in
the archive and in the log, what is lost, what is there twice, images that have changed, and the
memory of the command at the beginning and at the end of the last quarter.

Everything happens in DIR, which must be new; DIR/soak.json has the counts. The exit code is 1 if
anything was lost, doubled or changed. RELIABILITY.md has the results. The full disk is a tmpfs,
which needs the rights to mount one; where they are missing no disk is full, and the counts say so.
"""

import collections
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from command_line import Parser, call
from peers import Orthanc, Storescp, missing, send
from phantom_studies import Options, write_study
from phantom_volume import Settings
from storage import tmpfs
from toy_model import write_toy_model

from msa_flax.files import UserError, markdown_table, write_json

SLICES, MATRIX = 6, 64  # of a study; pixels a side
OBJECTS = {"SR": 1, "OT": 3}  # of a study's results, by modality
STILL = 2.0  # seconds without a new file after which a study is complete
DISK, KEEP = 200, 0.1  # MB of the disk of the results, GB that are kept on it
QUIET = 0.25  # share of the studies that come when nothing is disturbed any more
PATIENCE = 300.0  # seconds without a new line in the log after which studies count as lost


class Watch:
    """The command that is disturbed.

    Args:
        command: its command line.
        log: the file with a line for each result.
        said: a file for what it prints.
    """

    def __init__(self, command: Sequence[str], log: Path, said: Path) -> None:
        self.command, self.log, self.said = command, log, said

    def start(self) -> None:
        """Starts it."""
        with self.said.open("ab") as file:
            self.process = subprocess.Popen(
                self.command, stdout=file, stderr=file, start_new_session=True
            )

    def kill(self) -> None:
        """Kills it, and starts it again at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.start()

    def finish(self) -> int:
        """Asks it to end, and returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def entries(self) -> list[dict[str, Any]]:
        """Returns the lines of its log that are whole."""
        text = self.log.read_text("utf-8") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds, but no longer than new lines come.

        Raises:
            RuntimeError: the command has ended by itself.
        """
        count, end = -1, 0.0
        while not condition():
            if len(self.entries()) != count:
                count, end = len(self.entries()), time.monotonic() + PATIENCE
            if time.monotonic() > end:
                return
            if self.process.poll() is not None:
                said = self.said.read_text("utf-8", "replace").strip().splitlines()[-1:]
                raise RuntimeError(f"it ended with exit code {self.process.returncode}: {said}")
            time.sleep(0.05)

    def resident_mib(self) -> float:
        """Returns the memory that it has now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


class Night:
    """Who sends, who receives, and what is disturbed.

    Args:
        folder: of everything.
        archive: that gets the results.
        receiver: of the studies.
        seed: of the studies and the moments.
        pause: seconds that the archive is away, and that the disk is full.
        room: whether the disk can be filled up.
        by: how results are sent, "store" or "stow".
    """

    def __init__(
        self,
        folder: Path,
        archive: Orthanc,
        receiver: Storescp,
        *,
        seed: int,
        pause: float,
        room: bool,
        by: str,
    ) -> None:
        self.folder, self.archive, self.receiver = folder, archive, receiver
        self.seed, self.pause, self.room = seed, pause, room
        self.draw = random.Random(seed)
        self.came: list[str] = []  # UIDs of studies
        self.images: dict[Path, str] = {}  # what was received, and its digests
        self.kills = 0
        self.memory: list[float] = []  # MiB
        out = folder / "disk/out"
        command = [sys.executable, "-m", "msa_flax.watch", "--folder", str(receiver.received)]
        command += ["--model", str(write_toy_model(folder / "model")), "--out", str(out)]
        command += {
            "store": ["--send", f"ARCHIVE@127.0.0.1:{archive.port}"],
            "stow": ["--stow", f"{archive.url}/dicom-web"],
        }[by]
        command += [f"--still={STILL}", f"--keep_gb={KEEP}"]
        self.watch = Watch(command, out / "log.jsonl", folder / "watch.txt")

    def pass_by(self, studies: int, kills: int) -> None:
        """Lets studies come, and disturbs the command meanwhile.

        Args:
            studies: how many.
            kills: how many, two or more.
        """
        quiet = max(2, round(QUIET * studies))
        bounds = sorted(self.draw.sample(range(1, studies - quiet), kills - 1))
        self.watch.start()
        for number, bound in enumerate([*bounds, studies - quiet]):
            part = bound - len(self.came)
            if number == kills // 3:
                self._without_archive(part)
            elif number == 2 * kills // 3 and self.room:
                self._without_room(part)
            else:
                self._kill_at_work(part)
        for more in (1, quiet - 1):
            self._come(more)
            self.watch.wait(lambda: len(self.watch.entries()) >= len(self.came))
            self.memory.append(self.watch.resident_mib())

    def _come(self, studies: int) -> None:
        for _ in range(studies):
            number, place = len(self.came), self.folder / f"studies/{len(self.came)}"
            options = Options(
                out=place,
                studies=number + 1,
                settings=Settings(seed=self.seed, matrix=MATRIX),
                layout="table",
                slices=SLICES,
            )
            self.came.append(write_study(options, number).study[0])
            send(place / "images", self.receiver.port)
        new = set(self.receiver.received.iterdir()) - set(self.images)
        self.images |= {path: _digest(path) for path in new}

    def _kill(self) -> None:
        self.watch.kill()
        self.kills += 1

    def _kill_at_work(self, studies: int) -> None:
        self._come(studies)
        if self.draw.random() < 0.75:  # else while it starts, or soon after
            wanted = min(len(self.came), len(self.watch.entries()) + self.draw.randint(1, 4))
            self.watch.wait(lambda: len(self.watch.entries()) >= wanted)
        time.sleep(self.draw.uniform(0, 2))
        self._kill()

    def _without_archive(self, studies: int) -> None:
        self.archive.kill()
        self._come(studies)
        self._pause()
        self.archive.start()

    def _without_room(self, studies: int) -> None:
        ballast = self.folder / "disk/ballast"
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        self._come(studies)
        self._pause()
        ballast.unlink()

    def _pause(self) -> None:
        before = self.draw.uniform(0, self.pause)
        time.sleep(before)
        self._kill()
        time.sleep(self.pause - before)

    def count(self) -> dict[str, Any]:
        """Counts what came of it."""
        had = objects_of(self.archive)
        entries = self.watch.entries()
        lines = collections.Counter(one["study"] for one in entries)
        results = [had.get(uid, collections.Counter()) for uid in self.came]
        return {
            "studies in": len(self.came),
            "kills": self.kills,
            "disk full": self.room,
            "results in the archive": sum(one == OBJECTS for one in results),
            "lost": sum(any(one[k] < n for k, n in OBJECTS.items()) for one in results),
            "doubled": sum(any(one[k] > n for k, n in OBJECTS.items()) for one in results),
            "of no study": len(set(had) - set(self.came)),
            "lines in the log": len(entries),
            "studies with two lines": sum(count > 1 for count in lines.values()),
            "states": dict(collections.Counter(one["state"] for one in entries)),
            "tried more than once": sum(one.get("attempts", 1) > 1 for one in entries),
            "images changed": sum(
                not path.exists() or _digest(path) != digest for path, digest in self.images.items()
            ),
            "MiB resident": self.memory,
        }


def objects_of(archive: Orthanc) -> dict[str, collections.Counter[str]]:
    """Returns how many instances of each modality an archive has, by study UID."""
    uids = {
        one["ID"]: one["MainDicomTags"]["StudyInstanceUID"]
        for one in archive.ask("/studies?expand")
    }
    had: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in archive.ask("/series?expand"):
        kind = one["MainDicomTags"]["Modality"]
        had[uids[one["ParentStudy"]]][kind] += len(one["Instances"])
    return had


def held(counts: dict[str, Any]) -> bool:
    """Says whether each study has its results once, and nothing else happened."""
    came = counts["studies in"]
    wrong = ("lost", "doubled", "of no study", "studies with two lines", "images changed")
    once = counts["results in the archive"] == counts["lines in the log"] == came
    return once and counts["states"] == {"done": came} and not any(counts[one] for one in wrong)


def soak(
    folder: Path, *, studies: int, kills: int, seed: int, by: str = "store", pause: float = 20.0
) -> dict[str, Any]:
    """Spends a night, and returns the counts.

    Args:
        folder: a new one.
        studies: how many come.
        kills: how many, two or more.
        seed: of the studies and the moments.
        by: how results are sent, "store" or "stow".
        pause: seconds that the archive is away, and that the disk is full.
    """
    began = time.monotonic()
    folder.mkdir(parents=True)
    receiver, archive = Storescp(folder / "receiver"), Orthanc(folder / "archive")
    with tmpfs(folder / "disk", DISK * 10**6) as room, receiver, archive:
        night = Night(folder, archive, receiver, seed=seed, pause=pause, room=room, by=by)
        try:
            night.pass_by(studies, kills)
            code = night.watch.finish()
            counts = night.count()
        finally:
            night.watch.process.kill()
            night.watch.process.wait()
    return {**counts, "exit code": code, "seconds": round(time.monotonic() - began)}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if anything did not hold."""
    parser = Parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for everything")
    parser.add_argument("--studies", type=int, default=300, help="how many come")
    parser.add_argument("--kills", type=int, default=20, help="how often the command is killed")
    parser.add_argument("--by", choices=("store", "stow"), default="store", help="how it sends")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn at random")
    options = parser.parse_args(arguments)
    if options.kills < 2 or options.studies < 2 * options.kills:
        raise UserError("--kills, --studies: expected 2 or more, and twice as many studies")
    if options.out.exists():
        raise UserError(f"--out: expected a new folder, {options.out} is there")
    if gone := missing("Orthanc", "storescp", "storescu"):
        raise UserError(gone)
    given = {name: getattr(options, name) for name in ("studies", "kills", "seed", "by")}
    counts = soak(options.out.absolute(), **given)
    write_json(options.out / "soak.json", given | counts)
    print(markdown_table(["what", "count"], [[name, str(x)] for name, x in counts.items()]))
    return 0 if held(counts) else 1


if __name__ == "__main__":
    sys.exit(call(main))
