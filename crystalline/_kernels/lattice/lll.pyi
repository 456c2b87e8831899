from crystalline._kernels.lattice.basis import IntMatrix

def reduce(
    b: IntMatrix,
    delta: float,
    eta: float,
    u: IntMatrix | None = None,
    deep: bool = False,
    precision: str = "double",
) -> bool: ...
