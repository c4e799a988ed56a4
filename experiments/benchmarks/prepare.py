"""Times prepare, watches the memory of its workers, and compares the bytes that are written.

    python experiments/benchmarks/prepare.py [--slices 40] [--few 50] [--many 200] [--beam PYTHON]

Studies are those of the phantom, 512 x 512 pixels, uncompressed, all without a fracture: a few are
drawn, and the others are links to --slices neighbouring files of theirs. --beam names the Python of
an environment that has Apache Beam; without it, its line is left out.
"""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import cv2
import results  # puts the folder of the other scripts on the path
from phantom_studies import LEVELS, Options, write_studies
from phantom_volume import Settings
from pydicom.data import get_testdata_file

from msa_flax.data.folder import File
from msa_flax.data.images import read_image
from msa_flax.data.rsna import BOXES, IMAGES, STUDIES
from msa_flax.data.tfds import write_shard
from msa_flax.files import csv_text, markdown_table, sha256, write_text

DRAWN = 4  # different studies
SLACK = 0.05  # the bar: how much more memory a worker may need for --many than for --few
# Of the challenge: studies in its table, those without a fracture, and slices with a box. How many
# slices a study has is not in the tables: about 350, ours.
ALL, NORMAL, BOXED, SLICES = 2019, 1058, 7217, 350
METHOD = """\
Seconds a slice are those of {many} studies less those of {few}, by the slices between, so that no
process's start counts. Memory is the highest of a worker (VmHWM). "same bytes" compares every file
of a prepared folder, tables included, with those that one process has written. Files come from the
memory of the system: a disk that cannot read half a megabyte in the time of a slice is slower.
Alone and in one thread, a slice of the phantom and slices of pydicom-data take:
"""
REAL = {"real, uncompressed": "693_UNCR.dcm", "real, JPEG lossless": "bad_sequence.dcm"}
REAL |= {"real, JPEG 2000": "693_J2KR.dcm"}
TIMES = 20  # of each slice


def write_archives(folder: pathlib.Path, options: argparse.Namespace) -> list[pathlib.Path]:
    """Writes an archive of --few and one of --many studies; returns their folders."""
    drawn = folder / "drawn"
    settings = Settings(seed=options.seed, matrix=options.matrix)
    write_studies(Options(out=drawn, studies=DRAWN, settings=settings, boxed=0, segmented=0))
    studies = sorted((drawn / IMAGES).iterdir())
    archives = []
    for count in (options.few, options.many):
        root, rows = folder / f"archive-{count}", []
        for number in range(count):
            name, source = f"1.2.{number}", studies[number % DRAWN]
            place = root / IMAGES / name
            place.mkdir(parents=True)
            for i in range(options.slices):
                first = 7 * number % (len(list(source.iterdir())) - options.slices)
                os.link(source / f"{1 + first + i}.dcm", place / f"{1 + i}.dcm")
            rows.append([name, *[0] * (1 + len(LEVELS))])
        header = ["StudyInstanceUID", "patient_overall", *LEVELS]
        write_text(root / STUDIES, csv_text(header, rows))
        header = ["StudyInstanceUID", "x", "y", "width", "height", "slice_number"]
        write_text(root / BOXES, csv_text(header, []))
        archives.append(root)
    return archives


def prepare(
    root: pathlib.Path,
    out: pathlib.Path,
    *flags: str,
    python: str = sys.executable,
    kill_after: int | None = None,
) -> tuple[float, float, float]:
    """Runs the command; returns its seconds, its CPU seconds, and the most memory of a worker, MB.

    Args:
        root: the archive.
        out: the prepared folder.
        flags: further flags.
        python: the interpreter.
        kill_after: how many studies to wait for before the command is killed.
    """
    command = [python, "-m", "msa_flax.prepare", f"--root={root}", f"--out={out}", *flags]
    began, used, highest = time.perf_counter(), cpu_of_children(), 0.0
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            highest = max([highest, *map(memory, workers(process.pid))])
            if kill_after and len(list(out.glob("studies/*.json"))) >= kill_after:
                process.kill()
                break
            time.sleep(0.05)
        said = process.communicate()[1]  # ends when the last worker has
    if process.returncode and not kill_after:
        raise SystemExit(f"{' '.join(command)}: {said}")
    return time.perf_counter() - began, cpu_of_children() - used, highest


def cpu_of_children() -> float:
    """Returns the CPU seconds of all processes that were started from here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def workers(process: int) -> list[int]:
    """Returns the processes that a process has started and that are left."""
    path = pathlib.Path(f"/proc/{process}/task/{process}/children")
    return [int(one) for one in path.read_text().split()] if path.exists() else []


def memory(process: int) -> float:
    """Returns the highest memory that a process has had, MB; 0 if it has ended."""
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def content(folder: pathlib.Path) -> dict[str, str]:
    """Returns a hash of every file in a prepared folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in paths}


def measure(folder: pathlib.Path, options: argparse.Namespace) -> list[list[str]]:
    """Returns the rows of the table."""
    few, many = write_archives(folder, options)
    between = (options.many - options.few) * options.slices
    rows = []
    for processes in (1, 2):
        flag, out = f"--processes={processes}", folder / f"many-{processes}"
        short, least, low = prepare(few, folder / f"few-{processes}", flag)
        long, most, high = prepare(many, out, flag)
        rate, used = (long - short) / between, (most - least) / between
        hours = [rate * count / 3600 for count in (NORMAL * SLICES + BOXED, ALL * SLICES)]
        more = high / low - 1
        memories = f"{low:.0f}, {high:.0f} ({more:+.1%}, bar {SLACK:.0%}: "
        rows.append(
            [
                f"{processes} process{'es' * (processes > 1)}",
                f"{short:.1f}, {long:.1f}",
                f"{1e3 * rate:.1f}",
                f"{1e3 * used:.1f}",
                f"{hours[0]:.1f}, {hours[1]:.1f}",
                f"{memories}{'kept' if more <= SLACK else 'missed'})",
                same(out, folder / "many-1"),
            ]
        )
    one, out = folder / "few-1", folder / "killed"
    prepare(few, out, "--processes=2", kill_after=options.few // 3)
    left = len(list(out.glob("studies/*.json")))
    again, *_ = prepare(few, out, "--processes=2")
    rows.append(
        [f"killed (-9) after {left} studies, again", f"{again:.1f}", "", "", "", "", same(out, one)]
    )
    again, *_ = prepare(few, out, "--processes=2")
    rows.append(["all done, again", f"{again:.1f}", "", "", "", "", same(out, one)])
    if options.beam:
        out = folder / "beam"
        with_beam, *_ = prepare(few, out, "--runner=FnApiRunner", python=options.beam)
        rows.append(
            ["Apache Beam, FnApiRunner", f"{with_beam:.1f}", "", "", "", "", same(out, one)]
        )
    return rows


def slices(folder: pathlib.Path) -> list[list[str]]:
    """Returns rows about one slice of the phantom and real ones: CPU ms to read and to write it."""
    paths = {"phantom": next((folder / "drawn" / IMAGES).rglob("70.dcm"))}
    paths |= {kind: pathlib.Path(str(get_testdata_file(name))) for kind, name in REAL.items()}
    cv2.setNumThreads(1)
    return [[kind, *one_slice(path, folder / "one")] for kind, path in paths.items()]


def one_slice(path: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Returns the CPU milliseconds to read and to write a slice, and how many kB are written."""
    file, image = File(path=path, example_id="x", label=0), read_image(path)
    read = statistics.median(taken(lambda: read_image(path)) for _ in range(TIMES))
    write = min(taken(lambda: write_shard(out, [(file, image)] * TIMES)) for _ in range(3)) / TIMES
    return [f"{read:.1f}", f"{write:.1f}", f"{out.stat().st_size / TIMES / 1000:.0f}"]


def taken(work: Callable[[], object]) -> float:
    """Returns the CPU milliseconds of a call."""
    began = time.process_time()
    work()
    return 1e3 * (time.process_time() - began)


def same(folder: pathlib.Path, other: pathlib.Path) -> str:
    """Returns whether two prepared folders hold the same bytes."""
    return "yes" if content(folder) == content(other) else "no"


def main() -> None:
    """Measures, prints the table and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--few", type=int, default=50)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--matrix", type=int, default=512, help="pixels, side of a slice")
    parser.add_argument("--beam", metavar="PYTHON")
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(pathlib.Path(folder), options)
        alone = slices(pathlib.Path(folder))
    studies = f"{options.few} studies, of {options.many}"
    head = [
        "",
        f"s: {studies}",
        "ms a slice",
        "CPU ms a slice",
        "h: labelled slices of the challenge, all slices",
    ]
    head += [f"MB of a worker: {studies}", "same bytes"]
    section = "\n\n".join(
        [
            "## Preparing an archive",
            results.provenance(),
            METHOD.format(few=options.few, many=options.many).strip(),
            markdown_table(["a slice", "read, CPU ms", "write, CPU ms", "kB written"], alone),
            f"The challenge has {ALL:,} studies; {NORMAL:,} without a fracture and {BOXED:,} boxes "
            f"label slices. Hours count {SLICES} slices a study.",
            markdown_table(head, rows),
        ]
    )
    print(section)
    results.write_section(options.results, "prepare", section)


if __name__ == "__main__":
    main()
