import numpy as np
import numpy.typing as npt

def packed_size(K: int, N: int, precision: str = "float32") -> int: ...
def operand_shape(M: int, K: int, precision: str = "float32") -> tuple[int, int]: ...
def pack_matrix(
    b: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    column_sums: npt.NDArray[np.float32] | None = None,
    precision: str = "float32",
) -> None: ...
def pack_transposed(
    b: npt.NDArray[np.float32], out: npt.NDArray[np.float32], precision: str = "float32"
) -> None: ...
def to_operand(
    x: npt.NDArray[np.float32], out: npt.NDArray[np.float32], precision: str
) -> None: ...
def turned_shape(M: int, K: int, precision: str) -> tuple[int, int]: ...
def turn_operand(
    x: npt.NDArray[np.float32], M: int, K: int, out: npt.NDArray[np.float32], precision: str
) -> None: ...
def matmul(
    a: npt.NDArray[np.float32],
    packed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32] | None = None,
    residual: npt.NDArray[np.float32] | None = None,
    accumulate: bool = False,
    precision: str = "float32",
    inner: int | None = None,
    panels: range | None = None,
) -> None: ...
def matmul_each(
    a: npt.NDArray[np.float32],
    packed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    precision: str,
    inner: int,
    panels: range,
    few_rows: int = -1,
) -> None: ...
def matmul_transposed(
    a: npt.NDArray[np.float32],
    packed: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    accumulate: bool = False,
    precision: str = "float32",
    inner: int | None = None,
) -> None: ...
