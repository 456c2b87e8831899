"""The instruction-set levels: sets of CPU features that the kernels are compiled for.

This is the one list.  A level is a row: its name, the features a CPU must have (as the compiler
and /proc/cpuinfo's relatives in gcc spell them), and the macros that its units are compiled with.
From it `tools/generate.py` writes the C side (`levels.h` and a translation unit a level), setup.py
takes the units, and `_kernels.isa` and `_kernels.exact_isa` choose.  Rows are in order: a later
one is preferred where the CPU has both.  Nothing is imported here, so that setup.py can run it.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass

AVX2 = ("avx2", "fma", "bmi", "bmi2", "popcnt", "lzcnt")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512dq", "avx512vl", "adx")
TILES = ("amx-tile", "amx-bf16", "amx-int8")

X86 = ("x86_64", "AMD64")


@dataclass(frozen=True)
class Level:
    """One way in which the kernels are compiled."""

    name: str
    about: str  # opens the translation unit
    features: tuple[str, ...] = ()
    macros: tuple[str, ...] = ()

    @property
    def is_portable(self) -> bool:
        """Whether every CPU, of any architecture, runs it."""
        return not self.features


# Floating point: what a model computes with.  The bits of training belong to a level.
LEVELS = (
    Level(
        "base",
        "any CPU of the architecture: SSE2 on x86-64, NEON on aarch64; 4 lanes",
        macros=("CL_BASE",),
    ),
    Level("avx2", "x86-64 with AVX2 and FMA: 8 lanes, 16 registers", AVX2, ("CL_AVX2",)),
    Level(
        "avx512",
        "x86-64 with AVX-512 F, BW, DQ, VL and FMA: 16 lanes, 32 registers",
        AVX512,
        ("CL_AVX512",),
    ),
    Level(
        "avx512bf16",
        "x86-64 with AVX-512 that multiplies bfloat16 in pairs and bytes in fours: 16 lanes",
        (*AVX512, "avx512bf16", "avx512vnni"),
        ("CL_AVX512", "CL_BF16", "CL_VNNI"),
    ),
    Level(
        "amx",
        "x86-64 with AVX-512, and matrix tiles that multiply bfloat16",
        (*AVX512, "avx512bf16", "avx512vnni", *TILES),
        ("CL_AVX512", "CL_BF16", "CL_VNNI", "CL_TILES"),
    ),
)

# Integers: what is exact.  Every level gives the same bits.
EXACT_LEVELS = (
    Level("base", "any x86-64 (SSE2) or aarch64"),
    Level("avx2", "x86-64 with AVX2 and BMI2: 4 lanes, mulx", AVX2, ("CL_AVX2",)),
    Level(
        "avx512",
        "x86-64 with AVX-512: 8 lanes, 64-bit products of lanes, adcx and adox",
        AVX512,
        ("CL_AVX512",),
    ),
    Level(
        "avx512ifma",
        "x86-64 with AVX-512 IFMA: 52-bit multiply-adds in 8 lanes",
        (*AVX512, "avx512ifma"),
        ("CL_AVX512", "CL_IFMA"),
    ),
)


def features_of(*tables: tuple[Level, ...]) -> tuple[str, ...]:
    """Return every feature that the tables name, each once.

    >>> features_of(EXACT_LEVELS)[-2:]
    ('adx', 'avx512ifma')
    """
    return tuple(dict.fromkeys(f for table in tables for level in table for f in level.features))


def compiled(table: tuple[Level, ...], machine: str = "") -> tuple[Level, ...]:
    """Return the levels that a build for this architecture contains (default: the present one).

    >>> [level.name for level in compiled(LEVELS, "aarch64")]
    ['base']
    """
    x86 = (machine or platform.machine()) in X86
    return tuple(level for level in table if x86 or level.is_portable)


def available(table: tuple[Level, ...], features: Collection[str]) -> tuple[Level, ...]:
    """Return the compiled levels that a CPU with these features runs, in order.

    >>> [level.name for level in available(LEVELS, AVX2)][0]
    'base'
    """
    return tuple(level for level in compiled(table) if set(level.features) <= set(features))
