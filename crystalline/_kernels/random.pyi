import numpy as np
import numpy.typing as npt

def derive_key(*words: int) -> int: ...
def dropout(
    x: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    probability: float,
    key: int,
    first: int = 0,
) -> None: ...
