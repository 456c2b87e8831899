import numpy as np
import numpy.typing as npt

from crystalline._kernels.team import Team

BLOCK: int

class Cache:
    T: int
    G: int
    D: int
    precision: str
    def __init__(self, T: int, G: int, D: int, precision: str = "bf16") -> None: ...
    @property
    def size_bytes(self) -> int: ...
    def append(
        self, k: npt.NDArray[np.float32], v: npt.NDArray[np.float32], first: int
    ) -> None: ...
    def attend(
        self,
        q: npt.NDArray[np.float32],
        first: int,
        *,
        window: int = 0,
        similar: npt.NDArray[np.float32] | None = None,
        lambdas: npt.NDArray[np.float32] | None = None,
        spans: int = 1,
        team: Team | None = None,
    ) -> npt.NDArray[np.float32]: ...
    def copy_from(self, source: Cache, length: int) -> None: ...
