import numpy as np
import numpy.typing as npt

def powmod(
    r: npt.NDArray[np.uint64],
    base: npt.NDArray[np.uint64],
    exp: npt.NDArray[np.uint64],
    mod: npt.NDArray[np.uint64],
) -> None: ...
