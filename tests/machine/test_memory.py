"""Memory that is left and that there may be, from files as the kernel writes them."""

from __future__ import annotations

import resource
from pathlib import Path

import psutil
import pytest

from crystalline.machine import memory
from crystalline.machine.memory import available_bytes, give_back, memory_limit, size_words

MIB = 1 << 20
MEMINFO = "MemTotal:        1000 kB\nMemFree:  3 kB\nSwapTotal:        500 kB\n"
MACHINE = (1500 * 1024, "this machine has {}")
GROUP = "its control group may have {}"


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(("membership", "files", "limits"), [
    ("0::/\n", {}, []),
    ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "70000\n"},
     [(70000 + 500 * 1024, GROUP)]),
    ("0::/a\n", {"a/memory.max": "70000\n", "a/memory.swap.max": "0\n"}, [(70000, GROUP)]),
    ("0::/a\n", {"a/memory.max": "70000\n", "a/memory.swap.max": "9\n"}, [(70009, GROUP)]),
    ("0::/not/visible\n", {"memory.max": "4096"}, [(4096 + 500 * 1024, GROUP)]),
    ("4:memory:/x\n3:cpu:/y\n", {"memory/x/memory.limit_in_bytes": "8192\n",
                                 "memory/y/memory.limit_in_bytes": "1\n"},
     [(8192 + 500 * 1024, GROUP)]),
])  # fmt: skip
def test_limits(
    tmp_path: Path, membership: str, files: dict[str, str], limits: list[tuple[int, str]]
) -> None:
    _write(tmp_path / "root", files)
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "membership").write_text(membership)
    found = memory._limits(tmp_path / "meminfo", tmp_path / "membership", tmp_path / "root")
    assert found == [MACHINE, *limits]


def test_limits_of_the_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: 5_000_000, resource.RLIMIT_FSIZE: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], -1))
    assert memory_limit().words == "the limit on address space is 5 MB (ulimit -v)"
    limits[resource.RLIMIT_FSIZE] = 4_321_000
    assert memory_limit().size_bytes == 4_321_000
    assert memory_limit().words == "the limit on files, which count, is 4.32 MB (ulimit -f)"


def test_this_machine_has_memory() -> None:
    assert memory_limit().size_bytes > 2**28
    assert size_words(memory_limit().size_bytes) in memory_limit().words
    assert available_bytes() > MIB


@pytest.mark.parametrize(("membership", "files", "available"), [
    ("0::/a\n", {}, 4096),
    ("0::/a\n", {"a/memory.max": "max", "a/memory.current": f"{9 * MIB}"}, 4096),
    ("0::/a\n", {"a/memory.max": f"{64 * MIB}", "a/memory.current": f"{24 * MIB}"}, 40),
    ("0::/a/b\n", {"a/memory.max": f"{64 * MIB}", "a/memory.current": f"{60 * MIB}"}, 4),
    ("0::/a\n", {"a/memory.max": f"{64 * MIB}", "a/memory.current": f"{60 * MIB}",
                 "a/memory.stat": f"anon 1\ninactive_file {30 * MIB}\n"}, 34),
    ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": f"{32 * MIB}",
                       "memory/x/memory.usage_in_bytes": f"{40 * MIB}"}, 0),
])  # fmt: skip
def test_available_memory(
    tmp_path: Path, membership: str, files: dict[str, str], available: int
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9999 kB\nMemAvailable: 4194304 kB\n")
    (tmp_path / "membership").write_text(membership)
    _write(tmp_path / "root", files)
    found = memory._available(tmp_path / "meminfo", tmp_path / "membership", tmp_path / "root")
    assert found == available * MIB


def test_free_memory_is_given_back() -> None:
    """Below the size from which the C library maps memory of its own, free memory stays with it."""
    own = psutil.Process()
    kept = [bytearray(20_000) for _ in range(4000)]  # 80 MB in one heap
    last = bytearray(20_000)  # stands behind all of them
    del kept
    before = own.memory_full_info().uss
    give_back()
    assert before - own.memory_full_info().uss > 40e6
    assert len(last) == 20_000
