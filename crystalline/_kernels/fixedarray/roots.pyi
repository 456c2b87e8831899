import numpy as np
import numpy.typing as npt

def sqrt(out: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64], frac_bits: int) -> int: ...
