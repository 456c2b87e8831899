import numpy as np
import numpy.typing as npt

def cross_entropy(
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int32],
    scale: float = 1.0,
    backward: bool = True,
) -> float: ...
def crystalline_cross_entropy(
    logits: npt.NDArray[np.float32],
    targets: npt.NDArray[np.int32],
    neighbor_ids: npt.NDArray[np.int32],
    neighbor_weights: npt.NDArray[np.float32],
    epsilon: float,
    scale: float = 1.0,
    backward: bool = True,
) -> tuple[float, float]: ...
