"""A signal's handler ends long calls in the middle, and every level passes the shaped numbers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from crystalline._kernels import exact_isa, isa
from crystalline._kernels.bigint import div, gcd, powmod, radix, roots, tuning
from tests._kernels.bigint.numbers import limbs, room

ROOT = Path(__file__).resolve().parents[3]
ALARM_S = 0.02


class AlarmError(Exception):
    """What the handler raises."""


def _raise(_signum: int, _frame: FrameType | None) -> None:
    raise AlarmError


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    previous = signal.signal(signal.SIGALRM, _raise)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def _number(bits: int) -> int:
    return random.Random(bits).getrandbits(bits) | 1 << (bits - 1) | 1


def _divide() -> None:
    a, b = limbs(_number(64_000_000)), limbs(_number(6_400_000))
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    div.divrem(room(len(a) - len(b) + 1), room(len(b)), a, b)


def _gcd() -> None:
    a, b = limbs(_number(10_000_000)), limbs(_number(9_999_900))
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    gcd.gcd(room(len(a)), a, b)


def _lehmer() -> None:
    a, b = limbs(_number(1_500_000)), limbs(_number(1_499_900))
    with tuning.forced(gcd_hgcd=10**9):
        signal.setitimer(signal.ITIMER_REAL, ALARM_S)
        gcd.gcdext(room(len(a)), room(len(b) + 1), room(len(a) + 1), a, b)


def _powmod() -> None:
    a = limbs(_number(20_000))
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    powmod.powmod(room(len(a)), a, a, a)


def _power_of_two() -> None:
    a, m = limbs(_number(20_000)), limbs(1 << 20_000)
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    powmod.powmod(room(len(m)), a, a, m)


def _to_digits() -> None:
    a = limbs(_number(30_000_000))
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    radix.to_digits(a, 10)


def _from_digits() -> None:
    digits = b"7" * 20_000_000
    r = room(radix.room_for_digits(len(digits), 10))
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    radix.from_digits(r, digits, 10)


def _sqrt() -> None:
    a = limbs(_number(64_000_000))
    s, r = room((len(a) + 1) // 2), room(len(a))
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    roots.sqrtrem(s, r, a)


def _root() -> None:
    a = limbs(_number(10_000_000))
    s = room(len(a) // 3 + 1)
    signal.setitimer(signal.ITIMER_REAL, ALARM_S)
    roots.root(s, a, 3)


CALLS = [
    _divide, _gcd, _lehmer, _powmod, _power_of_two, _to_digits, _from_digits, _sqrt, _root,
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_handler_ends_a_call(call: Callable[[], None]) -> None:
    start = time.perf_counter()
    with pytest.raises(AlarmError):
        call()
    # far less than the calls take; one product or the making of the numbers may come between
    assert time.perf_counter() - start < 5


# The levels that can be forced and are not in use; the one in use runs in this process.
OTHERS = [n for n in isa.available_levels() if n in exact_isa.LEVELS and n != exact_isa.level()]
FILES = [f"tests/_kernels/bigint/test_{n}.py" for n in ("div", "gcd", "powmod", "radix", "roots")]


@pytest.mark.parametrize("level", OTHERS)
def test_same_at_level(level: str) -> None:
    chosen = "(shaped and not lehmer and not small) or edges or beside or many_bits"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *FILES, "-k", chosen],
        env=os.environ | {"CRYSTALLINE_ISA": level},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-3000:]
