"""One wrapper for all commands: flags in, exit code out.

The exit code is 0 when all is done (and for ``--help``), 1 for a failure, 2 for bad usage or bad
input, and 130 or 143 if SIGINT or SIGTERM ended a command after it had written what it needs to
continue. An error is one sentence, and its class has the exit code (:class:`files.UserError`).
Tracebacks are shown with ``--debug`` only.
"""

import contextlib
import difflib
import errno
import logging
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from msa_flax.config import Config
from msa_flax.files import NOTICE, UserError, flatten

_PATIENCE = 2.0  # seconds that an interrupted command has to end
_LONGEST = 600  # characters of a sentence on the terminal
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a write without room names no file
_ARGUMENTS = ("images", "workdirs", "beam_options")  # flags that take what is no flag

Define = Callable[[flags.FlagValues], None]
Main = Callable[[SimpleNamespace], None]  # takes the values of the flags


class UsageError(UserError):
    """The command line cannot be understood."""


def run(main: Main, define: Define, doc: str) -> None:
    """Runs a command with the arguments of this process, and ends the process with its code."""
    sys.unraisablehook, threading.excepthook = _say_unraisable, _say_of_thread
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by "command >&-": nothing else takes its place
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 it stays open
    sys.exit(call(main, define, doc, list(sys.argv)))


def _say_of_thread(raised: "threading.ExceptHookArgs") -> None:
    """Says what ended a thread, but not a full disk in one of Orbax, which raises it again."""
    if "No space left on device" not in str(raised.exc_value):
        threading.__excepthook__(raised)


def _say_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Says what Python cannot raise.

    But not that Orbax left a coroutine behind on a full disk, nor an interrupt, which comes again.
    """
    interrupt = isinstance(unraisable.exc_value, KeyboardInterrupt)
    if not interrupt and str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def call(main: Main, define: Define, doc: str, argv: Sequence[str]) -> int:
    """Parses a command line, runs the command and returns the exit code.

    Args:
        main: the command.
        define: defines its flags.
        doc: its help text, the docstring of its module.
        argv: the name of the program, and its arguments.
    """
    values, debug = flags.FlagValues(), "--debug" in argv
    argv = _with_tuples([_without_tilde(argument) for argument in argv])
    try:
        # TensorFlow would otherwise begin with lines about devices that it does not find.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
        if {"-h", "--help", "-help"} & set(argv[1:]):
            with _arguments(argv[:1]):
                print(_help(doc, _define(define, argv[:1], values)))
            return 0
        with _arguments(argv):
            args = _parse(_define(define, argv, values), argv)
        with _logging_to_terminal(), _interruptible():
            main(args)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:  # whoever read the output has read enough, as in "audit | head"
        with contextlib.suppress(OSError, ValueError):  # Python would write the rest at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        code = getattr(error, "exit_code", 1)
        said = str(error) or type(error).__name__
        if isinstance(error, OSError) and (error.filename or error.errno in _FULL):
            room = "; make room and give the same command again" * (error.errno in _FULL)
            code, said = 2, f"{error.filename or 'a file'} cannot be used: {error.strerror}{room}"
        if code == 1 and not debug:
            said = f"{type(error).__name__}: {said} (--debug shows where)"
        return _say(_short(" ".join(said.split())), code)


def define_config(values: flags.FlagValues) -> None:
    """Defines ``--config FILE.py[:ARG]`` with its ``--config.section.field=value`` overrides."""
    # Every file is loaded as one and the same module: one without get_config would have that of
    # the file before it, such as the default.
    sys.modules.pop("config_config", None)
    named = any(re.match(r"--?config(=|$)", argument) for argument in sys.argv[1:])
    default = None if named else str(Path(__file__).with_name("config.py"))
    config_flags.DEFINE_config_file(
        "config",
        default,
        "file whose get_config(arg) returns a msa_flax.config.Config, as FILE.py or FILE.py:ARG; "
        "--config.section.field=value overrides a field; without --config: the quickstart",
        flag_values=values,
    )


def define_workdir(values: flags.FlagValues, what: str) -> None:
    """Defines the required flag ``--workdir``."""
    flags.DEFINE_string("workdir", None, what, flag_values=values)


def define_accept_changes(values: flags.FlagValues) -> None:
    """Defines the flag ``--accept_changes``."""
    what = "take files of the run that were changed by hand; what is written says so"
    flags.DEFINE_boolean("accept_changes", False, what, flag_values=values)


def define_moved(values: flags.FlagValues) -> None:
    """Defines ``--accept_changes``, and ``--moved_to`` for commands that read a run's images."""
    define_accept_changes(values)
    what = "where the run's own images are now, a folder or a table, if they have moved"
    flags.DEFINE_string("moved_to", None, what, flag_values=values)


def define_checkpoint(values: flags.FlagValues) -> None:
    """Defines the flag ``--checkpoint``."""
    what = "lowest validation loss, or the newest"
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], what, flag_values=values)


def workdir(args: SimpleNamespace, *, trained: bool) -> Path:
    """Returns the path given by ``--workdir``.

    Args:
        args: the values of the flags.
        trained: whether the folder must already hold a run.

    Raises:
        UsageError: the flag is missing, or the folder holds no run although it must.
    """
    if not args.workdir:
        raise UsageError("--workdir: expected the folder of the run, got nothing; --help says more")
    path = Path(args.workdir)
    if trained and not (path / "config.json").is_file():
        raise UsageError(
            f"--workdir: expected a folder that msa_flax.train has written, got {str(path)!r} "
            "without config.json"
        )
    return path


def check_folder(flag: str, folder: str | Path | None) -> None:
    """Refuses a folder for results, the value of a flag, where there is a file.

    Raises:
        UsageError: it, or a folder that it would be in, is a file.
    """
    for path in (Path(folder), *Path(folder).parents) if folder else ():
        if path.exists() and not path.is_dir():
            raise UsageError(f"{flag}: expected a folder, got the file {str(path)!r}")


def _without_tilde(argument: str) -> str:
    """Returns ``--flag=~/x`` with the home folder in it, which shells leave as it is."""
    flag, equals, value = argument.partition("=")
    home = flag.startswith("-") and (value == "~" or value.startswith("~/"))
    return f"{flag}{equals}{os.path.expanduser(value)}" if home else argument


@contextlib.contextmanager
def _arguments(argv: Sequence[str]) -> Iterator[None]:
    """Puts ``argv`` into ``sys.argv``, where the flag ``--config`` looks for its overrides."""
    before, sys.argv = sys.argv, list(argv)
    try:
        yield
    finally:
        sys.argv = before


def _define(define: Define, argv: Sequence[str], values: flags.FlagValues) -> flags.FlagValues:
    try:
        define(values)
    except (KeyError, AttributeError, TypeError, flags.Error) as error:
        raise UsageError(_unknown_fields(argv) or f"--config: {error}") from error
    except (SystemExit, SyntaxError) as error:
        raise UsageError(_cannot_be_used(error)) from error
    flags.DEFINE_boolean("debug", False, "show tracebacks", flag_values=values)
    return values


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> SimpleNamespace:
    try:
        rest = values(list(argv))[1:]
        args = SimpleNamespace(**{name: values[name].value for name in values})
        for name, value in vars(args).items():
            infinite = isinstance(value, float) and value * 0 != 0  # or NaN
            if values[name].default is None and (value == "" or infinite):
                raise UsageError(f"--{name}: expected a value, got {value!r}; --help says more")
        taken = [name for name in _ARGUMENTS if hasattr(args, name)]
        for name in taken:
            setattr(args, name, rest)
        if rest and not taken:
            raise UsageError(f"unexpected argument {rest[0]!r}; --help lists the flags")
        if hasattr(args, "config") and not isinstance(args.config, Config):
            _ = args.config.model  # raises what went wrong when the file was loaded
            raise UsageError("--config: get_config() must return a msa_flax.config.Config")
        return args
    except UsageError:
        raise
    except flags.Error as error:
        raise UsageError(_unknown_fields(argv) or f"{error}; --help lists the flags") from error
    except (Exception, SystemExit) as error:  # the user's configuration file may raise anything
        raise UsageError(_unknown_fields(argv) or _cannot_be_used(error)) from error


def _cannot_be_used(error: BaseException) -> str:
    return f"--config: the file cannot be used: it raises {type(error).__name__} {error}".rstrip()


def _with_tuples(argv: Sequence[str]) -> list[str]:
    """Returns the arguments with ``--config.a.b=x,y`` for a field that is a list as a tuple."""
    lists = {name for name, value in flatten(Config().to_dict()).items() if isinstance(value, list)}

    def as_tuple(argument: str) -> str:
        match = re.fullmatch(r"(--?config\.([\w.]+)=)([^(\[].*)", argument, re.DOTALL)
        if not match or match[2] not in lists or "," not in match[3]:
            return argument
        parts = [part.strip().strip("\"'") for part in match[3].rstrip(",").split(",")]
        return f"{match[1]}{tuple(int(p) if p.isdecimal() else p for p in parts)!r}"

    return list(map(as_tuple, argv))


def _unknown_fields(argv: Sequence[str]) -> str:
    sections = Config().to_dict()
    known = list(flatten(sections))
    given = [match[1] for arg in argv if (match := re.match(r"--config\.([\w.]+)", arg))]
    problems = []
    for field in given:
        if isinstance(sections.get(field), dict):
            problems.append(f"{field} is a section; set its fields, such as {field}.FIELD")
        elif field not in known:
            close = difflib.get_close_matches(field, known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            problems.append(f"unknown configuration field {field}{hint}")
    return "; ".join(problems) + "; --print_config lists all fields" if problems else ""


def _help(doc: str, values: flags.FlagValues) -> str:
    lines = [doc.strip(), "", "Flags:"]
    for name in values:
        flag = values[name]
        default = "" if flag.default is None or name == "config" else f" (default: {flag.default})"
        lines.append(f"  --{name}: {flag.help}{default}")
    return "\n".join([*lines, "", NOTICE])


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Makes SIGINT end a block for sure, as KeyboardInterrupt.

    A library may swallow that, as some do while they are imported, or make another error of it. So
    it is raised again until the block ends, unless something else handles SIGINT meanwhile.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, or handled
        yield
        return
    ended, insisting = threading.Event(), threading.Lock()

    def insist() -> None:
        with insisting:
            while not ended.wait(_PATIENCE) and signal.getsignal(signal.SIGINT) is interrupt:
                os.kill(os.getpid(), signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        del number, frame
        if not insisting.locked():
            threading.Thread(target=insist, daemon=True).start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if insisting.locked():
            raise KeyboardInterrupt from error
        raise
    finally:
        ended.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _logging_to_terminal() -> Iterator[None]:
    """Shows the log of this package on the terminal, and nothing that is logged by others."""
    # CLU and Orbax log through absl what their own developers want to know, and Orbax the trace of
    # each error that it raises.
    absl_logging.set_verbosity(absl_logging.FATAL)
    # Orbax writes in coroutines: one that fails is raised, and asyncio logs its trace as well.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    ours = logging.getLogger("msa_flax")
    level, propagate = ours.level, ours.propagate
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagate


def _short(said: str) -> str:
    """Returns a sentence whose list is too long for a terminal with its beginning only."""
    if len(said) <= _LONGEST:
        return said
    start = re.split(r"[,;] (?!.*[,;] )", said[: _LONGEST - 40])[0]
    more = len(re.findall(r"[,;] ", said[len(start) :]))
    return f"{start} ... and {more or 'much'} more (--debug shows all)"


def _say(message: str, code: int) -> int:
    print(f"error: {message}" if code in (1, 2) else message, file=sys.stderr)
    return code
