"""Handlers for a while: those of before come back, Python's and the ones below it."""

from __future__ import annotations

import ctypes
import signal

import pytest

from crystalline.handlers import handling

USER = signal.SIGUSR1


@pytest.fixture
def deep():
    """Set a handler that only the C library knows of; return the signals that it heard."""
    heard: list[int] = []
    libc = ctypes.CDLL(None)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
    handler = kind(heard.append)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, kind], ctypes.c_void_p
    libc.signal(USER, handler)
    yield heard
    signal.signal(USER, signal.SIG_DFL)


def test_handlers_of_c_come_back(deep: list[int]) -> None:
    heard: list[int] = []
    with handling({USER: lambda number, _: heard.append(number)}):
        signal.raise_signal(USER)
    assert (heard, deep) == ([USER], [])
    signal.raise_signal(USER)
    assert (heard, deep) == ([USER], [USER])


def test_they_come_back_from_an_error(deep: list[int]) -> None:
    with pytest.raises(KeyError), handling({USER: lambda *_: None}):
        raise KeyError
    signal.raise_signal(USER)
    assert deep == [USER]


def test_what_cannot_be_handled_leaves_the_others_as_they_were() -> None:
    with pytest.raises(OSError, match="Invalid argument"), handling({USER: print, 999: print}):
        pass
    assert signal.getsignal(USER) is signal.SIG_DFL


def test_ignored_stays_ignored() -> None:
    before = signal.signal(USER, signal.SIG_IGN)
    try:
        with handling({USER: lambda *_: None}):
            pass
        assert signal.getsignal(USER) is signal.SIG_IGN
        signal.raise_signal(USER)
    finally:
        signal.signal(USER, before)
