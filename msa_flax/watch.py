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
it is still again, under new UIDs. Another model predicts what comes from then on. An archive that
is away gets its results when it is back; a study that fails --attempts times is left alone until
--retry_failed. SIGTERM ends it after the present study, a second one at once.

Needs highdicom, pynetdicom and dicomweb-client: pip install "msa_flax[archive]".
"""

import signal
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import flags

from msa_flax import cli, cli_model
from msa_flax.files import NOTICE


class UnfinishedError(RuntimeError):
    """The watch has ended before everything was done; nothing is lost."""

    def __init__(self, said: str, exit_code: int = 1) -> None:
        super().__init__(f"{said}; run the same command again to continue")
        self.exit_code = exit_code


FLAGS: tuple[tuple[str, str, Any, str], ...] = (
    ("string", "folder", None, "folder that receives studies"),
    ("string", "out", None, "folder for the results, default: DIR/watch, or watch"),
    ("string", "metrics", None, "file for the node exporter, default: metrics.prom in --out"),
    ("list", "send", [], "AE@HOST:PORT,... to send to by C-STORE"),
    ("list", "stow", [], "URL,... to send to by STOW-RS"),
    ("string", "calling_ae", "MSA_FLAX", "our own AE title"),
    ("boolean", "tls", False, "send by C-STORE over TLS"),
    ("string", "tls_ca", None, "PEM file of certificates to trust, default: the system's"),
    ("string", "tls_cert", None, "PEM file of our own certificate, for archives that want one"),
    ("string", "tls_key", None, "PEM file of its key, if that is not in --tls_cert"),
    ("float", "still", 60.0, "seconds without a change after which a study is complete"),
    ("integer", "attempts", 5, "how often a study is tried, or offered to who refuses it"),
    ("float", "keep_gb", 20.0, "gigabytes of results to keep; unsent ones are always kept"),
    ("boolean", "delete_images", False, "remove a study's files once its results are all sent"),
    ("boolean", "retry_failed", False, "try again what has failed"),
    ("boolean", "once", False, "end when all is done, with exit code 1 if something is left"),
)


def define_flags(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    cli_model.define_model(values)
    for kind, name, default, what in FLAGS:
        getattr(flags, f"DEFINE_{kind}")(name, default, what, flag_values=values)


def main(args: SimpleNamespace) -> None:
    """Runs the command."""
    workdir = cli_model.folder_of(args)
    out = Path(args.out) if args.out else workdir / "watch"
    metrics = Path(args.metrics) if args.metrics else out / "metrics.prom"
    _check(args, out, metrics)
    try:
        import highdicom  # noqa: F401  each study needs it

        from msa_flax.archive import sending
        from msa_flax.archive.queue import Queue
        from msa_flax.archive.visits import Patience
        from msa_flax.results.watching import Rules, Watcher
    except ImportError as error:
        raise cli.UsageError(
            f'expected {error.name}, which is not installed; pip install "msa_flax[archive]"'
        ) from error
    from msa_flax.training.signals import noted_signals

    files: dict[str, Any] = {"ca": args.tls_ca, "certificate": args.tls_cert, "key": args.tls_key}
    given: dict[str, Any] = {"calling": args.calling_ae, "security": sending.Security(**files)}
    destinations = sending.destinations(args.send, args.stow, tls=args.tls, **given)
    given = {name: getattr(args, name) for name in ("still", "delete_images", "once")}
    given |= {"keep": int(args.keep_gb * 1e9), "patience": Patience(attempts=args.attempts)}
    rules = Rules(metrics=metrics, **given)
    model = cli_model.predictor_of(args)
    with closing(Queue(out / "queue.sqlite")) as queue, noted_signals() as received:
        if args.retry_failed:
            queue.retry_failed()
        places: dict[str, Any] = {"folder": Path(args.folder), "out": out, "queue": queue}
        watcher = Watcher(model, destinations=destinations, rules=rules, **places)
        watcher.run(received)
        counts = queue.counts()
    print(f"{out}: {', '.join(f'{name}: {count}' for name, count in counts.items())}; {NOTICE}")
    if received:
        raise UnfinishedError(signal.Signals(received[0]).name, 128 + received[0])
    if watcher.failed or counts["waiting"] or counts["predicted"]:
        raise UnfinishedError(f"not all is done, {out / 'log.jsonl'} says what has failed")


def _check(args: SimpleNamespace, out: Path, metrics: Path) -> None:
    if not args.folder or not Path(args.folder).is_dir():
        raise cli.UsageError(f"--folder: expected a folder that is there, got {args.folder!r}")
    for name, least in {"still": 0, "keep_gb": 0, "attempts": 1}.items():
        if not least <= (value := getattr(args, name)) <= 1e6:
            raise cli.UsageError(f"--{name}: expected a number from {least} to 1e6, got {value}")
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
