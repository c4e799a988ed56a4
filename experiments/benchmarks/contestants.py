"""Who takes part in the comparisons, and how a worker process is started, asked and ended."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable, Sequence

from timings import Series

from msa_flax.files import cache_dir

HERE = pathlib.Path(__file__).parent


class NotAvailableError(RuntimeError):
    """A contestant cannot be run here; the message is the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A contestant: its name, its environment ("" is this one), its worker, what it does."""

    key: str
    name: str
    environment: str
    worker: str
    form: str = ""
    tasks: tuple[str, ...] = ("train", "infer")


KINDS = (
    Kind("ours", "msa_flax", "", "worker_ours.py"),
    Kind("keras", "Keras", "keras", "worker_keras.py"),
    Kind("torch", "PyTorch, eager", "torch", "worker_torch.py"),
    Kind("torch-compile", "PyTorch, compiled", "torch", "worker_torch.py", "compile"),
    Kind("torch-frozen", "PyTorch, frozen", "torch", "worker_torch.py", "frozen", ("infer",)),
    Kind("matmul", "matrix product", "", "worker_machine.py", "matmul"),
    Kind("copy", "copy", "", "worker_machine.py", "copy"),
)
CEILINGS = ("matmul", "copy")


def interpreter(name: str) -> str:
    """Returns the Python of a peer's virtual environment, which is made on first use.

    Raises:
        NotAvailableError: the packages cannot be installed.
    """
    if not name:
        return sys.executable
    folder = cache_dir() / f"benchmark-{name}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        packages = str(HERE / f"requirements-{name}.txt")
        install = [str(python), "-m", "pip", "install", "-q", "-r", packages]
        done = subprocess.run(install, check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise NotAvailableError(f"cannot be installed: {_last_line(done.stderr)}")
        (folder / "complete").touch()
    return str(python)


def clean_environment() -> dict[str, str]:
    """Returns environment variables under which nobody is at a disadvantage."""
    # Importing this package's data part turns oneDNN off for TensorFlow, which Keras computes with.
    kept = {key: value for key, value in os.environ.items() if key != "TF_ENABLE_ONEDNN_OPTS"}
    # On a GPU several processes are loaded at once, and none may take all of its memory.
    return kept | {"TF_CPP_MIN_LOG_LEVEL": "3", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Contestant:
    """A worker process; one that fails is not asked again, and ``reason`` says why.

    Attributes:
        kind: which one it is.
        versions: of what it computes with.
        parameters: of its network.
        start_seconds: from the start of the process until it was ready.
        reason: why it is not available, "" where it is.
    """

    def __init__(self, kind: Kind, arguments: Iterable[str]) -> None:
        self.kind, self.reason, self.versions, self.parameters = kind, "", {}, 0
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process: subprocess.Popen[str] | None = None
        began = time.perf_counter()
        try:
            command = [interpreter(kind.environment), str(HERE / kind.worker), *arguments]
            self._process = subprocess.Popen(
                [*command, *([f"--form={kind.form}"] if kind.form else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                text=True,
                env=clean_environment(),
            )
            ready = self._answer()
            self.versions, self.parameters = ready["versions"], ready["parameters"]
        except NotAvailableError as error:
            self.reason = str(error)
        self.start_seconds = time.perf_counter() - began

    def ask(self, request: dict) -> dict | None:
        """Returns the answer to a request; None where there is none, see ``reason``."""
        if self.reason:
            return None
        try:
            requests = self._running().stdin
            assert requests is not None
            requests.write(json.dumps(request) + "\n")
            requests.flush()
            return self._answer()
        except (NotAvailableError, BrokenPipeError) as error:
            self.reason = str(error)
            return None

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it has ended already
                self._process.stdin.close()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._stderr.close()

    def _running(self) -> "subprocess.Popen[str]":
        assert self._process is not None  # where it was not started, ``reason`` says why
        return self._process

    def _answer(self) -> dict:
        answers = self._running().stdout
        assert answers is not None
        line = answers.readline()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise NotAvailableError(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._running().wait()
        self._stderr.seek(0)
        return _last_line(self._stderr.read()) or f"ended with exit code {code}"


def take_turns(
    contestants: Sequence[Contestant], request: dict, rounds: int, *, images: int = 1
) -> dict[str, Series]:
    """Lets every contestant answer a request once, then in turns; returns their times by key.

    The order of a round is drawn, always the same draws, so that nobody always comes after the
    same other one, which may have left the machine busy or its memory scattered.

    Args:
        contestants: those who fail or failed before are left out from then on.
        request: what each is asked.
        rounds: turns of each.
        images: times are divided by this.
    """
    series, draw = {}, random.Random(0)
    for contestant in contestants:
        if first := contestant.ask(request):
            series[contestant.kind.key] = Series(request["count"], first_seconds=first["seconds"])
    for _ in range(rounds):
        for contestant in draw.sample(contestants, len(contestants)):
            if answer := contestant.ask(request):
                found = series[contestant.kind.key]
                times = [milliseconds / images for milliseconds in answer["ms"]]
                found.turns.append(statistics.mean(times))
                found.singles += times
                found.peak_gib, found.device_gib = answer["peak_gib"], answer["device_gib"]
    return series


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
