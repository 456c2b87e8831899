import numpy as np
import numpy.typing as npt

from crystalline.model.transformer import Transformer

UNDO_WORDS: int

class SegmentUpdate:
    def __init__(
        self,
        model: Transformer,
        lanes: npt.NDArray[np.float32],
        grads: npt.NDArray[np.float32],
        m: npt.NDArray[np.float32],
        v: npt.NDArray[np.float32],
        undo: npt.NDArray[np.int64],
        progress: npt.NDArray[np.int64],
        *,
        optimizer: str,
        beta1: float,
        beta2: float,
        weight_decay: float,
        epsilon: float = 1e-8,
        group: int = 12,
    ) -> None: ...
    @property
    def model(self) -> Transformer: ...
    @property
    def is_adamw(self) -> bool: ...
    def reduce(self, segment: int) -> float: ...
    def update(self, segment: int, permit: int, step: int, lr: float, clip: float) -> None: ...
    def recover(self, permit: int, segment: int, step: int) -> None: ...
