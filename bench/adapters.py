"""What training adapters saves: a lane of a model with all its weights trained, and with adapters.

    python -m bench.adapters [--rank 8] [--rounds 9]

Both compute the same sequences in turns, after it was checked that adapters which add nothing yet
lose what the model does.  Printed are medians in milliseconds, their ratio, and the bytes of
gradients and moments of each.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from crystalline._kernels.formats import is_native, names, trains
from crystalline.model.adapters import AdapterConfig, adapter_table, initialize_adapters
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer

SHAPE = ModelConfig(8192, 256, 8, 8, 512)
SEQUENCES = 2


def measure(precision: str, rank: int, rounds: int) -> str:
    """Return a row of the table."""
    weights = np.zeros(parameter_table(SHAPE).size, np.float32)
    initialize(SHAPE, weights, seed=1)
    adapter = AdapterConfig(rank, 2.0 * rank)
    adapters = np.zeros(adapter_table(SHAPE, adapter).size, np.float32)
    initialize_adapters(SHAPE, adapter, adapters, seed=1)
    whole = Transformer.allocate(SHAPE, weights, precision=precision)
    beside = Transformer.allocate(
        SHAPE, weights, precision=precision, adapter=adapter, adapters=adapters
    )
    generator = np.random.default_rng(1)
    shape = SEQUENCES, SHAPE.seq_len + 1
    tokens = generator.integers(0, SHAPE.vocab_size, shape).astype(np.int32)
    assert np.isclose(whole.evaluate(tokens), beside.evaluate(tokens), rtol=1e-3)
    times: dict[str, list[float]] = {"whole": [], "beside": []}
    grads = {"whole": np.zeros_like(weights), "beside": np.zeros_like(adapters)}
    for _ in range(rounds + 1):
        for name, model in (("whole", whole), ("beside", beside)):
            began = time.perf_counter()
            model.compute(tokens, grads[name], scale=1.0)
            times[name].append(1e3 * (time.perf_counter() - began))
    all_ms, low_ms = (statistics.median(times[name][1:]) for name in ("whole", "beside"))
    sizes = (12 * flat.size / 1e6 for flat in (weights, adapters))
    return (
        f"| {precision} | {all_ms:,.0f} ms | {low_ms:,.0f} ms | {all_ms / low_ms:.2f} | "
        + " | ".join(f"{size:,.1f} MB" for size in sizes)
        + " |"
    )


def main() -> None:
    """Measure every format that trains natively here."""
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m bench.adapters", description=description, epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print("| format | all weights | adapters | ratio | gradients and moments | of adapters |")
    print("|---|---|---|---|---|---|")
    for precision in names():
        if trains(precision) and is_native(precision):
            print(measure(precision, options.rank, options.rounds), flush=True)


if __name__ == "__main__":
    main()
