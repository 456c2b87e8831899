"""The twelve symmetry positions: as many spheres as touch one of their size in three dimensions.

Here by itself, so that whoever reads settings needs nothing else of the engine.
"""

from __future__ import annotations

POSITIONS = 12
