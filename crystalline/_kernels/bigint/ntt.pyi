import numpy as np
from numpy.typing import NDArray

def product(
    r: NDArray[np.uint64],
    a: NDArray[np.uint64],
    b: NDArray[np.uint64],
    limbs_per_coefficient: int = 0,
) -> None: ...
def square(r: NDArray[np.uint64], a: NDArray[np.uint64]) -> None: ...
