from typing import Any

import numpy.typing as npt

def aligned_empty(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = ..., alignment: int = 64
) -> npt.NDArray[Any]: ...
