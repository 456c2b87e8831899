import numpy as np
import numpy.typing as npt

def from_doubles(
    out: npt.NDArray[np.uint64], x: npt.NDArray[np.float64], frac_bits: int
) -> int: ...
def to_doubles(out: npt.NDArray[np.float64], a: npt.NDArray[np.uint64], frac_bits: int) -> int: ...
