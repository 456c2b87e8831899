import numpy as np
import numpy.typing as npt

def add(
    out: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]
) -> int: ...
def subtract(
    out: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]
) -> int: ...
def multiply_add(
    out: npt.NDArray[np.uint64],
    a: npt.NDArray[np.uint64],
    b: npt.NDArray[np.uint64],
    c: npt.NDArray[np.uint64] | None,
    frac_bits: int,
) -> int: ...
def dot(
    out: npt.NDArray[np.uint64],
    a: npt.NDArray[np.uint64],
    b: npt.NDArray[np.uint64],
    frac_bits: int,
) -> bool: ...
def matmul(
    out: npt.NDArray[np.uint64],
    a: npt.NDArray[np.uint64],
    b: npt.NDArray[np.uint64],
    frac_bits: int,
) -> int: ...
def sum_rows(out: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64]) -> int: ...
def absolute(out: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64]) -> int: ...
def compare(
    out: npt.NDArray[np.int8], a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]
) -> None: ...
def extreme(a: npt.NDArray[np.uint64], sign: int) -> int: ...
def merge(
    out: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    a: npt.NDArray[np.uint64],
    run: int,
) -> None: ...
def rescale(out: npt.NDArray[np.uint64], a: npt.NDArray[np.uint64], shift: int) -> int: ...
