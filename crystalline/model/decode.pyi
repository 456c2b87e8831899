from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crystalline.model.config import ModelConfig

class Decoder:
    def __init__(
        self,
        config: ModelConfig,
        weights: npt.NDArray[np.float32],
        *,
        slots: int = 1,
        features: npt.NDArray[np.float32] | None = None,
    ) -> None: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def slots(self) -> int: ...
    def length(self, slot: int = 0) -> int: ...
    def prefill(
        self, tokens: Sequence[int] | npt.NDArray[np.int32], slot: int = 0
    ) -> npt.NDArray[np.float32]: ...
    def step(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]: ...
    def reorder(self, sources: Sequence[int]) -> None: ...
    def score(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]: ...
