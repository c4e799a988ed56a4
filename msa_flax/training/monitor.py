"""Shows a run's progress and hands its numbers to a metric writer."""

import logging
import statistics
import sys
from typing import Any, Protocol, runtime_checkable

from msa_flax.training.loop import Row

log = logging.getLogger("msa_flax")


@runtime_checkable
class MetricWriter(Protocol):
    """The part of CLU's metric writers that is used."""

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Records named values at a step."""

    def flush(self) -> None:
        """Writes what is buffered."""


class NoMonitor:
    """Shows nothing: for a process that follows another one's lead."""

    def dispatch(self, step: int, sums: dict[str, float], seconds: float) -> None:
        """Does nothing."""

    def epoch(self, step: int, rows: list[Row]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class TerminalMonitor:
    """A progress bar on a terminal, plain lines elsewhere; scalars to a metric writer."""

    def __init__(
        self,
        writer: MetricWriter,
        *,
        start_step: int,
        steps_per_epoch: int,
        epochs: int,
        batch_size: int,
        log_every: int,
    ) -> None:
        self._writer, self._last = writer, start_step
        self._steps_per_epoch, self._batch_size = steps_per_epoch, batch_size
        self._epochs, self._log_every = epochs, log_every
        self._step_seconds: list[float] = []
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            total = epochs * steps_per_epoch
            self._bar = tqdm(total=total, initial=start_step, unit="step", dynamic_ncols=True)

    def dispatch(self, step: int, sums: dict[str, float], seconds: float) -> None:
        """Shows the epoch's running loss and the speed of the last dispatch."""
        count = step - self._last
        self._step_seconds.append(seconds / count)
        rate = count * self._batch_size / seconds
        loss, accuracy = sums["loss"] / sums["count"], sums["correct"] / sums["count"]
        if self._bar is not None:
            self._bar.update(count)
            self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} images/s")
        elif step // self._log_every > self._last // self._log_every:
            epoch = (step - 1) // self._steps_per_epoch + 1
            log.info(
                "step %d, epoch %d/%d: loss %.4f, accuracy %.4f, %.0f images/s",
                *(step, epoch, self._epochs, loss, accuracy, rate),
            )
        self._writer.write_scalars(step, {"loss_running": loss, "images_per_second": rate})
        self._last = step

    def epoch(self, step: int, rows: list[Row]) -> None:
        """Shows and records the epoch's metrics."""
        scalars = {
            f"{row['split']}_{name}": row[name] for row in rows for name in ("loss", "accuracy")
        }
        self._writer.write_scalars(step, scalars)
        self._writer.flush()
        text = "; ".join(
            f"{row['split']} loss {row['loss']:.4f} accuracy {row['accuracy']:.4f}" for row in rows
        )
        if self._bar is not None:
            self._bar.write(f"epoch {rows[0]['epoch']}: {text}", file=sys.stderr)
        else:
            log.info("epoch %d/%d: %s", rows[0]["epoch"], self._epochs, text)

    @property
    def step_seconds(self) -> float | None:
        """Median seconds a step; None before the second dispatch, since the first compiles."""
        return statistics.median(self._step_seconds[1:]) if self._step_seconds[1:] else None

    def close(self) -> None:
        """Ends the progress bar."""
        if self._bar is not None:
            self._bar.close()
