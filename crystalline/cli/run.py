"""What every command shares: parsing its settings, and turning its end into an exit code.

A command's module is a frozen dataclass of settings and a `main`; the work is
in the layers below.  Errors that a user can act on become one line on stderr
and the exit code of their class (`crystalline.errors`), and so do failures of the
machine that nobody foresaw; anything else is our own mistake and keeps its traceback.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Literal, TextIO, TypeVar

from crystalline import __version__
from crystalline.errors import (
    EXIT_BROKEN_PIPE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    CrystallineError,
    UnsupportedError,
    UsageError,
    environment_error,
)
from crystalline.faults import LAUNCHER, set_up
from crystalline.untrusted import message

ANSI_CODE = re.compile(r"\x1b\[[0-9;]*m")
ISA_VARIABLE = "CRYSTALLINE_ISA"  # names the level of the instruction set; see `_kernels.isa`

# Python's words for a value that is no number, and ours.
_PLAINER = (
    (re.compile(r"invalid literal for int\(\) with base 10: (.*)"), r"\1 is not a whole number"),
    (re.compile(r"Exceeds the limit .*"), "a number of thousands of digits"),
    (re.compile(r"could not convert string to float: (.*)"), r"\1 is not a number"),
)

# The name that commands are called below, as in `cllm train`; None for those called by their own.
_umbrella: ContextVar[str | None] = ContextVar("umbrella", default=None)
_COMMAND = re.compile(r"\bcllm-(?=[a-z])")

Settings = TypeVar("Settings")
InferPrecision = Literal["float32", "bf16", "int8", "int8g32", "int4"]  # of a model that writes
CachePrecision = Literal["bf16", "float32"]  # of its keys and values


def run_command(
    program: str, main: Callable[[list[str]], int], argv: list[str] | None = None
) -> int:
    """Call `main` with the arguments (default: those of this process); return the exit code.

    A `CrystallineError` is printed as `program: error: sentence. advice.` on
    stderr, and so is what the operating system refuses.  Ctrl-C gives 130; a reader that went away
    (`| head`) gives 141 and no message.  Standard output is flushed here, so
    that either is met before the interpreter shuts down.

    >>> run_command("demo", lambda argv: len(argv), ["a", "b"])
    2
    """
    program = called(program)
    _open_closed_streams()
    _tolerate_any_text()
    # Nothing is left to BLAS, and its threads cost memory and processes that may be limited.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return _exit_code(program, main, sys.argv[1:] if argv is None else argv)
    finally:
        try:
            sys.stderr.flush()
        except OSError:  # nobody can be told; what is left must not fail the exit
            _forget(sys.stderr)


@contextlib.contextmanager
def under(umbrella: str) -> Iterator[None]:
    """Let messages name commands by another command that they are called below.

    >>> with under("cllm"):
    ...     called("cllm-train")
    'cllm train'
    """
    token = _umbrella.set(umbrella)
    try:
        yield
    finally:
        _umbrella.reset(token)


def called(program: str) -> str:
    """Return how a command is called here: by its own name, or below another's (`under`).

    >>> called("cllm-train")
    'cllm-train'
    """
    umbrella = _umbrella.get()
    return program if umbrella is None else _COMMAND.sub(lambda _: f"{umbrella} ", program)


def _exit_code(program: str, main: Callable[[list[str]], int], argv: list[str]) -> int:
    try:
        set_up(LAUNCHER)
        code = main(argv)
        sys.stdout.flush()
    except CrystallineError as error:
        code = _tell(program, error)
        # A level that this machine lacks is a setting that cannot work, where it was asked for.
        asked = isinstance(error, UnsupportedError) and error.message.startswith(ISA_VARIABLE)
        return EXIT_USAGE if asked else code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget(sys.stdout)
        return EXIT_BROKEN_PIPE
    except SystemExit as stop:  # --help, from the parser
        return stop.code if isinstance(stop.code, int) else EXIT_OK
    except Exception as error:
        found = environment_error(error)
        if found is None:
            raise
        try:
            sys.stdout.flush()
        except OSError:  # it was standard output that failed, or it fails, too
            _forget(sys.stdout)
        return _tell(program, found)
    return code


def _tell(program: str, error: CrystallineError) -> int:
    """Print an error on stderr, if anybody can be told; return its exit code."""
    try:
        print(f"{program}: error: {message(str(error))}", file=sys.stderr, flush=True)
    except OSError:
        _forget(sys.stderr)
    return error.exit_code


def parse_settings(
    settings: type[Settings],
    argv: list[str],
    *,
    program: str,
    description: str,
    default: Settings | None = None,
) -> Settings:
    """Return the dataclass `settings` filled from command-line arguments.

    `description` is text of ours, in which commands are named as they are `called`.

    What the arguments do not name comes from `default`.  The docstring under a field is the
    help text of its flag.  `--help` prints to stdout and raises `SystemExit(0)`.

    Raises:
        UsageError: an unknown flag or a value that cannot be converted.
    """
    import tyro

    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            return tyro.cli(
                settings,
                args=argv,
                prog=called(program),
                description=called(description),
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if stop.code != EXIT_USAGE:
            raise
        raise UsageError(
            _first_sentence(drawn.getvalue()), advice=f"See {called(program)} --help."
        ) from None


def version_line() -> str:
    """Return what `--version` prints: the version, and the instruction-set level in use."""
    from crystalline._kernels import isa

    return f"crystalline {__version__} (isa: {isa.level()})"


def _first_sentence(drawn: str) -> str:
    """Return the first block of the parser's framed message, without its title, as one line.

    >>> _first_sentence("╭─ Value error ─╮\\n│ bad --n │\\n│ value x │\\n│ ─────── │\\n│ help │")
    'bad --n value x'
    """
    words: list[str] = []
    for line in ANSI_CODE.sub("", drawn).splitlines()[1:]:
        text = line.strip().strip("│|").strip()
        if any(character.isalnum() for character in text):
            words += text.split()
        elif words:
            break
    text = " ".join(words).rstrip(".")
    for pattern, plainer in _PLAINER:
        text = pattern.sub(plainer, text)
    return text


def _open_closed_streams() -> None:
    """Put /dev/null where the caller closed a standard stream (`2>&-`).

    Python has None there, and the number of the stream would go to the next file opened.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
        if null != number:
            os.dup2(null, number)
            os.close(null)
        mode = "w" if number else "r"
        setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _tolerate_any_text() -> None:
    """Let a standard output that lacks a character show '?' instead of ending the program.

    Python writes surrogateescape where the locale is C; it fails as strict does, but for UTF-8.
    """
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and (
        out.errors == "strict" or (out.errors == "surrogateescape" and out.encoding != "utf-8")
    ):
        out.reconfigure(errors="replace")


def _forget(stream: TextIO) -> None:
    """Point a standard stream at /dev/null: the flush at exit must not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, stream.fileno())
    finally:
        os.close(null)
