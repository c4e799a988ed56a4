"""The training loop, the only place of training that has side effects.

Continuing a run is no special case: the state says how many steps are done, the order of the images
is a function of (seed, epoch), and the loop starts wherever the state stands.
"""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msa_flax.files import UserError, write_text
from msa_flax.training import hosts
from msa_flax.training.checkpoint import Checkpoints, Progress, is_finite
from msa_flax.training.progress import Monitor, Row
from msa_flax.training.signals import noted_signals
from msa_flax.training.steps import Batch, ClassWeights, TrainState


class NonFiniteLossError(RuntimeError):
    """The loss, or what was learned, became NaN or infinite; nothing of it was saved."""


class InterruptedRunError(RuntimeError):
    """A signal ended the run after a checkpoint was written; the exit code is 128 + signal."""

    def __init__(self, number: int, step: int) -> None:
        name = signal.Signals(number).name
        super().__init__(
            f"{name}: checkpoint written at step {step}; run the same command again to continue"
        )
        self.exit_code = 128 + number


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Trains a state; everything that it needs is an argument.

    Attributes:
        train_steps: compiled (state, stacked batches, count) -> (state, sums).
        dispatches: (epoch, first step in the epoch) -> iterator of (stacked batches, count), the
            arguments of the calls of ``train_steps``.
        validate: variables -> {"loss", "accuracy"} on the validation split.
        steps_per_epoch: steps in one epoch.
        epochs: epochs of the whole run.
        workdir: the folder that ``metrics.jsonl`` is written to.
        checkpoints: the checkpoints in that folder. Of processes that train together, only one has
            them; the others are given None, and neither validate nor write.
        monitor: shows how training goes on.
        describe: turns the row numbers of a batch (its "index", if it has one) into names, for
            messages.
        patience: training stops after so many epochs without a lower validation loss; 0: never.
        after_epoch: (state, validation loss) -> state, called after each validation.
    """

    train_steps: Callable[[TrainState, Batch, Any], tuple[TrainState, dict[str, Any]]]
    dispatches: Callable[[int, int], Iterator[tuple[Batch, int]]]
    validate: Callable[[Any], dict[str, float]]
    steps_per_epoch: int
    epochs: int
    workdir: Path
    checkpoints: Checkpoints | None
    monitor: Monitor = field(default_factory=Monitor)
    describe: Callable[[np.ndarray], list[str]] = field(default=lambda rows: [str(r) for r in rows])
    patience: int = 0
    after_epoch: Callable[[TrainState, float], TrainState] = field(
        default=lambda state, loss: state
    )

    @property
    def total_steps(self) -> int:
        """Training steps of the whole run, if nothing stops it early."""
        return self.epochs * self.steps_per_epoch

    def run(self, state: TrainState, progress: Progress) -> TrainState:
        """Trains from ``state`` until training is :meth:`finished` and returns the final state.

        ``progress`` is what :meth:`Checkpoints.restore_last` returned, or ``{}`` at the start.

        Raises:
            NonFiniteLossError: names the steps and the images of the dispatch that did it.
            InterruptedRunError: SIGINT or SIGTERM came; a checkpoint was written.
        """
        step = saved = int(state.step)
        totals = progress.get("totals", _zero_totals())
        best = _shared_best(progress)
        if self.checkpoints:
            _keep_rows(self.workdir / "metrics.jsonl", step)
        with noted_signals() as received:
            while not self._is_over(step, best):
                epoch, done = divmod(step, self.steps_per_epoch)
                for batch, count in self.dispatches(epoch, done):
                    began = time.perf_counter()
                    state, sums = self.train_steps(state, batch, count)
                    totals = {key: totals[key] + float(sums[key]) for key in totals}
                    self._check_finite(totals, batch, step, count, saved)
                    step += count
                    self.monitor.dispatch(step, totals, time.perf_counter() - began)
                    number = hosts.first_signal(received)
                    if number and step % self.steps_per_epoch:
                        self._check_state(state, step, saved)
                        self._save(state, totals, best)
                        raise InterruptedRunError(number, step)
                loss = self._end_epoch(state, epoch, step, totals)
                self._check_state(state, step, saved, loss)
                if loss < best["loss"]:
                    best = {"loss": loss, "step": step}
                    if self.checkpoints:
                        self.checkpoints.save_best(state, {"best": best})
                state, totals = self.after_epoch(state, loss), _zero_totals()
                self._save(state, totals, best)
                saved = step
                if number := hosts.first_signal(received):
                    raise InterruptedRunError(number, step)
        return state

    def finished(self, step: int, progress: Progress) -> bool:
        """Returns whether training is over: after its last epoch, or stopped early.

        It stops as with ``keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience)``
        (paper 2 §V.B, which names no numbers); the "best" checkpoint is what
        ``restore_best_weights`` is there. Nothing else is remembered, so a run that has stopped
        stays stopped. Processes that train together must all ask; the ``progress`` of the first one
        counts.

        Args:
            step: steps done.
            progress: what :meth:`Checkpoints.restore_last` returned, or ``{}`` at the start.
        """
        return self._is_over(step, _shared_best(progress))

    def _is_over(self, step: int, best: Row) -> bool:
        waited = (step - max(best["step"], 0)) // self.steps_per_epoch
        return step >= self.total_steps or 0 < self.patience <= waited

    def _end_epoch(
        self, state: TrainState, epoch: int, step: int, totals: dict[str, float]
    ) -> float:
        """Returns the validation loss, the same in every process, after recording the epoch."""
        if self.checkpoints is None:
            return hosts.share_numbers([math.nan])[0]
        scores = {"train": _means(totals), "validation": self.validate(state.variables)}
        rows = [
            {"step": step, "epoch": epoch + 1, "split": split, **values}
            for split, values in scores.items()
        ]
        with (self.workdir / "metrics.jsonl").open("a") as file:
            file.writelines(json_line(row) for row in rows)
            file.flush()
            os.fsync(file.fileno())
        self.monitor.epoch(step, rows)
        return hosts.share_numbers([scores["validation"]["loss"]])[0]

    def _save(self, state: TrainState, totals: dict[str, float], best: Row) -> None:
        if self.checkpoints:
            known = {"best": best} if math.isfinite(best["loss"]) else {}
            self.checkpoints.save_last(state, {"totals": totals, **known})

    def _check_state(self, state: TrainState, step: int, saved: int, loss: float = 0.0) -> None:
        """Refuses to go on with, and so to save, what is not finite."""
        learned = {"variables": state.variables, "opt_state": state.opt_state}
        if not math.isfinite(loss):
            what = f"the validation loss became non-finite ({loss})"
        elif not is_finite(learned):
            what = "the parameters or the state of the optimiser became non-finite"
        else:
            return
        raise NonFiniteLossError(
            f"{what} at step {step}, and was not saved; {_kept(saved)}; lower optim.learning_rate "
            "in a new --workdir"
        )

    def _check_finite(
        self, totals: dict[str, float], batch: Batch, step: int, count: int, saved: int
    ) -> None:
        if math.isfinite(totals["loss"]):
            return
        rows = np.unique(np.asarray(batch["index"])[:count]) if "index" in batch else None
        names = ["unnamed"] if rows is None else self.describe(rows)
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if names[8:] else "")
        raise NonFiniteLossError(
            f"the loss became non-finite in steps {step + 1} to {step + count} (images: {shown}); "
            f"{_kept(saved)}; lower optim.learning_rate in a new --workdir, or look at these images"
        )


def loss_and_accuracy(
    labels: np.ndarray, logits: np.ndarray, *, class_weights: ClassWeights = (1.0, 1.0)
) -> dict[str, float]:
    """Returns the mean binary cross-entropy and the accuracy at probability 0.5, in float64.

    The loss has the class weights of training; Keras's validation loss has none. Without them the
    best checkpoint of a set with few fractures would be one that finds none.

    Args:
        labels: [n], 0 or 1.
        logits: [n].
        class_weights: of the labels 0 and 1 in the loss.
    """
    logits = np.asarray(logits, np.float64)
    losses = np.logaddexp(0, logits) - np.asarray(labels) * logits
    losses *= np.where(np.asarray(labels) == 1, class_weights[1], class_weights[0])
    correct = (logits >= 0) == (np.asarray(labels) == 1)
    return {"loss": float(losses.mean()), "accuracy": float(correct.mean())}


def read_rows(path: Path) -> list[Row]:
    """Reads ``metrics.jsonl``; a last line cut off by a kill is left out.

    Raises:
        UserError: another line is not a row of metrics.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n") if path.exists() else []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; put the original back") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError:
            row = None if number == len(lines) else line
        if row is not None and not _is_row(row):
            raise UserError(
                f"{path}: expected step, epoch, split, loss and accuracy in line {number}, got "
                f"{line[:60]!r}; put the original back, or delete that line"
            )
        rows += [] if row is None else [row]
    return rows


def json_line(row: Row) -> str:
    """Returns a row as a line of JSON; what is not finite is null, with the reason beside it."""
    bad = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    reasons = {f"{key}_reason": f"not finite: {row[key]}" for key in bad}
    return json.dumps({**row, **dict.fromkeys(bad), **reasons}, allow_nan=False) + "\n"


def _is_row(row: Any) -> bool:
    number = lambda value: type(value) in (int, float) or value is None  # noqa: E731
    return (
        isinstance(row, dict)
        and all(type(row.get(key)) is int for key in ("step", "epoch"))
        and isinstance(row.get("split"), str)
        and all(key in row and number(row[key]) for key in ("loss", "accuracy"))
    )


def _kept(saved: int) -> str:
    if not saved:
        return "no checkpoint was written before"
    return (
        f"the last good checkpoint, of step {saved}, is kept, and the same command starts from it"
    )


def _shared_best(progress: Progress) -> Row:
    """Returns the first process's lowest validation loss and its step; the others have none."""
    best = progress.get("best", {"loss": math.inf, "step": -1})
    loss, step = hosts.share_numbers([best["loss"], best["step"]])
    return {"loss": loss, "step": int(step)}


def _keep_rows(path: Path, step: int) -> None:
    """Drops rows written after the checkpoint that the run continues from."""
    rows = [row for row in read_rows(path) if row["step"] <= step]
    write_text(path, "".join(map(json_line, rows)))


def _zero_totals() -> dict[str, float]:
    return {"loss": 0.0, "correct": 0.0, "count": 0.0}


def _means(totals: dict[str, float]) -> dict[str, float]:
    return {
        "loss": totals["loss"] / totals["count"],
        "accuracy": totals["correct"] / totals["count"],
    }
