import numpy as np
import numpy.typing as npt

def gcd(g: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> int: ...
def gcdext(
    g: npt.NDArray[np.uint64],
    s: npt.NDArray[np.uint64],
    t: npt.NDArray[np.uint64],
    a: npt.NDArray[np.uint64],
    b: npt.NDArray[np.uint64],
) -> tuple[int, int, int]: ...
def invert(
    r: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64], m: npt.NDArray[np.uint64]
) -> None: ...
def jacobi(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> int: ...
