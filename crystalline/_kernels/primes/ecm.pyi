from typing import Final

import numpy as np
import numpy.typing as npt

MOST_BITS: Final[int]

def curve(
    n: int, x: int, s: int, primes: npt.NDArray[np.uint64], bound: int
) -> tuple[int, int]: ...
