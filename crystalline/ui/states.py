"""What spheres are said to do: styles of the states, and how many are in which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from crystalline.train.stats import SphereStats
from crystalline.untrusted import one_line

STYLES_OF = {
    "compute": "busy",
    "reduce": "sync",
    "update": "sync",
    "starting": "warn",
    "dead": "bad",
}
BUSY = ("compute", "reduce", "update")
_WORDS = {"compute": "computing", "reduce": "reducing", "update": "updating"}
_SHORT = {
    "compute": "comp", "reduce": "red", "update": "upd", "waiting": "wait", "starting": "start",
}  # fmt: skip
_ORDER = {state: place for place, state in enumerate(("dead", *BUSY, "waiting", "idle"))}


def told(spheres: Sequence[SphereStats], *, short: bool = False) -> str:
    """Return how many are in which state, in words."""
    counts = Counter(s.state for s in spheres)
    states = sorted(counts, key=lambda state: (_ORDER.get(state, len(_ORDER)), state))
    words = _SHORT if short else _WORDS
    return ", ".join(f"{counts[state]} {words.get(state, one_line(state))}" for state in states)
