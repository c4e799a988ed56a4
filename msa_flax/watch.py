"""Watch a folder of CT studies: python -m msa_flax.watch --folder DIR --model MODEL [--out DIR2].

Each study in DIR that has not changed for --still seconds is predicted, and its results, structured
reports and pictures as DICOM objects, are sent to every --send AE@HOST:PORT (C-STORE) and --stow
URL (STOW-RS). Instead of --model, which export has written, --workdir names a trained run. DIR is
what a receiver fills, such as dcmtk's storescp: in any layout, because the study is read from each
file's header. Links are not followed; hidden files and files that are no CT images are passed over.

DIR2, by default watch (or WORKDIR/watch), receives results/, a folder a study; log.jsonl, a line of
JSON a study; metrics.prom for Prometheus' node exporter; and queue.sqlite, what is done so far. No
identifier is in any of them, but for the DICOM objects. The same command again goes on, after a
kill too: each result is sent once. A study that grows after it was reported is reported again when
it is still again, under new UIDs. An archive that is away gets its results when it is back; a study
that fails --attempts times is left alone until --retry_failed. SIGTERM ends it after the present
study, a second one at once.

Needs highdicom, pynetdicom and dicomweb-client: pip install "msa_flax[archive]".
"""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import flags

from msa_flax import cli, cli_model
from msa_flax.files import NOTICE


class StoppedError(RuntimeError):
    """A signal ended the watch, with nothing lost; the exit code is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"{signal.Signals(number).name}: stopped; run the same command again to continue"
        )
        self.exit_code = 128 + number


class UnfinishedError(RuntimeError):
    """With --once: not everything is done."""


TEXTS = {
    "folder": "folder that receives studies",
    "out": "folder for the results, default: DIR/watch, or watch",
    "metrics": "file for Prometheus' node exporter, default: metrics.prom in --out",
    "tls_ca": "PEM file with the certificates to trust, default: those of the system",
    "tls_cert": "PEM file with our own certificate, for archives that ask for one",
    "tls_key": "PEM file with its key, if that is not in --tls_cert",
}
SWITCHES = {
    "tls": "send by C-STORE over TLS",
    "delete_images": "remove a study's files from the folder once its results are sent everywhere",
    "retry_failed": "try again what has failed",
    "once": "end when all is done; exit code 1 if something failed, or waits for an archive",
}


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli_model.define_model(values)
    for name, what in TEXTS.items():
        flags.DEFINE_string(name, None, what, flag_values=values)
    for name, what in SWITCHES.items():
        flags.DEFINE_boolean(name, False, what, flag_values=values)
    flags.DEFINE_list("send", [], "AE@HOST:PORT,... to send to by C-STORE", flag_values=values)
    flags.DEFINE_list("stow", [], "URL,... to send to by STOW-RS", flag_values=values)
    flags.DEFINE_string("calling_ae", "MSA_FLAX", "our own AE title", flag_values=values)
    bounds: dict[str, Any] = {"lower_bound": 0.0, "upper_bound": 1e6, "flag_values": values}
    what = "seconds without a change after which a study is complete"
    flags.DEFINE_float("still", 60.0, what, **bounds)
    what = "gigabytes of results to keep; the oldest are removed, but none that is not sent"
    flags.DEFINE_float("keep_gb", 20.0, what, **bounds)
    what = "how often a study is tried, and a result offered to an archive that refuses it"
    flags.DEFINE_integer("attempts", 5, what, lower_bound=1, flag_values=values)


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    workdir = cli_model.folder_of(args)
    out = Path(args.out) if args.out else workdir / "watch"
    metrics = Path(args.metrics) if args.metrics else out / "metrics.prom"
    _check(args, out, metrics)
    try:
        from msa_flax.archive import queue, sending
        from msa_flax.archive.visits import Patience
        from msa_flax.results.watching import Rules, Watcher
    except ImportError as error:
        raise cli.UsageError(
            f'expected {error.name}, which is not installed; pip install "msa_flax[archive]"'
        ) from error
    from msa_flax.training.signals import noted_signals

    files: dict[str, Any] = {"ca": args.tls_ca, "certificate": args.tls_cert, "key": args.tls_key}
    security = sending.Security(tls=args.tls, **files)
    given: dict[str, Any] = {"calling": args.calling_ae, "security": security}
    destinations = sending.destinations(args.send, args.stow, **given)
    rules = Rules(
        still=args.still,
        keep=int(args.keep_gb * 1e9),
        metrics=metrics,
        patience=Patience(attempts=args.attempts),
        delete_images=args.delete_images,
        once=args.once,
    )
    model = cli_model.predictor_of(args)
    with queue.opened(out / "queue.sqlite") as waiting, noted_signals() as received:
        if args.retry_failed:
            waiting.retry_failed()
        places: dict[str, Any] = {"folder": Path(args.folder), "out": out, "queue": waiting}
        watcher = Watcher(model, destinations=destinations, rules=rules, **places)
        watcher.run(received)
        counts = waiting.counts()
    said = ", ".join(f"{name}: {count}" for name, count in counts.items())
    print(f"{out}: {said}; {NOTICE}")
    if received:
        raise StoppedError(received[0])
    if watcher.failed or counts["waiting"] or counts["predicted"]:
        raise UnfinishedError(f"not all is done; {out / 'log.jsonl'} says what has failed")


def _check(args: SimpleNamespace, out: Path, metrics: Path) -> None:
    if not args.folder or not Path(args.folder).is_dir():
        raise cli.UsageError(f"--folder: expected a folder that is there, got {args.folder!r}")
    cli.check_folder("--out", out)
    cli.check_folder("--metrics", metrics.parent)
    if metrics.is_dir():
        raise cli.UsageError(f"--metrics: expected a file, got the folder {args.metrics!r}")
    if out.resolve().is_relative_to(Path(args.folder).resolve()):
        raise cli.UsageError(f"--out: expected a folder outside of --folder, got {str(out)!r}")
    if args.delete_images and not args.send + args.stow:
        raise cli.UsageError("--delete_images: expected --send or --stow, got neither")


if __name__ == "__main__":
    cli.run(main, define_flags, __doc__)
