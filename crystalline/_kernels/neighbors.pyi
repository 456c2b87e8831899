import numpy as np
import numpy.typing as npt

GCD_SHARE: float
DISTANCE_SHARE: float

def fill(
    numbers: npt.NDArray[np.uint64],
    rests: npt.NDArray[np.uint64],
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    roots: npt.NDArray[np.int32],
    members: npt.NDArray[np.int32],
    first: npt.NDArray[np.int32],
    last: npt.NDArray[np.int32],
    low: int,
    high: int,
    ids: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float64],
) -> None: ...
