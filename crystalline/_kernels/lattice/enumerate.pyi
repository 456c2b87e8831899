from collections.abc import Callable

import numpy as np
import numpy.typing as npt

LARGEST_NORM: int
TOO_FAR: str

def gram(
    rows: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]: ...
def shortest_rounded(
    mu: npt.NDArray[np.float64],
    r: npt.NDArray[np.float64],
    bound: float,
    pruning: npt.NDArray[np.float64] | None = None,
) -> tuple[list[int], float, int] | None: ...

class Enumerator:
    n: int
    worst: float
    mu: npt.NDArray[np.float64]
    r: npt.NDArray[np.float64]
    nodes: int
    def __init__(
        self,
        high: npt.NDArray[np.float64],
        low: npt.NDArray[np.float64],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None: ...
    def shortest(
        self,
        bound: float,
        judge: Callable[[list[int]], float | None] | None = None,
        pruning: npt.NDArray[np.float64] | None = None,
    ) -> tuple[list[int], int] | None: ...
    def project(self, products: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]: ...
    def closest_called(
        self,
        center: npt.NDArray[np.float64],
        error: npt.NDArray[np.float64],
        bound: float,
        judge: Callable[[list[int]], float | None],
        pruning: npt.NDArray[np.float64] | None = None,
    ) -> None: ...
    def closest(
        self,
        targets: npt.NDArray[np.int64],
        coefficients: npt.NDArray[np.int64],
        distances: npt.NDArray[np.uint64],
        pruning: npt.NDArray[np.float64] | None = None,
    ) -> None: ...
