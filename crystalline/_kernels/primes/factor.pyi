import numpy as np
import numpy.typing as npt

def factor(n: int) -> list[tuple[int, int]]: ...
def factor_array(
    n: npt.NDArray[np.uint64],
    primes: npt.NDArray[np.uint64],
    exponents: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.uint8],
) -> int: ...
def signatures(n: npt.NDArray[np.uint64], out: npt.NDArray[np.uint8]) -> int: ...
