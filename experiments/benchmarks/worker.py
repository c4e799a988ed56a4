"""What all workers share: options, data, and answering requests.

A worker is a process that stays loaded. When ready it prints one JSON line, {"versions": {...},
"parameters": n}. Then it reads one request per line, {"task": "train" | "infer", "batch": b,
"count": n}, and answers each with {"ms": [milliseconds per unit, ...], "seconds": all of the turn,
"peak_gib": ..., "device_gib": ...}, or with {"error": ...}. A unit is a training step or a batch
predicted; a turn has n of them. A task's first turn also builds and compiles.

Workers run in environments of their own: this file needs NumPy and the standard library only.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

PAPER1 = "msa_cspinenet"  # MobileNetV1 and attention; any other network is a backbone without it

Turn = Callable[[], list[float]]  # does one turn and returns milliseconds per unit
Make = Callable[[int, int], Turn]  # (images per batch, units per turn) -> a turn

# What libraries print must not come between the answers.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def options(*forms: str) -> argparse.Namespace:
    """Returns the worker's options; ``forms`` are the ways it can work, the default first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--network", default=PAPER1)
    parser.add_argument("--form", choices=forms or ("",), default=forms[0] if forms else "")
    return parser.parse_args()


def backbone(network: str) -> str:
    """Returns the name of a network's backbone."""
    return "mobilenet_v1" if network == PAPER1 else network


def grey_images(batch: int, size: int) -> np.ndarray:
    """Returns the same noise for everyone, uint8 [batch, size, size]."""
    return np.random.default_rng(0).integers(0, 256, (batch, size, size), dtype=np.uint8)


def ready_images(batch: int, size: int) -> np.ndarray:
    """Returns :func:`grey_images` as a network takes them: 0..1, float32 [batch, size, size, 3]."""
    grey = grey_images(batch, size).astype(np.float32) / 255
    return np.repeat(grey[..., None], 3, axis=-1)


def labels(batch: int) -> np.ndarray:
    """Returns a 0 or 1 for each image, float32 [batch]."""
    return np.random.default_rng(1).integers(0, 2, batch).astype(np.float32)


def timed(work: Callable[[], object], count: int = 1, units: float = 1) -> list[float]:
    """Calls ``work`` count times; returns milliseconds per unit of each call of ``units`` units."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1e3 / units)
    return times


def peak_gib() -> float:
    """Returns this program's largest resident memory so far (VmHWM where there is one)."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if "VmHWM" in line) / 2**20
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20)


def serve(
    tasks: dict[str, Make],
    *,
    versions: dict[str, str],
    parameters: int = 0,
    device_gib: Callable[[], float] = lambda: 0.0,
) -> None:
    """Says that the worker is ready, then answers requests until its input ends.

    Args:
        tasks: what the worker can do.
        versions: shown beside the numbers.
        parameters: of the network, running statistics included; all contestants must agree.
        device_gib: returns the accelerator's peak memory so far.
    """
    _answer({"versions": versions, "parameters": parameters})
    turns: dict[tuple, Turn] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = (request["task"], request["batch"], request["count"])
        began = time.perf_counter()
        try:
            if key not in turns:
                turns[key] = tasks[key[0]](*key[1:])
            times = turns[key]()
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            _answer({"error": f"{type(error).__name__}: {first}"})
            continue
        seconds = time.perf_counter() - began
        memory = {"peak_gib": peak_gib(), "device_gib": device_gib()}
        _answer({"ms": times, "seconds": seconds, **memory})


def _answer(values: dict) -> None:
    print(json.dumps(values), file=_answers, flush=True)
