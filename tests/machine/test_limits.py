"""What limits this process: cores by affinity and quota, memory by control group; cache sizes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crystalline.machine import cores as machine_cores
from crystalline.machine import memory
from crystalline.machine.cores import usable_cores


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(("membership", "files", "quotas"), [
    ("0::/a/b\n", {"a__b__cpu_dot_max": "max 100000", "a__cpu_dot_max": "150000 100000"}, [1.5]),
    ("0::/a/b\n", {"a__b__cpu_dot_max": "50000 100000", "a__cpu_dot_max": "300000 100000"},
     [0.5, 3.0]),
    ("0::/\n", {"cpu_dot_max": "250000 100000"}, [2.5]),
    ("0::/not/visible/here\n", {"cpu_dot_max": "400000 100000"}, [4.0]),
    ("0::/\n", {}, []),
    ("4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
     {"cpu,cpuacct__x__cpu_dot_cfs_quota_us": "150000\n",
      "cpu,cpuacct__x__cpu_dot_cfs_period_us": "100000\n"}, [1.5]),
    ("3:cpu,cpuacct:/x\n", {"cpu__cpu_dot_cfs_quota_us": "-1",
                            "cpu__cpu_dot_cfs_period_us": "100000"}, []),
    ("3:cpu:/x\n", {"cpu__cpu_dot_cfs_quota_us": "75000",
                    "cpu__cpu_dot_cfs_period_us": "50000"}, [1.5]),
    ("", {"cpu_dot_max": "100000 100000"}, []),
])  # fmt: skip
def test_quotas(
    tmp_path: Path, membership: str, files: dict[str, str], quotas: list[float]
) -> None:
    (tmp_path / "membership").write_text(membership)
    _write(tmp_path / "root", **{"unused": "", **files})
    assert machine_cores._quotas(tmp_path / "membership", tmp_path / "root") == quotas


@pytest.mark.parametrize(("affinity", "quotas", "cores"), [
    (8, [], 8), (8, [2.0, 3.5], 2), (8, [2.5], 3), (1, [4.0], 1), (2, [0.1], 1), (64, [64.0], 64),
])  # fmt: skip
def test_usable_cores(
    monkeypatch: pytest.MonkeyPatch, affinity: int, quotas: list[float], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
    monkeypatch.setattr(machine_cores, "_quotas", lambda *_: quotas)
    assert usable_cores() == cores


def test_usable_cores_here() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


MIB = 1 << 20


@pytest.mark.parametrize(("membership", "files", "available"), [
    ("0::/a\n", {}, 4096),
    ("0::/a\n", {"a__memory_dot_max": "max", "a__memory_dot_current": f"{9 * MIB}"}, 4096),
    ("0::/a\n", {"a__memory_dot_max": f"{64 * MIB}", "a__memory_dot_current": f"{24 * MIB}"}, 40),
    ("0::/a/b\n", {"a__memory_dot_max": f"{64 * MIB}", "a__memory_dot_current": f"{60 * MIB}"}, 4),
    ("0::/a\n", {"a__memory_dot_max": f"{64 * MIB}", "a__memory_dot_current": f"{60 * MIB}",
                 "a__memory_dot_stat": f"anon 1\ninactive_file {30 * MIB}\n"}, 34),
    ("4:memory:/x\n", {"memory__x__memory_dot_limit_in_bytes": f"{32 * MIB}",
                       "memory__x__memory_dot_usage_in_bytes": f"{40 * MIB}"}, 0),
])  # fmt: skip
def test_available_memory(
    tmp_path: Path, membership: str, files: dict[str, str], available: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9999 kB\nMemAvailable: 4194304 kB\n")
    (tmp_path / "membership").write_text(membership)
    _write(tmp_path / "root", **{"unused": "", **files})
    found = memory._available(tmp_path / "meminfo", tmp_path / "membership", tmp_path / "root")
    assert found == available * MIB


def test_cache_sizes(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [(1, "Data", "48K"), (1, "Instruction", "64K"), (2, "Unified", "2048K"),
         (3, "Unified", "480M")]
    ):  # fmt: skip
        _write(tmp_path, **{f"index{index}__level": f"{level}", f"index{index}__type": f"{kind}\n",
                            f"index{index}__size": f"{size}\n"})  # fmt: skip
    sizes = [memory._cache_bytes(level, tmp_path) for level in (1, 2, 3, 4)]
    assert sizes == [48 << 10, 2 << 20, 480 << 20, None]


def test_what_is_here() -> None:
    assert memory.available_bytes() > MIB
    assert all(size is None or size > 0 for size in map(memory.cache_bytes, (1, 2, 3)))
