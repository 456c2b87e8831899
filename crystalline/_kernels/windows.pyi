import numpy as np
import numpy.typing as npt

def draw_starts(
    out: npt.NDArray[np.int64],
    n_windows: int,
    slack: int,
    seq_len: int,
    seed: int,
    first: int,
    stride: int = 1,
) -> None: ...
def copy_windows(
    tokens: npt.NDArray[np.uint16] | npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    out: npt.NDArray[np.int32],
) -> None: ...
