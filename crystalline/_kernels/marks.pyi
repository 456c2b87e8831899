import numpy as np
import numpy.typing as npt

KINDS: int
HEADER_WORDS: int
RING_WORDS: int
PASSES: tuple[str, ...]

def row_words(ring: int) -> int: ...

class MarkRow:
    def __init__(self, words: npt.NDArray[np.int64], on: npt.NDArray[np.int64]) -> None: ...
    def span(self, begin_ns: int, end_ns: int, kind: int, unit: int) -> None: ...
    def name_unit(self, unit: int) -> None: ...
