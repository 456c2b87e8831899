import numpy as np
import numpy.typing as npt

def count(low: int, high: int) -> int: ...
def array(
    low: int, high: int, expected: int, narrow: bool = False
) -> npt.NDArray[np.uint64 | np.uint32]: ...
