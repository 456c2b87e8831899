import numpy as np
import numpy.typing as npt

def divrem(
    q: npt.NDArray[np.uint64],
    r: npt.NDArray[np.uint64],
    a: npt.NDArray[np.uint64],
    b: npt.NDArray[np.uint64],
) -> None: ...
def rem(
    r: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]
) -> None: ...
