import numpy as np
import numpy.typing as npt

def multiply(
    a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64], times: int = 1
) -> npt.NDArray[np.uint64]: ...
def square(a: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]: ...
