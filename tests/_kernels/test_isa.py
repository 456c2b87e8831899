"""The choice of the instruction-set level: forced, refused, reported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from crystalline._kernels import exact_isa, formats, isa
from crystalline.machine import cpu, levels

ASK = "from crystalline._kernels import isa; print(isa.level())"


def _python(code: str, level: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"CRYSTALLINE_ISA": level},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("level", isa.available_levels())
def test_variable_forces_a_level(level: str) -> None:
    done = _python(ASK, f" {level.upper()} ")
    assert done.stdout.strip() == level, done.stderr


def test_empty_variable_takes_the_highest() -> None:
    fast = [name for name in isa.available_levels() if name != "amx" or not isa.PLAIN_TILES]
    assert _python(ASK, "").stdout.strip() == fast[-1]


@pytest.mark.parametrize("level", isa.available_levels())
def test_exact_level_is_the_forced_one_or_the_best_that_the_features_allow(level: str) -> None:
    ask = "from crystalline._kernels import exact_isa; print(exact_isa.level())"
    best = levels.available(levels.EXACT_LEVELS, cpu.FEATURES)[-1].name
    expected = level if level in exact_isa.LEVELS else best
    assert _python(ask, level).stdout.strip() == expected


def test_bf16_is_native_wherever_the_level_has_the_feature() -> None:
    features = next(row.features for row in levels.LEVELS if row.name == isa.level())
    is_plain = isa.PLAIN_TILES and isa.level() == "amx"
    assert formats.is_native("float32")
    assert formats.is_native("bf16") == ("avx512bf16" in features and not is_plain)


REFUSE = """
import ctypes, errno, struct
# As in <linux/filter.h>: arch_prctl(ARCH_REQ_XCOMP_PERM, ..) fails with EPERM, all else is allowed.
code = [(0x20, 0, 0, 0), (0x15, 0, 3, 158), (0x20, 0, 0, 16), (0x15, 0, 1, 0x1023),
        (0x06, 0, 0, 0x50000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
assert libc.prctl(22, 2, ctypes.c_char_p(program), 0, 0) == 0, ctypes.get_errno()
from crystalline._kernels import isa
print(*isa.available_levels())
"""


@pytest.mark.skipif(
    "amx" not in isa.available_levels() or isa.PLAIN_TILES, reason="this machine has no tiles"
)
def test_level_whose_permission_is_refused_is_not_available() -> None:
    done = _python(REFUSE, "")
    levels_left = [name for name in isa.available_levels() if name != "amx"]
    assert done.stdout.split() == levels_left, done.stderr
    done = _python(REFUSE, "amx")
    assert "CRYSTALLINE_ISA is 'amx', which this machine does not have" in done.stderr


def test_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="precision is 'bf61', expected one of float32, bf16"):
        formats.is_native("bf61")


@pytest.mark.parametrize("value", ["avx1024", "0"])
def test_level_that_is_missing_is_an_error_with_advice(value: str) -> None:
    code = (
        "from crystalline.errors import UnsupportedError\n"
        "try:\n    import crystalline._kernels.isa\n"
        "except UnsupportedError as error:\n    print(error.message); print(error.advice)\n"
    )
    done = _python(code, value)
    message, advice = done.stdout.splitlines()
    assert "CRYSTALLINE_ISA" in message
    assert repr(value) in message
    assert all(level in advice for level in isa.available_levels())


def test_levels_are_in_order_and_the_peak_is_sane() -> None:
    assert [*isa.available_levels()] == [n for n in isa.LEVELS if n in isa.available_levels()]
    assert 1e8 < formats.flops_per_second("float32", 0.01) < 1e13
