"""An arena in the memory of this process alone, for programs that run without an engine."""

from __future__ import annotations

import numpy as np

from crystalline._kernels.memory import aligned_empty
from crystalline.ipc.arena import Arena, Layout, Region


def lone_arena(regions: list[Region]) -> Arena:
    """Return an arena of zeros, aligned as shared memory is."""
    arena = object.__new__(Arena)
    arena.layout = Layout(regions)
    arena._views = {}
    for region in arena.layout.regions:
        view = aligned_empty(region.shape, np.dtype(region.dtype))
        view[...] = 0
        arena._views[region.name] = view
    return arena
