"""Where spheres compute and where their memory lies: a processor for each permit, told once.

Whoever has a permit computes on the permit's processor, and where the machine has several nodes the
permit's scratch memory lies on that processor's node, and what all read and write is spread over
the nodes.  Weights are not kept once per node.
"""

from __future__ import annotations

from collections.abc import Iterator

from crystalline.ipc.arena import Arena
from crystalline.log import get_logger
from crystalline.machine.cores import Pin, usable_cores
from crystalline.machine.topology import Processor, order, place_memory, processors

logger = get_logger("train")


def settle_in(arena: Arena, permits: int, pin: Pin) -> tuple[int, ...]:
    """Return the processor of each permit, and place the arena's memory; () pins nobody.

    With "auto" that is done where there are several nodes, unless a quota gives the process less
    than its processors: then others, who know nothing of us, may pin theirs to the same.
    """
    found = order(processors()) if pin != "no" else []
    nodes = sorted({processor.node for processor in found})
    if not found or (pin == "auto" and (len(nodes) == 1 or usable_cores() < len(found))):
        return ()
    mine = [found[permit % len(found)] for permit in range(permits)]
    cores = len({processor.core for processor in mine})
    told = f"{permits} permits on the processors {_listed(mine)}: {cores} cores"
    if len(nodes) > 1:
        told += f" of {len({processor.node for processor in mine})} nodes, {_place(arena, mine)}"
    logger.info("pinned %s", told)
    return tuple(processor.number for processor in mine)


def _place(arena: Arena, mine: list[Processor]) -> str:
    """Place the regions; return what was done."""
    try:
        for address, size_bytes, nodes in _pieces(arena, mine):
            place_memory(address, size_bytes, nodes)
    except OSError as error:
        return f"their memory wherever it is ({error.strerror or error})"
    return "scratch memory on the permit's node, the rest spread over the nodes"


def _pieces(arena: Arena, mine: list[Processor]) -> Iterator[tuple[int, int, list[int]]]:
    """Yield address, size and nodes of what is to be placed."""
    everywhere = sorted({processor.node for processor in mine})
    for region in arena.layout.regions:
        array = arena[region.name]
        if region.spread == "permits" and array.size:
            for row, processor in zip(array, mine, strict=True):
                yield row.ctypes.data, row.nbytes, [processor.node]
        elif region.spread == "nodes" and array.size:
            yield array.ctypes.data, array.nbytes, everywhere


def _listed(of: list[Processor]) -> str:
    return ", ".join(str(processor.number) for processor in of)
