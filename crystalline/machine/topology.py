"""Which processors this process may use, and how they hang together: cores, siblings, nodes.

The kernel tells it below /sys/devices/system; "processor" is what it gives a number to, of which a
physical core has one or several (siblings).  A node is memory with the processors next to it.
"""

from __future__ import annotations

import os
import platform
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from crystalline.machine.cgroup import read
from crystalline.machine.cores import usable_cores

SYSTEM = Path("/sys/devices/system")
_LARGEST = 1 << 16  # number of a processor that is believed

# linux/mempolicy.h and the numbers of the call; what has no number here cannot place memory.
_MBIND = {"x86_64": 237, "aarch64": 235}
_BIND, _INTERLEAVE, _MOVE = 2, 3, 1 << 1
_MASK_WORDS = 16


@dataclass(frozen=True)
class Processor:
    """One processor."""

    number: int
    core: tuple[int, int]  # package, number within it: equal for siblings
    node: int


def processors(
    allowed: Collection[int] | None = None, system: Path = SYSTEM
) -> tuple[Processor, ...]:
    """Return those that are online and allowed, by default to this process, in ascending order.

    Its control group's set of processors is in what is allowed.  What the kernel does not tell is
    taken for the simplest: a core of its own, node 0.

    >>> len(processors()) == len(os.sched_getaffinity(0))
    True
    """
    allowed = os.sched_getaffinity(0) if allowed is None else allowed
    online = numbers(read(system / "cpu/online")) or set(allowed)
    nodes = {}
    for place in sorted((system / "node").glob("node[0-9]*")):
        for number in numbers(read(place / "cpulist")):
            nodes[number] = int(place.name.removeprefix("node"))
    return tuple(
        Processor(number, _core(system / f"cpu/cpu{number}/topology", number), nodes.get(number, 0))
        for number in sorted(online.intersection(allowed))
    )


def _core(topology: Path, number: int) -> tuple[int, int]:
    package, core = (read(topology / name).strip() for name in ("physical_package_id", "core_id"))
    if not (package.lstrip("-").isdecimal() and core.lstrip("-").isdecimal()):
        return -1, number
    return int(package), int(core)


def numbers(text: str) -> set[int]:
    """Return the numbers in a list as the kernel writes it.

    >>> sorted(numbers("0-2,8\\n")), numbers("")
    ([0, 1, 2, 8], set())
    """
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found.update(range(int(first), min(int(last or first), _LARGEST) + 1))
    return found


def order(of: Iterable[Processor]) -> list[Processor]:
    """Return processors in the order in which they are to be kept busy.

    Physical cores first, from one node after the other, so that few of them have all the memory's
    channels; then their siblings in the same way.

    >>> two = [Processor(n, (n % 4 // 2, n % 2), n % 4 // 2) for n in range(8)]
    >>> [processor.number for processor in order(two)]
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    seen: dict[tuple[int, int], int] = defaultdict(int)
    rounds: dict[int, dict[int, list[Processor]]] = defaultdict(lambda: defaultdict(list))
    for processor in sorted(of, key=lambda p: p.number):
        rounds[seen[processor.core]][processor.node].append(processor)
        seen[processor.core] += 1
    return [
        processor
        for _, by_node in sorted(rounds.items())
        for processor in chain.from_iterable(zip_longest(*map(by_node.get, sorted(by_node))))  # type: ignore[arg-type]
        if processor is not None
    ]


def core_numbers() -> list[int]:
    """Return the numbers of as many processors as may be kept busy, in that order.

    >>> len(core_numbers()) <= usable_cores()
    True
    """
    return [processor.number for processor in order(processors())][: usable_cores()]


def place_memory(address: int, size_bytes: int, nodes: Collection[int]) -> None:
    """Move the pages of a mapping to a node, or spread them over several.

    Only whole pages, and only those that nobody else has touched.  Raises `OSError` where the
    system cannot.
    """
    import ctypes

    call = _MBIND.get(platform.machine())
    if call is None:
        raise OSError(f"memory cannot be placed on {platform.machine()}")
    page = os.sysconf("SC_PAGESIZE")
    first = -(-address // page) * page
    length = (address + size_bytes) // page * page - first
    if length <= 0:
        return
    mask = (ctypes.c_ulong * _MASK_WORDS)()
    bits = 8 * ctypes.sizeof(ctypes.c_ulong)
    for node in nodes:
        mask[node // bits] |= 1 << node % bits
    libc = ctypes.CDLL(None, use_errno=True)
    policy = _BIND if len(nodes) == 1 else _INTERLEAVE
    arguments = (call, first, length, policy)
    if libc.syscall(
        *map(ctypes.c_long, arguments),
        mask,
        ctypes.c_ulong(_MASK_WORDS * bits),
        ctypes.c_uint(_MOVE),
    ):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
