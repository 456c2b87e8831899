import numpy as np
import numpy.typing as npt

def packed_size(K: int, N: int) -> int: ...
def pack_matrix(
    b: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    column_sums: npt.NDArray[np.float32] | None = None,
) -> None: ...
def pack_transposed(b: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None: ...
def matmul(
    a: npt.NDArray[np.float32],
    packed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32] | None = None,
    residual: npt.NDArray[np.float32] | None = None,
    accumulate: bool = False,
) -> None: ...
def matmul_transposed(
    a: npt.NDArray[np.float32],
    packed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    accumulate: bool = False,
) -> None: ...
