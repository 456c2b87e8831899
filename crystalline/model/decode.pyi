from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from crystalline.model.config import ModelConfig
from crystalline.model.params import Parameter

CHUNK_ROWS: int
CACHE_FORMATS: tuple[str, ...]

class Decoder:
    def __init__(
        self,
        config: ModelConfig,
        weights: npt.NDArray[np.float32] | Callable[[Parameter], npt.NDArray[np.float32]],
        *,
        slots: int = 1,
        precision: str = "float32",
        cache: str = "bf16",
        threads: int = 0,
        features: npt.NDArray[np.float32] | None = None,
    ) -> None: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def precision(self) -> str: ...
    @property
    def cache(self) -> str: ...
    @property
    def slots(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    @property
    def threads(self) -> int: ...
    def close(self) -> None: ...
    def length(self, slot: int = 0) -> int: ...
    def truncate(self, slot: int, length: int) -> None: ...
    def extend(
        self,
        slots: Iterable[int],
        tokens: Sequence[Sequence[int] | npt.NDArray[np.int32]],
    ) -> npt.NDArray[np.float32]: ...
    def score(self, tokens: Sequence[int] | npt.NDArray[np.int32]) -> npt.NDArray[np.float64]: ...
    def reorder(self, sources: Iterable[int]) -> None: ...
