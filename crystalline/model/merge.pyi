import numpy as np
import numpy.typing as npt

class Merges:
    def __init__(
        self,
        buffers: npt.NDArray[np.float32],
        undo: npt.NDArray[np.int64],
        progress: npt.NDArray[np.int64],
    ) -> None: ...
    def merge(
        self, number: int, left: int, right: int, start: int, stop: int, permit: int, step: int
    ) -> None: ...
    def recover(
        self, number: int, left: int, start: int, stop: int, permit: int, step: int
    ) -> None: ...
