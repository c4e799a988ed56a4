"""Feeds a reader with mutated files for a while; it may only refuse them with an error of its own.

    python experiments/fuzz.py images|weights|tables|settings [--seconds 150] [--corpus DIR]

Coverage-guided, by atheris (`pip install -e ".[fuzz]"`): files that reach new lines of the reader
are kept and mutated further. It begins with good files, which it makes. Any other exception than
files.UserError, more than 3 GiB of memory or 10 seconds for one file end it, and the file is kept
in DIR. RELIABILITY.md has the counts of the last runs.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

# Only what is imported here or below tells atheris which of its lines a file has reached.
with atheris.instrument_imports(include=["msa_flax"]) if atheris else contextlib.nullcontext():
    from command_line import Parser, call

    from msa_flax.files import UserError

Read = Callable[[bytes], object]


def images() -> tuple[Read, list[bytes]]:
    """Bytes of an image file, under the name that fits them best."""
    import random

    from inputs import odd_images

    from msa_flax.data.images import decode

    def read(data: bytes) -> object:
        return decode(data, "image.png" if data[:4] == b"\x89PNG" else "image.jpg")

    return read, [data for data, _ in odd_images(random.Random(0)).values()]


def weights() -> tuple[Read, list[bytes]]:
    """Bytes of a Keras file of weights."""
    import h5py
    import numpy as np

    from msa_flax.weights import read as read_file

    folder = Path(tempfile.mkdtemp())

    def read(data: bytes) -> object:
        path = folder / "weights.h5"
        path.write_bytes(data)
        return read_file(path)

    for name, shape in (("one.h5", (3, 3)), ("two.h5", (1,))):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("conv1/conv1/kernel:0", data=np.zeros(shape, np.float32))
            file.attrs["layer_names"] = [b"conv1"]
            file["conv1"].attrs["weight_names"] = [b"conv1/kernel:0"]
    return read, [path.read_bytes() for path in sorted(folder.glob("*.h5"))]


def tables() -> tuple[Read, list[bytes]]:
    """Bytes of predictions.csv, and of splits.csv."""
    from msa_flax.data.splits import Splits
    from msa_flax.evaluation.predictions import Predictions

    folder = Path(tempfile.mkdtemp())

    def read(data: bytes) -> object:
        path = folder / "table.csv"
        path.write_bytes(data)
        return (Splits if b"logit" not in data[:200] else Predictions).read(path)

    predictions = "example_id,split,fold,group,family,label,logit,probability\n"
    splits = "example_id,split,fold,group,family\n"
    return read, [
        (predictions + "a/b.png,test,-1,g,f,1,0,0.5\nc,test,-1,,,0,0,0.5\n").encode(),
        (splits + 'a/b.png,test,-1,g,f\n"c,d",train,0,,\n').encode(),
    ]


def settings() -> tuple[Read, list[bytes]]:
    """Text of the configuration in a run's config.json."""
    from msa_flax.config import Config, quickstart

    folder = Path(tempfile.mkdtemp())

    def read(data: bytes) -> object:
        from msa_flax.files import read_json

        path = folder / "config.json"
        path.write_bytes(data)
        return Config.from_dict(read_json(path).get("config", {})).validate()

    text = json.dumps({"schema_version": 1, "config": quickstart().to_dict()})
    return read, [text.encode(), b'{"schema_version": 1, "config": {"train": {"epochs": 3}}}']


READERS = {"images": images, "weights": weights, "tables": tables, "settings": settings}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; libFuzzer, which does the work, ends the process itself."""
    parser = Parser(__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=150, help="how long")
    parser.add_argument(
        "--corpus", type=Path, help="folder of kept files; default: a temporary one"
    )
    options: argparse.Namespace = parser.parse_args(arguments)
    sys.path.insert(0, str(Path(__file__).parent / "faults"))
    if atheris is None:
        raise UserError('expected the package atheris: pip install -e ".[fuzz]"')
    with atheris.instrument_imports(include=["msa_flax"]):
        read, seeds = READERS[options.reader]()
    corpus = options.corpus or Path(tempfile.mkdtemp())
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data)

    def once(data: bytes) -> None:
        try:
            read(data)
        except UserError:
            return

    limits = ("-timeout=10", "-rss_limit_mb=3072", "-max_len=65536")
    own = (f"-max_total_time={options.seconds}", f"-artifact_prefix={corpus}/", *limits, "-seed=1")
    atheris.Setup([sys.argv[0], *own, str(corpus)], once)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(call(main))
