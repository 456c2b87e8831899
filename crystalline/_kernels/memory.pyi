from typing import Any

import numpy as np
import numpy.typing as npt

def aligned_empty(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = ..., alignment: int = 64
) -> npt.NDArray[Any]: ...

TRAFFIC: tuple[str, ...]

def move(
    traffic: str,
    a: npt.NDArray[np.float32],
    b: npt.NDArray[np.float32],
    rounds: int = 1,
) -> None: ...
