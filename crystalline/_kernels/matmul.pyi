import numpy as np
import numpy.typing as npt

def packed_size(K: int, N: int, bf16: bool = False) -> int: ...
def pack_matrix(
    b: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    column_sums: npt.NDArray[np.float32] | None = None,
    bf16: bool = False,
) -> None: ...
def pack_transposed(
    b: npt.NDArray[np.float32], out: npt.NDArray[np.float32], bf16: bool = False
) -> None: ...
def to_pairs(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None: ...
def pair_rows(x: npt.NDArray[np.float32], K: int, out: npt.NDArray[np.float32]) -> None: ...
def matmul(
    a: npt.NDArray[np.float32],
    packed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32] | None = None,
    residual: npt.NDArray[np.float32] | None = None,
    accumulate: bool = False,
    bf16_columns: int = 0,
) -> None: ...
def matmul_transposed(
    a: npt.NDArray[np.float32],
    packed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    accumulate: bool = False,
    bf16_rows: int = 0,
) -> None: ...
