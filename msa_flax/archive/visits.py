"""What stands in a watcher's queue: a study at one time, and what is to be done about it."""

import dataclasses

_LONGEST_PAUSE = 600.0  # seconds


@dataclasses.dataclass(frozen=True, slots=True)
class Visit:
    """A study as it is, or was, in the folder.

    Attributes:
        study: its pseudonym.
        content: a digest of its images: their names, sizes and times of change.
    """

    study: str
    content: str

    @property
    def name(self) -> str:
        """The name of the folder of its results."""
        return f"{self.study}-{self.content[:16]}"


@dataclasses.dataclass(frozen=True, slots=True)
class Study(Visit):
    """A study that is in the folder.

    Attributes:
        files: how many there are.
        attempts: how often a prediction was begun.
        reason: why the last one failed.
    """

    files: int
    attempts: int
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Send(Visit):
    """A result that a destination has not got yet, and how often it was refused."""

    destination: str
    attempts: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often something is tried, and the seconds of the first pause, which double each time."""

    attempts: int = 5
    pause: float = 5.0

    def wait(self, failures: int) -> float:
        """Returns the seconds to wait after some failures."""
        return min(_LONGEST_PAUSE, self.pause * 2.0 ** min(failures - 1, 20)) if failures else 0.0
