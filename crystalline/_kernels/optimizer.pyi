import numpy as np
import numpy.typing as npt

def adamw(
    w: npt.NDArray[np.float32],
    m: npt.NDArray[np.float32],
    v: npt.NDArray[np.float32],
    g: npt.NDArray[np.float32],
    *,
    step: int,
    learning_rate: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    clip: float = 1.0,
) -> None: ...
def sgd(
    w: npt.NDArray[np.float32],
    m: npt.NDArray[np.float32],
    g: npt.NDArray[np.float32],
    *,
    learning_rate: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    clip: float = 1.0,
) -> None: ...
def tree_sum(
    lanes: npt.NDArray[np.float32], out: npt.NDArray[np.float32], group: int = 12
) -> float: ...
def sum_squares(x: npt.NDArray[np.float32]) -> float: ...
