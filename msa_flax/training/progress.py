"""Showing how a run goes on: on the terminal, in the log and in TensorBoard."""

import logging
import statistics
import sys
from pathlib import Path
from typing import Any

from msa_flax.config import TrainConfig
from msa_flax.training.plain import PlainPath

log = logging.getLogger("msa_flax")

Row = dict[str, Any]  # of metrics.jsonl: "step", "epoch", "split", "loss", "accuracy"


class Monitor:
    """What the training loop tells about itself; this one shows nothing of it.

    Attributes:
        step_seconds: median seconds per step; None where it is not measured.
    """

    step_seconds: float | None = None

    def dispatch(self, step: int, sums: dict[str, float], seconds: float) -> None:
        """Takes the running sums of the epoch after each call of the compiled steps."""

    def epoch(self, step: int, rows: list[Row]) -> None:
        """Takes the rows of metrics after each epoch."""

    def close(self) -> None:
        """Ends what is shown."""


class TerminalMonitor(Monitor):
    """Shows a progress bar on a terminal, plain lines elsewhere; writes TensorBoard events."""

    def __init__(
        self, workdir: Path, config: TrainConfig, *, steps_per_epoch: int, start_step: int
    ) -> None:
        from clu import metric_writers

        self._plain = PlainPath(workdir)
        self._writer = metric_writers.SummaryWriter(str(self._plain.path))
        self._config, self._steps_per_epoch, self._last = config, steps_per_epoch, start_step
        self._seconds: list[float] = []
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            total = config.epochs * steps_per_epoch
            self._bar = tqdm(total=total, initial=start_step, unit="step", dynamic_ncols=True)

    def dispatch(self, step: int, sums: dict[str, float], seconds: float) -> None:
        """Shows the running loss of the epoch and the speed of the last call."""
        count = step - self._last
        self._seconds.append(seconds / count)
        if later := self._seconds[1:]:  # the first call compiles
            self.step_seconds = statistics.median(later)
        rate = count * self._config.batch_size / seconds
        loss, accuracy = sums["loss"] / sums["count"], sums["correct"] / sums["count"]
        if self._bar is not None:
            self._bar.update(count)
            self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} images/s")
        elif step // self._config.log_every > self._last // self._config.log_every:
            epoch = (step - 1) // self._steps_per_epoch + 1
            log.info(
                "step %d, epoch %d/%d: loss %.4f, accuracy %.4f, %.0f images/s",
                *(step, epoch, self._config.epochs, loss, accuracy, rate),
            )
        self._writer.write_scalars(step, {"loss_running": loss, "images_per_second": rate})
        self._last = step

    def epoch(self, step: int, rows: list[Row]) -> None:
        """Shows and records the metrics of the epoch."""
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
            log.info("epoch %d/%d: %s", rows[0]["epoch"], self._config.epochs, text)

    def close(self) -> None:
        """Ends the progress bar."""
        if self._bar is not None:
            self._bar.close()
