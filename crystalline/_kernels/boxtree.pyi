import numpy as np
import numpy.typing as npt

def candidates(
    points: npt.NDArray[np.float64],
    cell_of: npt.NDArray[np.int64],
    cell_first: npt.NDArray[np.int64],
    cell_points: npt.NDArray[np.int64],
    lo: npt.NDArray[np.float64],
    hi: npt.NDArray[np.float64],
    first: npt.NDArray[np.int64],
    last: npt.NDArray[np.int64],
    child: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float64],
    query_cells: npt.NDArray[np.int64],
    slack: npt.NDArray[np.float64],
    least: npt.NDArray[np.float64],
    found: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
) -> None: ...
