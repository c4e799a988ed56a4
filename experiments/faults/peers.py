"""Programs of others on this machine: the archive Orthanc, and dcmtk's storescp and storescu.

Each is started with a configuration of its own in a folder of its own, and ended by its process id.
pynetdicom has commands of the same names as dcmtk's, in the environment of Python: dcmtk's are
those beside ``dcmdump``, which it alone has.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

DICOMWEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")  # of Debian's orthanc-dicomweb


def free_ports(count: int) -> list[int]:
    """Returns ports of the loopback interface that nobody listens to now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def listens(port: int) -> bool:
    """Says whether a port of this machine takes connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def program(name: str) -> str:
    """Returns where a program is; "" if it is not installed."""
    folders = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"  # Debian's Orthanc is there
    if name in ("storescp", "storescu"):
        beside = shutil.which("dcmdump", path=folders)
        return shutil.which(name, path=str(Path(beside).parent)) or "" if beside else ""
    return shutil.which(name, path=folders) or ""


def missing(*tools: str) -> str:
    """Says which programs are not installed; "" if none is missing."""
    gone = [one for one in tools if not program(one)]
    if "Orthanc" in tools and not DICOMWEB.exists():
        gone.append("orthanc-dicomweb")
    return f"not installed: {', '.join(gone)}" if gone else ""


class Peer:
    """A program that listens to a port of this machine until it is ended.

    Attributes:
        folder: of all that it writes.
        port: at which it takes DICOM associations.
        process: the running one, None before and after.
    """

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)

    def command(self) -> Sequence[str]:
        """Returns the command line."""
        raise NotImplementedError

    def start(self) -> Self:
        """Starts the program, and returns when it listens."""
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        process = self.process
        wait_until(lambda: self.listens() or process.poll() is not None)
        if process.poll() is not None:
            raise RuntimeError((self.folder / "log.txt").read_text("utf-8", "replace")[-2000:])
        return self

    def listens(self) -> bool:
        """Says whether it takes connections."""
        return listens(self.port)

    def kill(self) -> None:
        """Ends the program and its children as a power failure would; it may be started again."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


class Storescp(Peer):
    """dcmtk's receiver.

    Args:
        folder: of what it receives, in ``folder/in``, and its log.
        options: of its command line, before the port.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        super().__init__(folder)
        self.options, self.received = options, folder / "in"
        self.received.mkdir(exist_ok=True)

    def command(self) -> Sequence[str]:
        """Returns the command line."""
        return [program("storescp"), *self.options, "-od", str(self.received), str(self.port)]


class Orthanc(Peer):
    """An archive with a page, a REST interface and DICOMweb, which keeps all in its folder.

    Args:
        folder: of its configuration, its store and its log.
        settings: of its configuration; ports and places are replaced.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder)
        (self.web,) = free_ports(1)
        given = {"Plugins": [str(DICOMWEB)], "AuthenticationEnabled": False, "StableAge": 1}
        own = {"HttpPort": self.web, "DicomPort": self.port, "RemoteAccessAllowed": False}
        places = {"StorageDirectory": "store", "IndexDirectory": "store"}
        self.settings = given | dict(settings or {}) | own | places

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http{'s' * bool(self.settings.get('SslEnabled'))}://localhost:{self.web}"

    def command(self) -> Sequence[str]:
        """Returns the command line, after its configuration has been written."""
        (self.folder / "orthanc.json").write_text(json.dumps(self.settings, indent=1))
        return [program("Orthanc"), "orthanc.json"]

    def listens(self) -> bool:
        """Says whether it answers; the DICOM port is open by then."""
        with contextlib.suppress(OSError):
            return bool(self.ask("/system"))
        return False

    def read(self, path: str, data: bytes | None = None) -> bytes:
        """Returns what the REST interface has at a path, or answers to data sent there."""
        with urllib.request.urlopen(self.url + path, data, timeout=30) as answer:
            return bytes(answer.read())

    def ask(self, path: str, data: bytes | None = None) -> Any:
        """Returns the same as JSON."""
        return json.loads(self.read(path, data))

    def files(self, study_uid: str) -> list[bytes]:
        """Returns the instances of a study as DICOM files, byte by byte as they were sent."""
        found = self.ask("/tools/lookup", study_uid.encode())
        studies = [one["Path"] for one in found if one["Type"] == "Study"]
        instances = [one for study in studies for one in self.ask(f"{study}/instances")]
        return [self.read(f"/instances/{one['ID']}/file") for one in instances]


def send(folder: Path, port: int, *options: str) -> None:
    """Sends the DICOM files below a folder to this machine with dcmtk's storescu.

    Raises:
        RuntimeError: not all of them were taken; what storescu said.
    """
    command = [
        program("storescu"),
        *options,
        "-R",
        "+sd",
        "+r",
        "127.0.0.1",
        str(port),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def wait_until(condition: Callable[[], Any], *, limit: float = 60) -> None:
    """Waits until ``condition()`` is true.

    Raises:
        TimeoutError: it was not, for ``limit`` seconds.
    """
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {limit:g} s in vain")
        time.sleep(0.05)
