import numpy as np
import numpy.typing as npt

def token_similarities(
    points: npt.NDArray[np.float64],
    numbers: npt.NDArray[np.uint64],
    parent: npt.NDArray[np.int64],
    depth: npt.NDArray[np.int64],
    a: npt.NDArray[np.int64],
    b: npt.NDArray[np.int64],
    lattice: float,
    prime: float,
    morphology: float,
    out: npt.NDArray[np.float64],
) -> None: ...
def phase_alignments(
    phases: npt.NDArray[np.float64],
    a: npt.NDArray[np.int64],
    b: npt.NDArray[np.int64],
    out: npt.NDArray[np.float64],
) -> None: ...
