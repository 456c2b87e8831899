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
        chunk: int = 0,
        features: npt.NDArray[np.float32] | None = None,
    ) -> None: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def slots(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    def extend(
        self, slots: Sequence[int], tokens: Sequence[Sequence[int] | npt.NDArray[np.int32]]
    ) -> npt.NDArray[np.float32]: ...
    def length(self, slot: int = 0) -> int: ...
    def truncate(self, slot: int, length: int) -> None: ...
    def reorder(self, sources: Sequence[int]) -> None: ...
    def score(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]: ...
