"""Damaged, hostile or impossible inputs: images, names, labels, weights, configurations."""

import collections
import pickle
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from bench import CONFIG, Bench, Ended, Outcome

from msa_flax.files import read_json

_SIDE = 64  # pixels of every image
_PNG = b"\x89PNG\r\n\x1a\n"
FOLDER = (
    *CONFIG,
    "--config.data.source=folder",
    "--config.data.protocol=published",
    "--config.data.group_pattern=^(?P<group>pat\\d+)",
    "--config.data.family_pattern=",
    "--config.train.epochs=1",
)


def images(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Damaged, hostile and unusual images, one by one; then all among good ones, to be left out."""
    data_set, workdir = image_folder(bench.new("odd-set"), draw), bench.new("odd-run")
    kinds = list(odd_images(draw).items())[: times or None]
    for name, (data, _) in kinds:
        (data_set / "train/fracture" / name).write_bytes(data)
    unnamed = "--config.data.group_pattern="  # the names of these files tell no patient
    command = ("train", "--workdir", workdir, *FOLDER, unnamed, f"--config.data.root={data_set}")
    refused = bench.run(bench.command(*command))
    yield _refused("training with all of them", refused, workdir)
    ended = bench.run(bench.command(*command, "--config.data.on_bad_file=skip"))
    bad = read_json(workdir / "run.json").get("bad_files", [])
    times_listed = collections.Counter(Path(name).name for name, _ in bad)
    for name, (_, readable) in kinds:
        result = "listed once and left out" if times_listed[name] else "read"
        held = times_listed[name] == (not readable) and not ended.code and ended.peak_mib < 4096
        result = f"exit {ended.code}: {ended.last}" if ended.code else result
        yield Outcome(injected=f"training without {name}", result=result, held=held)


def names(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Names that try to leave the folder of the results, or to be something else in a table."""
    before = set(bench.folder.parent.iterdir())
    data_set = image_folder(bench.new("names-set"), draw)
    hostile = ("..fracture", "=1+1", "-rf", "<img src=x onerror=alert(1)>", "a" * 240, "new\nline")
    for number, name in enumerate(hostile[: times or None]):
        source = next((data_set / "val/normal").glob("pat*"))
        shutil.copy(source, data_set / f"val/normal/pat1{number}{name}.png")
    for name in ("../../outside", "/outside", "a/../../b", "", ".", "..", "x" * 300)[
        : times or None
    ]:
        workdir = bench.copy(bench.reference, "names")
        external = ("--data_root", data_set / "val", f"--external={name}")
        ended = bench.run(bench.command("evaluate", "--workdir", workdir, *external))
        outside = set(bench.folder.parent.iterdir()) - before
        held = ended.refused and not outside
        result = "refused" if held else f"exit {ended.code}: {ended.last}; outside: {outside}"
        yield Outcome(injected=f"evaluate --external {name[:20]!r}", result=result, held=held)
    workdir = bench.copy(bench.reference, "names")
    ended = bench.run(
        bench.command(
            *("explain", "--workdir", workdir, "--out", bench.new("names-maps")),
            *sorted(map(str, data_set.glob("val/normal/*.png"))),
        )
    )
    outside = set(bench.folder.parent.iterdir()) - before
    result = f"exit {ended.code}" + (f", outside: {outside}" if outside else ", nothing outside")
    held = not ended.code and not outside
    yield Outcome(injected="explain of hostile names", result=result, held=held)


def labels(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Class folders swapped, empty, unknown or missing; one image in two classes or two parts."""

    def swap(root: Path) -> None:
        (root / "val/fracture").rename(root / "val/x")
        (root / "val/normal").rename(root / "val/fracture")
        (root / "val/x").rename(root / "val/normal")

    def copy(source: str, target: str) -> Callable[[Path], None]:
        def change(root: Path) -> None:
            chosen = min((root / source).iterdir())
            shutil.copy(chosen, root / target / "pat99_s01.png")

        return change

    def copy_again_encoded(root: Path) -> None:
        image = cv2.imread(str(min((root / "train/fracture").iterdir())), cv2.IMREAD_GRAYSCALE)
        assert image is not None
        cv2.imwrite(str(root / "train/normal/pat98_s01.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 95])

    def third(root: Path) -> None:
        shutil.copytree(root / "train/normal", root / "train/unsure")

    def empty(root: Path) -> None:
        shutil.rmtree(root / "val/fracture")
        (root / "val/fracture").mkdir()

    changes: dict[str, Callable[[Path], object]] = {
        "one image in both classes": copy("train/fracture", "train/normal"),
        "one image in train and val": copy("train/fracture", "val/fracture"),
        "one image in both classes, encoded again": copy_again_encoded,
        "a third class": third,
        "an empty class in val": empty,
        "no folder of a class in val": lambda root: shutil.rmtree(root / "val/normal"),
        "no image at all": lambda root: list(map(Path.unlink, root.rglob("*.png"))),
    }
    for injected, change in list(changes.items())[: times or None]:
        root, workdir = image_folder(bench.new("labels-set"), draw), bench.new("labels")
        change(root)
        given = f"--config.data.root={root}"
        yield _refused(
            injected,
            bench.run(bench.command("train", "--workdir", workdir, *FOLDER, given)),
            workdir,
        )
    root, workdir = image_folder(bench.new("labels-set"), draw), bench.new("labels")
    given = f"--config.data.root={root}"
    bench.run(bench.command("train", "--workdir", workdir, *FOLDER, given))
    swap(root)
    ended = bench.run(bench.command("evaluate", "--workdir", workdir))
    yield _refused("class folders swapped after training", ended, None)


def weights(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Files of weights that are cut, empty, of another kind, or would run code when unpickled."""
    proof = bench.folder / "unpickled"
    proof.unlink(missing_ok=True)

    class Attack:
        def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
            return Path.touch, (proof,)

    folder = bench.new("weights")
    folder.mkdir()
    (folder / "empty.h5").write_bytes(b"")
    (folder / "text.h5").write_text("not weights")
    (folder / "pickle.h5").write_bytes(pickle.dumps(Attack()))
    np.savez(folder / "pickle.npz", x=np.array([Attack()], dtype=object))
    shutil.copy(folder / "pickle.npz", folder / "npz-named.h5")
    _write_one_layer(folder / "missing.h5")
    _write_one_layer(folder / "cut.h5")
    data = (folder / "cut.h5").read_bytes()
    (folder / "cut.h5").write_bytes(data[: len(data) // 2])
    paths = [*sorted(folder.iterdir()), folder / "none.h5", folder]
    for path in paths[: times or None]:
        workdir = bench.new("weights-run")
        more = ("--config.model.alpha=1.0", f"--config.model.pretrained={path}")
        ended = bench.run(bench.command("train", "--workdir", workdir, *CONFIG, *more))
        outcome = _refused(f"weights from {path.name}", ended, workdir)
        if proof.exists():
            outcome = Outcome(injected=outcome.injected, result="code was run", held=False)
        yield outcome


def configurations(bench: Bench, times: int, draw: random.Random) -> Iterator[Outcome]:
    """Settings that cannot be; each must be refused in one sentence before anything is written."""
    for given in _CONFIGURATIONS[: times or None]:
        workdir = bench.new("settings")
        command = bench.command("train", "--workdir", workdir, *CONFIG, *given.split(" "))
        yield _refused(f"train {given}", bench.run(command, limit=60), workdir)


_CONFIGURATIONS = (
    *("--config.train.epoch=3", "--config.train.epochs=three", "--config.train.epochs=0"),
    *("--config.train.batch_size=100000", "--config.model.alpha=nan", "--config.model.alpha=0.001"),
    *(
        "--config.model.backbone=vgg",
        "--config.model.kernel_sizes=(2,)",
        "--config.model.dropout=1",
    ),
    *("--config.data.image_size=100000", "--config.data.phantom_patients=2000000000"),
    *("--config.data.source=folder", "--config.data.fold=9", "--config.train.seed=-1"),
    *("--config.data.group_pattern=(", "--config.optim.learning_rate=nan", "--config=/none.py"),
    *("--config.optim.schedule=step", "--config.eval.threshold=1", "extra", "--workdirr=x"),
)


def image_folder(root: Path, draw: random.Random) -> Path:
    """Writes {train,val}/{fracture,normal}/patNN_sNN.png of 14 patients; fractures are bright."""
    noise = np.random.default_rng(draw.randrange(2**32))
    for patient in range(14):
        for number in range(4):
            label = (patient + number) % 2
            image = noise.integers(40, 90, (_SIDE, _SIDE)).astype(np.uint8)
            cv2.circle(image, (32, 32), 20, 150, 3)
            if label:
                ends = noise.integers(14, 50, 2).tolist()
                cv2.line(image, (ends[0], 14), (ends[1], 50), 250, 2)
            part, name = ("train", "val")[patient >= 10], ("normal", "fracture")[label]
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"pat{patient:02d}_s{number:02d}.png"), image)
    return root


def odd_images(draw: random.Random) -> dict[str, tuple[bytes, bool]]:
    """Returns unusual files by name: their bytes, and whether they are good images."""
    noise = np.random.default_rng(draw.randrange(2**32))

    def image() -> np.ndarray:  # another one each time: none is the copy of another one
        return np.clip(noise.normal(120, 30, (_SIDE, _SIDE)), 0, 255).astype(np.uint8)

    grey = image()
    good = _png(_SIDE, _SIDE, grey)
    jpeg = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    progressive = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    third, half = len(jpeg) // 3, len(jpeg) // 2
    start = jpeg.find(b"\xff\xc0")
    header = jpeg[: start + 5] + struct.pack(">HH", 8000, 8000) + jpeg[start + 9 :]
    bad = {
        "zero.png": b"",
        "text.png": b"hello",
        "half.png": good[: len(good) // 2],
        "no-end.png": good[:-12],
        "bad-checksum.png": good[:60] + bytes([good[60] ^ 1]) + good[61:],
        "too-few-rows.png": _png(_SIDE, _SIDE, grey[:32]),
        "one-pixel.png": _png(1, 1, grey[:1, :1]),
        "large-header.png": _png(50000, 50000, grey),
        "16-bit.png": cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes(),
        "half.jpg": jpeg[:half],
        "half-and-end.jpg": jpeg[:half] + b"\xff\xd9",
        "half-zeros-end.jpg": jpeg[:half] + bytes(half) + b"\xff\xd9",
        "hole.jpg": jpeg[:third] + jpeg[third + 600 :],
        "progressive-cut.jpg": progressive[: len(progressive) * 2 // 3] + b"\xff\xd9",
        "large-header.jpg": header,
        "dicom.png": bytes(128) + b"DICM" + b"\x02\0\0\0UL\x04\0\x04\0\0\0",
        "bomb.png": _png(20000, 20000, np.zeros((4, 4), np.uint8), data=_compressed_zeros(2**28)),
    }
    fine = {
        "fine.png": _png(_SIDE, _SIDE, image()),
        "fine.jpg": cv2.imencode(".jpg", image(), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(),
        "progressive.jpg": progressive,
        "FINE.PNG": _png(_SIDE, _SIDE, image()),
        "colour.png": cv2.imencode(".png", np.dstack([image()] * 3))[1].tobytes(),
        "text-bomb.png": _png(
            *(_SIDE, _SIDE, image()), extra=_chunk(b"zTXt", b"c\0\0" + _compressed_zeros(2**28))
        ),
    }
    return {name: (data, False) for name, data in bad.items()} | {
        name: (data, True) for name, data in fine.items()
    }


def _refused(injected: str, ended: Ended, workdir: Path | None) -> Outcome:
    written = workdir is not None and workdir.exists()
    if ended.refused and not written:
        return Outcome(injected=injected, result="refused in one sentence", held=True)
    result = f"exit {ended.code}: {ended.last}" + ("; wrote the workdir" if written else "")
    return Outcome(injected=injected, result=result, held=False)


def _write_one_layer(path: Path) -> None:
    """Writes a file of weights with one layer of a network, and none of the others."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("conv1/conv1/kernel:0", data=np.zeros((3, 3, 3, 32), np.float32))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _png(
    width: int, height: int, image: np.ndarray, *, extra: bytes = b"", data: bytes = b""
) -> bytes:
    """Returns an 8-bit grey PNG file that says to have some size, whatever its image has."""
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = _chunk(b"IDAT", data or zlib.compress(rows))
    return _PNG + head + extra + body + _chunk(b"IEND", b"")


def _compressed_zeros(length: int) -> bytes:
    packer, block = zlib.compressobj(9), bytes(2**20)
    packed = b"".join(packer.compress(block) for _ in range(length // len(block)))
    return packed + packer.flush()
