"""Log files: lines, rotation, levels beside those of the program, and files that cannot be."""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from pathlib import Path

import pytest

from crystalline import logfile
from crystalline.errors import DataError
from crystalline.log import get_logger, least_level, note, sinks
from crystalline.logfile import LOG_LINE, LogFile, log_descriptors

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (\w+) (crystalline\.\w+): (.*)")

log = get_logger("some")


@pytest.fixture(autouse=True)
def _no_sink_is_left():
    yield
    assert sinks() == ()


def lines(path: Path) -> list[tuple[str, ...]]:
    found = [LINE.fullmatch(line) for line in path.read_text().splitlines()]
    assert all(found)
    return [match.groups() for match in found if match]


def test_a_line_has_time_level_logger_and_message(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with LogFile(path):
        log.warning("%d of %d", 3, 4)
        get_logger("other").info("two\nlines, and \x1b[31m an escape")
        log.debug("nobody wants this")
    first, second, rest = path.read_text().splitlines()
    assert LINE.fullmatch(first).groups() == ("WARNING", "crystalline.some", "3 of 4")
    assert LINE.fullmatch(second).groups() == ("INFO", "crystalline.other", "two")
    assert rest == "    lines, and \\x1b[31m an escape"
    assert LOG_LINE.match(path.read_bytes())


def test_it_is_appended_and_a_torn_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("earlier")
    with LogFile(path):
        log.info("later")
    assert path.read_text().startswith("earlier\n2")


def test_what_came_before_the_file_is_there(tmp_path: Path) -> None:
    with LogFile() as file:
        log.info("early")
        assert file.descriptor == -1
        file.open(tmp_path / "a.log")
        log.info("late")
    assert [text for _, _, text in lines(tmp_path / "a.log")] == ["early", "late"]


def test_its_level_is_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a program hears by Python's means does not depend on files, nor they on that."""
    with LogFile(tmp_path / "debug.log", logging.DEBUG), LogFile(tmp_path / "info.log"):
        assert least_level() == logging.DEBUG
        log.debug("fine")
        log.info("plain")
        note(log, "for files")
        log.warning("loud")
    assert least_level() == logging.INFO
    assert caplog.messages == ["loud"]
    texts = [text for _, _, text in lines(tmp_path / "debug.log")]
    assert texts == ["fine", "plain", "for files", "loud"]
    assert [text for _, _, text in lines(tmp_path / "info.log")] == texts[1:]


def test_runs_in_other_threads_are_others(tmp_path: Path) -> None:
    with LogFile(tmp_path / "a.log", one_thread=True):
        other = threading.Thread(target=log.info, args=("theirs",))
        other.start()
        other.join()
        log.info("ours")
    assert [text for _, _, text in lines(tmp_path / "a.log")] == ["ours"]


def test_ten_megabytes_become_the_first_of_five(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(logfile, "ROTATE_BYTES", 300)
    path = tmp_path / "a.log"
    with LogFile(path):
        for number in range(40):
            log.info("message number %d", number)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["a.log", *(f"a.log.{number}" for number in range(1, 6))]
    kept = [f"{path}.{number}" for number in range(5, 0, -1)] + [str(path)]
    assert all(os.path.getsize(name) <= 300 for name in kept)  # noqa: PTH202
    numbers = [int(text.split()[-1]) for name in kept for _, _, text in lines(Path(name))]
    assert numbers == list(range(numbers[0], 40))
    assert numbers[0] > 0


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with LogFile(path):
        log.info("one")
        path.rename(tmp_path / "moved")
        log.info("two")
    assert [text for _, _, text in lines(path)] == ["two"]
    assert [text for _, _, text in lines(tmp_path / "moved")] == ["one"]


def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch, caplog) -> None:
    real, room = os.write, 20

    def write(fd: int, data: bytes) -> int:
        nonlocal room
        if fd not in log_descriptors():
            return real(fd, data)
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(fd, data[:room])
        room -= written
        return written

    path = tmp_path / "a.log"
    monkeypatch.setattr(os, "write", write)
    with LogFile(path):
        log.info("one")
        log.info("two")
        assert path.read_bytes() == b""  # and no half a line
        room = 10_000
        log.info("three")
    (told,) = caplog.messages
    assert told.startswith(f"{path} cannot be written (No space left on device)")
    assert [text for _, _, text in lines(path)] == ["three"]


def test_what_is_no_file_is_told_once(tmp_path: Path, caplog) -> None:
    (tmp_path / "target").write_text("not ours")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (
        ("link", "it is a link, not a file"),
        ("pipe", "it is a pipe, not a file"),
        ("no/folder", "No such file or directory"),
    ):
        caplog.clear()
        with LogFile(tmp_path / name):
            log.info("one")
            log.info("two")
        (told,) = caplog.messages
        assert f"({reason})" in told
    assert (tmp_path / "target").read_text() == "not ours"


def test_another_name_of_the_file_keeps_its_content(tmp_path: Path) -> None:
    path, backup = tmp_path / "a.log", tmp_path / "backup"
    path.write_text("old\n")
    os.link(path, backup)
    with LogFile(path):
        log.info("new")
    assert backup.read_text() == "old\n"
    assert path.read_text().count("\n") == 2


def test_the_error_that_ends_it_is_the_last_word(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    with pytest.raises(DataError), LogFile(path):
        raise DataError("there is no text", advice="Write some.")
    assert lines(path) == [("ERROR", "crystalline.log", "there is no text. Write some.")]
    with pytest.raises(LookupError), LogFile(path):
        raise LookupError("a bug of ours")
    assert "    LookupError: a bug of ours" in path.read_text()
