"""Times predict: slices from files to rows beside the network alone, and the start of the command.

    python experiments/benchmarks/predict.py [--slices 2000] [--rounds 3] [--starts 3]

The network is paper 1's at 224 pixels and full width, untrained: weights do not change its speed.
"""

import argparse
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import cv2
import numpy as np
import results
import timings

from msa_flax import restore
from msa_flax.config import Config, DataConfig, ModelConfig
from msa_flax.data import phantom
from msa_flax.files import markdown_table
from msa_flax.prediction.inputs import find_inputs, prepare_slice
from msa_flax.prediction.score import score
from msa_flax.results.training import record
from msa_flax.run import Run, start
from msa_flax.training.checkpoint import Checkpoints
from msa_flax.training.optim import create_optimizer
from msa_flax.training.steps import create_state
from msa_flax.training.xla import prepare_jax

SHARE, SECONDS = 0.9, 6.0  # the bars: of the network's own rate; from start to first result
DRAWN = 256  # different slices; more files are copies of them, which take as long to read
Rates = dict[str, list[tuple[float, float]]]  # (slices a second, CPU ms a slice) of each round
METHOD = """\
"network alone" calls the compiled network on images in memory; "predict" starts with a list of
files and ends with the rows of slices.csv: reading, checks, decoding, resizing, comparison with the
training images. Contestants take turns. PNG files are slices of the phantom, 160 to 224 pixels
square; DICOM files are 512 x 512, uncompressed. "first result" is the time from the start of the
command, with its compiled programs in the cache, to the first batch of rows on disk. CPU time, of
all threads, says what reading costs where other work shares the machine.
"""


def make_run(workdir: pathlib.Path) -> Run:
    """Writes an untrained run of paper 1's network, as training would; returns it."""
    config = Config(
        model=ModelConfig(pretrained="none"),
        data=DataConfig(source="phantom", protocol="kfold", phantom_patients=60),
    )
    run = start(workdir, config.validate())
    workdir.mkdir()
    record(run, 0.0)
    state = create_state(run.variables, create_optimizer(config.optim, total_steps=1))
    checkpoints = Checkpoints(workdir)
    checkpoints.save_last(state, {})
    checkpoints.save_best(state, {})
    return restore(workdir)


def write_files(folder: pathlib.Path, count: int) -> dict[str, pathlib.Path]:
    """Writes the same slices as PNG and as DICOM files; returns their folders."""
    drawn = [phantom.draw_slice(1, i // 8, i % 8).image for i in range(min(count, DRAWN))]
    png, dicom = folder / "png", folder / "dicom"
    for kind in (png, dicom):
        kind.mkdir()
    for i in range(count):
        image = drawn[i % len(drawn)]
        cv2.imwrite(str(png / f"{i}.png"), image)
        large = cv2.resize(image, (512, 512), interpolation=cv2.INTER_CUBIC)
        write_dicom(dicom / f"{i}.dcm", large, position=float(i))
    return {"PNG": png, "DICOM": dicom}


def write_dicom(path: pathlib.Path, image: np.ndarray, *, position: float) -> None:
    """Writes a CT slice whose bone window shows an image, uint8 [h, w]."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta, ds = FileMetaDataset(), Dataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(position)])
    ds.file_meta, ds.SOPClassUID = meta, CTImageStorage
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(ds, name, generate_uid(entropy_srcs=[name]))
    ds.Modality, ds.ImageType, ds.PatientID = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "phantom"
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.3, 0.3]
    ds.ImagePositionPatient, (ds.Rows, ds.Columns) = [0, 0, position], image.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    stored = np.rint((image / 255 - 0.5) * 1799 + 399.5 + 1024)  # PS3.3 C.11.2.1.2.1, solved
    ds.PixelData = stored.astype(np.int16).tobytes()
    ds.save_as(path, enforce_file_format=True)


def rates(run: Run, folders: dict[str, pathlib.Path], rounds: int) -> Rates:
    """Returns (slices a second, CPU ms a slice) of each round, of the network and by kind."""
    found = {kind: find_inputs([str(path)], run.config.data) for kind, path in folders.items()}
    slices = found["PNG"].slices
    prepared = [prepare_slice(one, run.config.data) for one in slices[:DRAWN]]
    images = np.stack([one for one in prepared if isinstance(one, np.ndarray)])
    images = images[np.arange(len(slices)) % len(images)]

    def predict(kind: str) -> Callable[[], int]:
        return lambda: sum(len(batch.rows) for batch in score(run.scorer, found[kind].slices))

    turns: dict[str, Callable[[], object]] = {"network alone": lambda: run.describe(images)}
    turns |= {f"predict, {kind}": predict(kind) for kind in folders}
    rate: Rates = {name: [] for name in turns}
    run.describe(images[: 2 * run.config.eval.batch_size])  # compiles
    for _, (name, work) in itertools.product(range(rounds), turns.items()):
        began, used, count = time.perf_counter(), time.process_time(), len(slices)
        work()
        taken = time.perf_counter() - began
        rate[name].append((count / taken, 1e3 * (time.process_time() - used) / count))
    return rate


def first_result(model: list[str], out: pathlib.Path, image: pathlib.Path) -> float:
    """Returns seconds from the start of the command to its first rows on disk.

    Args:
        model: the flag that names the run or the model, and its value.
        out: a new folder for the results.
        image: what is predicted.
    """
    command = [sys.executable, "-m", "msa_flax.predict", *model]
    journal, began = out / ".unfinished.jsonl", time.perf_counter()
    with subprocess.Popen(
        [*command, "--out", str(out), str(image)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            if journal.exists() and journal.read_bytes().count(b"\n") > 1:
                taken = time.perf_counter() - began
                process.wait()
                return taken
            time.sleep(0.01)
    raise SystemExit("predict ended without a result")


def text(rate: Rates, starts: list[float]) -> str:
    """Returns the section."""
    alone = rate["network alone"]
    rows = []
    for name, found in rate.items():
        ratios = [one / other for (one, _), (other, _) in zip(found, alone, strict=True)]
        _, _, ratio, _ = timings.quartiles(ratios)
        bar = [f">= {SHARE:g}", f"{ratio:.2f}", "yes" if ratio >= SHARE else "no"]
        cells = [timings.as_cell(list(column)) for column in zip(*found, strict=True)]
        rows.append([name, *cells, *(bar if found is not alone else ["", "", ""])])
    _, _, seconds, _ = timings.quartiles(starts)
    four = "min / q1 / median / q3"
    head = ["", f"slices/s: {four}", f"CPU ms a slice: {four}", "bar", "median of ratios", "met"]
    met = "yes" if seconds <= SECONDS else "no"
    return "\n\n".join(
        [
            "## Prediction of files",
            results.provenance(),
            METHOD.strip(),
            markdown_table(head, rows),
            markdown_table(
                ["", f"s: {four}", "bar", "met"],
                [["first result", timings.as_cell(starts), f"<= {SECONDS:g} s", met]],
            ),
        ]
    )


def main() -> None:
    """Runs everything, prints it and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--starts", type=int, default=3, help="after a first one, which compiles")
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        os.environ["MSA_FLAX_CACHE"] = str(folder / "cache")
        prepare_jax()
        run = make_run(folder / "run")
        folders = write_files(folder, options.slices)
        rate = rates(run, folders, options.rounds)
        image = next(folders["PNG"].iterdir())
        given = ["--workdir", str(run.workdir)]
        starts = [
            first_result(given, folder / f"out-{i}", image) for i in range(1 + options.starts)
        ]
    section = text(rate, starts[1:])
    print(section)
    results.write_section(options.results, "predict", section)


if __name__ == "__main__":
    main()
