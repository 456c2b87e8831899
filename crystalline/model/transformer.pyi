import numpy as np
import numpy.typing as npt

from crystalline._kernels.marks import MarkRow
from crystalline.model.adapters import AdapterConfig
from crystalline.model.config import ModelConfig

CHUNK_ROWS: int

class Transformer:
    def __init__(
        self,
        config: ModelConfig,
        weights: npt.NDArray[np.float32],
        packed: npt.NDArray[np.float32],
        workspace: npt.NDArray[np.uint8],
        *,
        precision: str = "float32",
        rows: int | None = None,
        features: npt.NDArray[np.float32] | None = None,
        adapter: AdapterConfig | None = None,
        adapters: npt.NDArray[np.float32] | None = None,
        recompute: bool = False,
    ) -> None: ...
    freeze_lambda: bool
    @property
    def precision(self) -> str: ...
    @property
    def adapter(self) -> AdapterConfig | None: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def smoothed_loss(self) -> float: ...
    @property
    def segment_count(self) -> int: ...
    @staticmethod
    def packed_size(
        config: ModelConfig, precision: str = "float32", adapter: AdapterConfig | None = None
    ) -> int: ...
    @staticmethod
    def workspace_size(
        config: ModelConfig,
        precision: str = "float32",
        rows: int | None = None,
        adapter: AdapterConfig | None = None,
        recompute: bool = False,
    ) -> int: ...
    @staticmethod
    def side_size(config: ModelConfig, rows: int | None = None) -> int: ...
    @staticmethod
    def side_rows(config: ModelConfig) -> int: ...
    @staticmethod
    def allocate(
        config: ModelConfig,
        weights: npt.NDArray[np.float32],
        *,
        precision: str = "float32",
        features: npt.NDArray[np.float32] | None = None,
        adapter: AdapterConfig | None = None,
        adapters: npt.NDArray[np.float32] | None = None,
        recompute: bool = False,
    ) -> Transformer: ...
    def record(self, row: MarkRow) -> None: ...
    def pack(self) -> None: ...
    def pack_frozen(self) -> None: ...
    def pack_segment(self, index: int) -> None: ...
    def set_neighbors(
        self, ids: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]
    ) -> None: ...
    def compute(
        self,
        tokens: npt.NDArray[np.int32],
        grads: npt.NDArray[np.float32],
        *,
        scale: float,
        accumulate: bool = False,
        seed: int = 0,
        step: int = 0,
        first_sequence: int = 0,
        side: npt.NDArray[np.float32] | None = None,
        epsilon: float = 0.0,
        targets: npt.NDArray[np.int32] | None = None,
    ) -> float: ...
    def evaluate(
        self, tokens: npt.NDArray[np.int32], targets: npt.NDArray[np.int32] | None = None
    ) -> float: ...
    def logits(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]: ...
