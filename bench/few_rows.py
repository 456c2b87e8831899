"""Products with few rows, those of decoding: how fast weights come from memory, by format and rows.

    python bench/few_rows.py                          # every format, on one core and on all
    python bench/few_rows.py --formats int4 --rows 1 4
    python bench/few_rows.py --crossover              # where few_rows.h gets its numbers

Shapes are those of GPT-2 124M, and every product walks over so many layers' weights that no cache
holds them.  Each is first checked against float64.  A figure is bytes of packed weights per second,
and its share of what the same threads read: reading (`move` in "read") and multiplying take turns,
and the median of the ratios counts, as others may use the machine.  For 512 rows it is FLOP/s
instead.  Threads share out the columns.

The crossover is the largest number of rows up to which the kernel for few rows is not slower than
the other one; both are tried for 1 to 33 rows, whatever few_rows.h says.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from crystalline._kernels import formats, isa, matmul
from crystalline._kernels.memory import aligned_empty, move
from crystalline.machine.cores import usable_cores

F32 = npt.NDArray[np.float32]
SHAPES = [(768, 2304), (768, 768), (768, 3072), (3072, 768), (768, 50304)]
ROWS = (1, 2, 4, 8, 16)
MANY = 512
SET_BYTES = 384 << 20  # of weights that a product walks over
READ_BYTES = 128 << 20  # of a thread
PANEL = 32
TOLERANCE = {"float32": 1e-5, "bf16": 1e-2, "int8": 3e-2, "int8g32": 3e-2, "int4": 0.2}
CROSSOVERS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 33)


class Threads:
    """The same call on each of some threads at once, with their number.

    Returns the seconds of processor time of the thread that needed most: on a machine that has
    nothing else to do these are those of the clock, on others they leave out other programs' turns.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, work: Callable[[int], None]) -> float:
        taken = [0.0] * self.count

        def timed(part: int) -> None:
            start = time.thread_time()
            work(part)
            taken[part] = time.thread_time() - start

        threads = [threading.Thread(target=timed, args=(i,)) for i in range(1, self.count)]
        for thread in threads:
            thread.start()
        timed(0)
        for thread in threads:
            thread.join()
        return max(taken)


class Weights:
    """Copies of a packed matrix [K, N], as many as fill SET_BYTES."""

    def __init__(self, K: int, N: int, precision: str, rng: np.random.Generator) -> None:
        self.K, self.N, self.precision = K, N, precision
        self.b: F32 = rng.standard_normal((K, N), dtype=np.float32)
        size = matmul.packed_size(K, N, precision)
        self.packed: F32 = aligned_empty((max(2, SET_BYTES // (4 * size)), size))
        matmul.pack_matrix(self.b, self.packed[0], precision=precision)
        self.packed[1:] = self.packed[0]

    def product(self, M: int, rng: np.random.Generator, few: int = -1) -> _Product:
        return _Product(self, M, rng, few)


class _Product:
    def __init__(self, w: Weights, M: int, rng: np.random.Generator, few: int) -> None:
        a = rng.standard_normal((M, w.K), dtype=np.float32)
        self._left: F32 = aligned_empty(matmul.operand_shape(M, w.K, w.precision))
        matmul.to_operand(a, self._left, w.precision)
        self._out: F32 = aligned_empty((M, w.N))
        self._w, self._few = w, few
        self.once(1)(0)
        columns = slice(0, min(w.N, 4096))
        want = a.astype(np.float64) @ w.b[:, columns]
        off = np.sqrt(((self._out[:, columns] - want) ** 2).mean() / (want**2).mean())
        if not off <= TOLERANCE[w.precision]:
            raise AssertionError(
                f"{w.precision} {M} x {w.K} x {w.N} is off by {off:.2g} of its size"
            )

    def _run(self, layers: slice, part: int, parts: int) -> None:
        w, panels = self._w, -(-self._w.N // PANEL)
        share = range(panels * part // parts, panels * (part + 1) // parts)
        matmul.matmul_each(
            self._left, w.packed[layers], self._out, w.precision, w.K, share, self._few
        )

    def all(self, threads: int) -> Callable[[int], None]:
        return lambda part: self._run(slice(None), part, threads)

    def once(self, threads: int) -> Callable[[int], None]:
        return lambda part: self._run(slice(0, 1), part, threads)


def read_call(threads: int) -> tuple[Callable[[int], None], int]:
    """Return what reads from memory, and how many bytes all threads together do."""
    arrays = [np.ones(READ_BYTES // 4 + 16, np.float32) for _ in range(threads)]
    starts = [-(x.ctypes.data // 4) % 16 for x in arrays]
    views = [x[s : s + READ_BYTES // 4] for x, s in zip(arrays, starts, strict=True)]
    return lambda part: move("read", views[part], views[part]), READ_BYTES * threads


def measure_rates(w: Weights, M: int, threads: int, repeats: int) -> tuple[float, float]:
    """Return bytes/s of weights and the share of reading; for MANY rows FLOP/s and 0."""
    rng = np.random.default_rng(1)
    product, run = w.product(M, rng), Threads(threads)
    if M >= MANY:
        seconds = min(run(product.once(threads)) for _ in range(repeats + 2))
        return 2.0 * M * w.K * w.N / seconds, 0.0
    reading, read_bytes = read_call(threads)
    rates, shares = [], []
    for _ in range(repeats):
        read = read_bytes / run(reading)
        rates.append(w.packed.nbytes / run(product.all(threads)))
        shares.append(rates[-1] / ((read + read_bytes / run(reading)) / 2))
    return median(rates), median(shares)


def crossover(precision: str, repeats: int) -> int:
    """Return the largest number of rows up to which the kernel for few rows is not slower."""
    w, best = Weights(768, 2304, precision, np.random.default_rng(0)), 0
    w.packed = w.packed[: max(2, (64 << 20) // w.packed[0].nbytes)]
    for M in CROSSOVERS:
        times = []
        for few in (M, 0):
            product = w.product(M, np.random.default_rng(1), few)
            times.append(min(Threads(1)(product.all(1)) for _ in range(repeats)))
        print(f"  {precision} {M:3} rows: {times[1] / times[0]:.2f}", flush=True)
        if times[0] <= 1.02 * times[1]:
            best = M
    return best


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python bench/few_rows.py", description=description, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    known = [name for name in formats.names() if name in TOLERANCE]
    parser.add_argument("--formats", nargs="+", choices=known, default=known, metavar="NAME")
    parser.add_argument("--rows", nargs="+", type=int, default=[*ROWS, MANY], metavar="M")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, usable_cores()}))
    parser.add_argument("--shapes", nargs="+", type=int, default=range(len(SHAPES)), metavar="I",
                        help="which of the shapes, from 0")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    parser.add_argument("--crossover", action="store_true", help="compare the kernels instead")
    options = parser.parse_args(arguments)
    print(f"level {isa.level()}")
    for name in options.formats:
        if options.crossover:
            print(f"{name}: up to {crossover(name, options.repeats)} rows", flush=True)
            continue
        for K, N in (SHAPES[i] for i in options.shapes):
            w = Weights(K, N, name, np.random.default_rng(0))
            for threads in options.threads:
                cells = []
                for M in options.rows:
                    rate, share = measure_rates(w, M, threads, options.repeats)
                    unit = "GFLOP/s" if M >= MANY else f"GB/s {share:4.0%}"
                    cells.append(f"{M:4}: {rate / 1e9:6,.1f} {unit}")
                print(f"{name:8} {K:5} x {N:5}  {threads} threads  {'  '.join(cells)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
