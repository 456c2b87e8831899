"""The runner shared by the commands: exit codes, one-line errors, quiet ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from crystalline.cli.run import parse_settings, run_command, version_line
from crystalline.errors import CheckpointError, DataError, UsageError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settings:
    place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")]
    """Where to look."""
    count: int = 3
    """How many."""


def parse(*argv: str) -> Settings:
    return parse_settings(Settings, list(argv), program="demo", description="A demo.")


def test_returns_what_main_returns() -> None:
    seen: list[list[str]] = []

    def main(argv: list[str]) -> int:
        seen.append(argv)
        return 7

    assert run_command("demo", main, ["x", "--y"]) == 7
    assert seen == [["x", "--y"]]


@pytest.mark.parametrize(("error", "code"), [(UsageError, 2), (DataError, 3), (CheckpointError, 4)])
def test_errors_are_one_line_and_their_exit_code(error, code, capsys) -> None:
    def main(_: list[str]) -> int:
        raise error("the file is empty", advice="Give another.")

    assert run_command("demo", main, []) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "demo: error: the file is empty. Give another.\n"


def test_too_little_memory_is_one_line(capsys) -> None:
    import numpy as np

    assert run_command("demo", lambda _: np.zeros(2**60, np.int8).size, []) == 1
    said = capsys.readouterr().err
    assert said.startswith("demo: error: memory ran out (Unable to allocate 1.00 EiB")
    assert said.count("\n") == 1


def test_an_error_that_nobody_reads_keeps_its_exit_code() -> None:
    program = (
        "import sys\n"
        "from crystalline.cli.run import run_command\n"
        "from crystalline.errors import CheckpointError\n"
        "def main(argv):\n"
        "    raise CheckpointError('gone')\n"
        "sys.exit(run_command('demo', main, []))\n"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stderr=writing, timeout=20, check=False
        )
    finally:
        os.close(writing)
    assert done.returncode == 4


def test_interrupt_is_130(capsys) -> None:
    def main(_: list[str]) -> int:
        raise KeyboardInterrupt

    assert run_command("demo", main, []) == 130
    assert capsys.readouterr().err == ""


def test_our_own_mistakes_keep_their_traceback() -> None:
    def main(_: list[str]) -> int:
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        run_command("demo", main, [])


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"),
         "a/b cannot be used (Permission denied). Check the permissions."),
        (OSError(errno.EFBIG, "File too large", b"t"),
         "t cannot be used (File too large). Raise the limit on the size of files (ulimit -f)."),
        (OSError(errno.EIO, "Input/output error"), "Input/output error. Check the disk."),
        (OSError("odd"), "odd. Check that it is there and may be used."),
        (MemoryError(),
         "memory ran out. Free some memory, or use a smaller model, batch or text."),
        (MemoryError("Unable to allocate 9 TiB"), ("memory ran out (Unable to allocate 9 TiB). "
         "Free some memory, or use a smaller model, batch or text.")),
        (RecursionError("maximum recursion depth exceeded"), ("something that was read is nested "
         "too deeply. Look for a damaged file among those that were named.")),
        (RuntimeError("can't start new thread"), ("the machine is short of something (can't start "
         "new thread). Raise the limits on memory, threads and open files (ulimit -a).")),
        (ImportError("libx.so: failed to map segment from shared object"), ("the machine is short "
         "of something (libx.so: failed to map segment from shared object). "
         "Raise the limits on memory, threads and open files (ulimit -a).")),
    ],
    ids=repr,
)  # fmt: skip
def test_what_the_machine_refuses_is_one_line(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_: list[str]) -> int:
        raise error

    assert run_command("demo", main, []) == 1
    assert capsys.readouterr().err == f"demo: error: {line}\n"


@pytest.mark.parametrize(
    "error", [TypeError("a"), RuntimeError("b"), ImportError("no module c"), KeyError("d")]
)
def test_mistakes_are_not_blamed_on_the_machine(error: Exception) -> None:
    def main(_: list[str]) -> int:
        raise error

    with pytest.raises(type(error)):
        run_command("demo", main, [])


def test_a_stderr_that_is_full_keeps_the_exit_code() -> None:
    program = (
        "import sys\n"
        "from crystalline.cli.run import run_command\n"
        "from crystalline.errors import DataError\n"
        "def main(argv): raise DataError('the text is empty')\n"
        "sys.exit(run_command('demo', main, []))\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stderr=full, timeout=20, check=False
        )
    assert done.returncode == 3


def test_a_reader_that_went_away_is_quiet() -> None:
    program = (
        "import sys\n"
        "from crystalline.cli.run import run_command\n"
        "def main(argv):\n"
        "    for i in range(100000):\n"
        "        print('line', i)\n"
        "    return 0\n"
        "sys.exit(run_command('demo', main, []))\n"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=buffered,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=20) == 141


def test_a_full_disk_is_one_line() -> None:
    program = (
        "import sys\n"
        "from crystalline.cli.run import run_command\n"
        "sys.exit(run_command('demo', lambda argv: print('text') or 0, []))\n"
    )
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=20,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"demo: error: No space left on device. Free some space.\n"


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"a?\n"),
        ("ascii:surrogateescape", b"a?\n"),
        ("ascii:backslashreplace", b"a\\u20ac\n"),
        ("utf-8", "a€\n".encode()),
        ("latin-1", b"a?\n"),
    ],
)
def test_a_terminal_without_a_character_shows_a_question_mark(encoding, expected) -> None:
    program = (
        "import sys\n"
        "from crystalline.cli.run import run_command\n"
        "sys.exit(run_command('demo', lambda argv: print('a\\u20ac') or 0, []))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


def test_parses_a_dataclass() -> None:
    assert parse("here", "--count", "5") == Settings("here", 5)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["here", "--count", "x"], ["--count", "'x' is not a whole number"]),
        (["here", "--cuont", "4"], ["--cuont"]),
        (["here", "--count"], ["--count"]),
        (["here", "--count", "9" * 5000], ["--count", "thousands of digits"]),
        ([], ["PLACE"]),
    ],
)
def test_usage_errors_are_short(argv, words, capsys) -> None:
    def main(given: list[str]) -> int:
        parse(*given)
        return 0

    assert run_command("demo", main, argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("demo: error: ")
    assert captured.err.endswith("See demo --help.\n")
    assert captured.err.count("\n") == 1
    for word in words:
        assert word in captured.err


def test_help_is_on_stdout_and_ends_well(capsys) -> None:
    def main(argv: list[str]) -> int:
        parse(*argv)
        raise AssertionError("help must not go on")

    assert run_command("demo", main, ["--help"]) == 0
    captured = capsys.readouterr()
    assert "How many." in captured.out
    assert captured.err == ""


def test_version_names_the_instruction_set() -> None:
    from crystalline import __version__
    from crystalline._kernels import isa

    assert version_line() == f"crystalline {__version__} (isa: {isa.level()})"
