"""What the scripts' command lines share: what the user can mend is said in one sentence."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from msa_flax.config import Config
from msa_flax.files import NOTICE, UserError


class Parser(argparse.ArgumentParser):
    """A parser whose help is the script's docstring, and whose errors are one sentence."""

    def __init__(self, doc: str | None) -> None:
        super().__init__(
            description=f"{doc}\n{NOTICE}", formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> NoReturn:
        """Refuses the command line, as the package's commands do."""
        raise UserError(f"{message}; --help says more")


def call(
    main: Callable[[Sequence[str] | None], int], arguments: Sequence[str] | None = None
) -> int:
    """Returns the exit code of a script's ``main``; 2, after one sentence, on a user's error."""
    try:
        return main(arguments)
    except UserError as error:
        print(f"error: {in_one_line(error)}", file=sys.stderr)
        return error.exit_code


def in_one_line(error: Exception) -> str:
    """Returns what an error says, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def run_command(name: str, *flags: str) -> None:
    """Runs one of the package's commands in a process of its own.

    Raises:
        RuntimeError: it failed; the last line of what it said.
    """
    command = [sys.executable, "-m", f"msa_flax.{name}", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")


def say_failures(failed: dict[str, str]) -> int:
    """Says which runs failed, and why; returns the exit code."""
    for name, reason in failed.items():
        print(f"error: {name}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def add_pretrained(parser: argparse.ArgumentParser) -> None:
    """Adds the flag ``--pretrained`` of scripts that train."""

    def checked(text: str) -> str:
        if "=" not in text:
            raise argparse.ArgumentTypeError(
                f"expected BACKBONE=FILE or BACKBONE=none, got {text!r}"
            )
        return text

    parser.add_argument(
        "--pretrained",
        nargs="+",
        type=checked,
        default=[],
        metavar="BACKBONE=FILE|none",
        help="where a backbone's ImageNet weights are, or that there are none",
    )


def use_pretrained(config: Config, pretrained: Sequence[str]) -> None:
    """Replaces ImageNet's weights by what ``--pretrained`` says about the configured backbone."""
    weights = dict(item.split("=", 1) for item in pretrained)
    if config.model.pretrained == "imagenet":
        config.model.pretrained = weights.get(config.model.backbone, "imagenet")
