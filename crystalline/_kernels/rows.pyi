import numpy as np
import numpy.typing as npt

def layernorm_forward(
    x: npt.NDArray[np.float32],
    gamma: npt.NDArray[np.float32],
    beta: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    rstd: npt.NDArray[np.float32],
    epsilon: float = 1e-5,
) -> None: ...
def layernorm_backward(
    dy: npt.NDArray[np.float32],
    x: npt.NDArray[np.float32],
    gamma: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    rstd: npt.NDArray[np.float32],
    dx: npt.NDArray[np.float32],
    dgamma: npt.NDArray[np.float32],
    dbeta: npt.NDArray[np.float32],
    accumulate: bool = False,
) -> None: ...
def gelu_forward(x: npt.NDArray[np.float32], out: npt.NDArray[np.float32]) -> None: ...
def gelu_backward(
    x: npt.NDArray[np.float32], dy: npt.NDArray[np.float32], dx: npt.NDArray[np.float32]
) -> None: ...
def add(
    a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], out: npt.NDArray[np.float32]
) -> None: ...
def embed_gather(
    ids: npt.NDArray[np.int32],
    wte: npt.NDArray[np.float32],
    wpe: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    T: int,
) -> None: ...
def embed_scatter_add(
    ids: npt.NDArray[np.int32],
    dx: npt.NDArray[np.float32],
    dwte: npt.NDArray[np.float32],
    dwpe: npt.NDArray[np.float32],
    T: int,
) -> None: ...
