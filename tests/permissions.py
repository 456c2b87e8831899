"""Permissions that hold for root too: tests run as root in many containers."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

VERSION_3 = 0x20080522  # of the structures below; capget(2)
DAC_OVERRIDE, DAC_READ_SEARCH = 1 << 1, 1 << 2


@contextmanager
def permissions_hold() -> Iterator[None]:
    """Take from this thread what lets root pass over the modes of files."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    if libc.capget(header, before):
        pytest.skip("capabilities cannot be read here")
    now = (ctypes.c_uint32 * 6)(*before)
    now[0] &= ~(DAC_OVERRIDE | DAC_READ_SEARCH)
    if libc.capset(header, now):
        pytest.skip("capabilities cannot be changed here")
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0
