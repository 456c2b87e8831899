import numpy as np
import numpy.typing as npt

FEATURES: int

def attention_forward(
    qkv: npt.NDArray[np.float32],
    T: int,
    H: int,
    out: npt.NDArray[np.float32],
    lse: npt.NDArray[np.float32],
    dropout: float = 0.0,
    key: int = 0,
    first_sequence: int = 0,
    features: npt.NDArray[np.float32] | None = None,
    ids: npt.NDArray[np.int32] | None = None,
    lambdas: npt.NDArray[np.float32] | None = None,
    precision: str = "float32",
    kv_heads: int = 0,
    window: int = 0,
) -> None: ...
def attention_backward(
    dout: npt.NDArray[np.float32],
    qkv: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    lse: npt.NDArray[np.float32],
    T: int,
    H: int,
    dqkv: npt.NDArray[np.float32],
    dropout: float = 0.0,
    key: int = 0,
    first_sequence: int = 0,
    features: npt.NDArray[np.float32] | None = None,
    ids: npt.NDArray[np.int32] | None = None,
    lambdas: npt.NDArray[np.float32] | None = None,
    dlambdas: npt.NDArray[np.float32] | None = None,
    precision: str = "float32",
    kv_heads: int = 0,
    window: int = 0,
) -> None: ...
