"""How many cores this process may use, by affinity and by quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crystalline.machine import cores as machine_cores
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
