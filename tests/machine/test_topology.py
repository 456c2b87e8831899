"""Processors in the order to be kept busy, on machines that are not this one."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from crystalline.machine import topology
from crystalline.machine.topology import Processor, order, place_memory, processors


def machine(root: Path, cpus: dict[int, tuple[int, int, int]], online: str) -> Path:
    """Write what the kernel would tell: number → (package, core, node)."""
    (root / "cpu").mkdir()
    (root / "cpu/online").write_text(f"{online}\n")
    by_node: dict[int, list[int]] = {}
    for number, (package, core, node) in cpus.items():
        folder = root / f"cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{package}\n")
        (folder / "core_id").write_text(f"{core}\n")
        by_node.setdefault(node, []).append(number)
    for node, numbers in by_node.items():
        (root / f"node/node{node}").mkdir(parents=True)
        (root / f"node/node{node}/cpulist").write_text(",".join(map(str, numbers)) + "\n")
    return root


def found(root: Path, allowed: set[int]) -> list[tuple[int, int]]:
    return [(p.number, p.node) for p in order(processors(allowed, root))]


def test_one_node_without_siblings(tmp_path: Path) -> None:
    root = machine(tmp_path, {n: (0, n, 0) for n in range(4)}, "0-3")
    assert found(root, set(range(4))) == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_siblings_that_are_neighbors_come_last(tmp_path: Path) -> None:
    """As some machines number them: 0 and 1 are one core."""
    root = machine(tmp_path, {n: (0, n // 2, 0) for n in range(6)}, "0-5")
    assert found(root, set(range(6))) == [(0, 0), (2, 0), (4, 0), (1, 0), (3, 0), (5, 0)]


# Two sockets of three cores with two processors each, numbered socket by socket, siblings at the
# end: the cores 0-2 and 3-5, their siblings 6-8 and 9-11.  Both sockets count their cores from 0.
SOCKETS = {n: (n % 6 // 3, n % 3, n % 6 // 3) for n in range(12)}


def test_two_sockets_with_siblings(tmp_path: Path) -> None:
    root = machine(tmp_path, SOCKETS, "0-11")
    wanted = [(0, 0), (3, 1), (1, 0), (4, 1), (2, 0), (5, 1)]
    wanted += [(number + 6, node) for number, node in wanted]
    assert found(root, set(range(12))) == wanted


def test_what_is_offline_is_left_out(tmp_path: Path) -> None:
    root = machine(tmp_path, SOCKETS, "0-3,5,7-11")
    assert found(root, set(range(12))) == [
        (0, 0), (3, 1), (1, 0), (5, 1), (2, 0), (10, 1), (7, 0), (9, 1), (8, 0), (11, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("allowed", [{4}, {1, 2, 8}, {6, 7, 9}])
def test_what_is_not_allowed_is_left_out(tmp_path: Path, allowed: set[int]) -> None:
    """A mask, or the set of a control group; a sibling whose core is not ours counts as one."""
    root = machine(tmp_path, SOCKETS, "0-11")
    wanted = {frozenset({4}): [4], frozenset({1, 2, 8}): [1, 2, 8], frozenset({6, 7, 9}): [6, 9, 7]}
    assert [number for number, _ in found(root, allowed)] == wanted[frozenset(allowed)]


@pytest.mark.parametrize("told", ["nothing", "no nodes", "-1"])
def test_a_kernel_that_tells_little(tmp_path: Path, told: str) -> None:
    """As in containers and on virtual machines."""
    if told == "no nodes":
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu/online").write_text("0-7\n")
    elif told == "-1":
        machine(tmp_path, {n: (-1, n, 0) for n in range(4)}, "0-3")
    assert processors({2, 3}, tmp_path) == tuple(
        Processor(number, (-1, number), 0) for number in (2, 3)
    )


def test_here_it_is_what_the_process_may_use() -> None:
    assert {p.number for p in processors()} == os.sched_getaffinity(0)
    assert sorted(order(processors()), key=lambda p: p.number) == list(processors())


def test_memory_is_moved_and_keeps_what_is_in_it() -> None:
    mapping = mmap.mmap(-1, 8 * mmap.PAGESIZE)
    array = np.frombuffer(mapping, np.uint8)
    array[:] = np.arange(len(array), dtype=np.uint32).astype(np.uint8)
    before = array.copy()
    node = processors()[0].node
    try:
        place_memory(array.ctypes.data + 5, 6 * mmap.PAGESIZE, [node])
    except OSError as error:
        pytest.skip(f"this kernel places no memory: {error}")
    assert (array == before).all()
    place_memory(array.ctypes.data + 5, 100, [node])  # no whole page: nothing to do
    with pytest.raises(OSError, match=r"Invalid|not permitted"):
        place_memory(array.ctypes.data, 4 * mmap.PAGESIZE, [1000])


def test_a_machine_that_cannot_place_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology.platform, "machine", lambda: "s390x")
    with pytest.raises(OSError, match="s390x"):
        place_memory(0, 1 << 20, [0])
