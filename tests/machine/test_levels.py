"""Levels are sets of features, written down once; the features are those that Linux sees too."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest

from crystalline._kernels import exact_isa, isa
from crystalline._kernels.bigint import tuning
from crystalline.machine import cpu, levels

ROOT = Path(__file__).resolve().parent.parent.parent
# Where the compiler and the kernel call a feature by different names.
LINUX_NAMES = {
    "lzcnt": "abm", "bmi": "bmi1", "avx512bf16": "avx512_bf16",
    "avx512vnni": "avx512_vnni", "amx-tile": "amx_tile",
    "amx-bf16": "amx_bf16", "amx-int8": "amx_int8",
}  # fmt: skip


@pytest.mark.skipif(platform.machine() != "x86_64", reason="no features are asked for")
def test_features_are_those_of_proc_cpuinfo() -> None:
    flags = re.search(r"^flags\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    assert flags
    seen = set(flags[1].split())
    asked = levels.features_of(levels.LEVELS, levels.EXACT_LEVELS)
    assert {name for name in asked if LINUX_NAMES.get(name, name) in seen} == cpu.FEATURES


@pytest.mark.parametrize("table", [levels.LEVELS, levels.EXACT_LEVELS])
def test_base_is_first_and_asks_for_nothing_and_names_are_not_repeated(
    table: tuple[levels.Level, ...],
) -> None:
    assert table[0].name == "base"
    assert [level.is_portable for level in table] == [True] + [False] * (len(table) - 1)
    assert len({level.name for level in table}) == len(table)


def test_a_level_is_available_where_every_feature_is() -> None:
    whole = levels.LEVELS[-1]
    have = set(whole.features)
    assert whole in levels.available(levels.LEVELS, have)
    for feature in whole.features:
        assert whole not in levels.available(levels.LEVELS, have - {feature})


def test_other_architectures_are_built_for_base_only() -> None:
    assert [level.name for level in levels.compiled(levels.LEVELS, "aarch64")] == ["base"]


def test_everybody_has_the_levels_of_the_list() -> None:
    assert tuple(level.name for level in levels.LEVELS) == isa.LEVELS
    assert tuple(level.name for level in levels.EXACT_LEVELS) == exact_isa.LEVELS
    assert isa.level() in isa.available_levels()
    header = (ROOT / "crystalline/_kernels/primitives/tuning.h").read_text("utf-8")
    source = (ROOT / "crystalline/_kernels/bigint/tuning.pyx").read_text("utf-8")
    columns = ", ".join(("name", *exact_isa.LEVELS))
    found = re.findall(r"\((name, [\w, ]+)\)", header + source)
    assert found == [columns] * len(found)
    assert len(found) > 4
    assert tuning is not None
