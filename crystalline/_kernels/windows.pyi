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
