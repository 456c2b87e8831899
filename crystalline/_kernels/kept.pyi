import numpy as np
import numpy.typing as npt

class KeptRows:
    def __init__(self) -> None: ...

def mlp(
    x: npt.NDArray[np.float32],
    w1: npt.NDArray[np.float32],
    b1: npt.NDArray[np.float32],
    w2: npt.NDArray[np.float32],
    precision: str = "float32",
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]: ...
def mlp_gradient(
    dy: npt.NDArray[np.float32],
    w2: npt.NDArray[np.float32],
    pre: npt.NDArray[np.float32],
    precision: str = "float32",
) -> npt.NDArray[np.float32]: ...
