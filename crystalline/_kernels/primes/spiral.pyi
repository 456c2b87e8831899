import numpy as np
import numpy.typing as npt

def places(
    n: npt.NDArray[np.uint64], x: npt.NDArray[np.int64], y: npt.NDArray[np.int64]
) -> int: ...
def numbers(
    x: npt.NDArray[np.int64], y: npt.NDArray[np.int64], n: npt.NDArray[np.uint64]
) -> int: ...
def distances(
    a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64], out: npt.NDArray[np.uint64]
) -> int: ...
