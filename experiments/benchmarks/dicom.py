"""Times a DICOM slice from the disk to the network's input beside pydicom's decoding alone.

    python experiments/benchmarks/dicom.py [--rounds 120]

Per transfer syntax, one file of 512 x 512 pixels from pydicom-data is read anew each time. "pixel
array" is pydicom's pixel_array(dcmread(path)) with the fastest of the installed decoders, "input"
is ours: header and pixels checked, window, orientation, 224 x 224 pixels. They take turns; what is
compared is CPU time. The bars are 1.35 for uncompressed pixels, 1.15 for compressed ones.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import pydicom
import results
from pydicom.data import get_testdata_file
from pydicom.pixels import get_decoder, pixel_array
from timings import as_cell, quartiles

from msa_flax.data import images
from msa_flax.data.dicom import read_header, windowed
from msa_flax.files import markdown_table

SIZE = 224  # pixels
BARS = {True: 1.15, False: 1.35}  # by whether pixels are compressed
HEAD = ("transfer syntax", "decoder", "pixel array, ms", "input, ms", "ratio", "bar", "slice, ms")


def write_files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a file of each syntax, written from one uncompressed slice where there is none."""
    plain = pathlib.Path(str(get_testdata_file("693_UNCR.dcm", download=False)))
    yield plain
    for syntax in (pydicom.uid.RLELossless, pydicom.uid.JPEGLSLossless):
        ds = pydicom.dcmread(plain)
        ds.compress(syntax)
        ds.save_as(folder / f"{syntax}.dcm")
        yield folder / f"{syntax}.dcm"
    for name in ("bad_sequence.dcm", "693_J2KR.dcm"):
        yield pathlib.Path(str(get_testdata_file(name, download=False)))


def fastest(path: pathlib.Path) -> str:
    """Returns the decoder that takes the least CPU time for a file; "" where none is needed."""
    ds = pydicom.dcmread(path)
    syntax = ds.file_meta.TransferSyntaxUID
    names = get_decoder(syntax).available_plugins if syntax.is_encapsulated else ("",)
    return min(names, key=lambda name: min(taken(lambda: pixel_array(ds, decoding_plugin=name), 8)))


def taken(work: Callable[[], object], times: int = 1) -> list[float]:
    """Returns the CPU milliseconds of each call."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(1e3 * (time.process_time() - began))
    return found


def measure(path: pathlib.Path, rounds: int) -> list[str]:
    """Returns a row of the table."""
    plugin = fastest(path)
    (one,) = read_header(path)
    works: tuple[Callable[[], object], ...] = (
        lambda: pixel_array(pydicom.dcmread(path), decoding_plugin=plugin),
        lambda: images.preprocess(images.read_image(path), size=SIZE),
        lambda: windowed(one),
    )
    turns = [[taken(work)[0] for work in works] for _ in range(rounds + 3)][3:]
    theirs, ours, again = zip(*turns, strict=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    bar = BARS[bool(plugin)]
    pairs = quartiles([b / a for a, b in zip(theirs, ours, strict=True)])
    return [
        pydicom.uid.UID(one.transfer_syntax).name,
        plugin or "pydicom",
        as_cell(theirs),
        as_cell(ours),
        f"{ratio:.2f} ({', '.join(f'{value:.2f}' for value in pairs)})",
        f"{bar} {'kept' if ratio <= bar else 'missed'}",
        as_cell(again),
    ]


def main() -> None:
    """Measures every file, prints the table and writes its section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--results", type=pathlib.Path, default=results.RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(path, options.rounds) for path in write_files(pathlib.Path(folder))]
    table = markdown_table(HEAD, rows)
    print(table)
    about = " ".join(__doc__.split("\n\n")[2].split())
    text = f"""## DICOM slices

{results.provenance()} pydicom {pydicom.__version__}.

{about} A ratio is that of the medians, in brackets are the quartiles of the pairs. "slice" is the
window of a slice whose header is known, as a series is read.

{table}
"""
    results.write_section(options.results, "dicom", text)


if __name__ == "__main__":
    main()
