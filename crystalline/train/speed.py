"""How fast this machine trains a given model, measured on the model itself in about a second.

The answer fits the learning-rate schedule to --minutes; it decides no bits of a step.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np

from crystalline._kernels.attention import FEATURES
from crystalline._kernels.formats import flops_per_second
from crystalline.model.adapters import adapter_table, initialize_adapters
from crystalline.model.config import ModelConfig
from crystalline.model.params import initialize, parameter_table
from crystalline.model.transformer import Transformer
from crystalline.train.config import TrainConfig
from crystalline.train.precision import resolve_precision
from crystalline.train.sizing import FORWARD_SHARE

BYTES_PER_SECOND = 15e9  # of memory, by all cores: what reducing and updating live on
MODEL_SHARE = 0.6  # of the peak, that training small models reaches
LONGEST_BATCH = 4096  # tokens of one measured call


@dataclass(frozen=True)
class Speed:
    """What a machine does with a model."""

    tokens_per_second: float  # forward and backward, all cores
    update_s: float  # reducing the lanes and the optimizer's pass, per step

    def steps_per_second(self, config: TrainConfig, eval_tokens: int) -> float:
        """Return the steps a second of a whole run, its evaluations spread over the steps."""
        step_s = config.tokens_per_step / self.tokens_per_second + self.update_s
        if config.eval_interval:
            step_s += self.evaluation_s(eval_tokens) / config.eval_interval
        return 1.0 / step_s

    def evaluation_s(self, eval_tokens: int) -> float:
        """Return the seconds of one evaluation over so many tokens."""
        return eval_tokens * FORWARD_SHARE / self.tokens_per_second


def measure_peak(cores: int, precision: str) -> float:
    """Return the peak of `cores` cores in a precision, FLOP/s."""
    return cores * flops_per_second(precision)


def measure_speed(
    model: ModelConfig, config: TrainConfig, cores: int, *, seconds: float = 1.0
) -> Speed:
    """Train on random tokens on `cores` threads for about `seconds` (one batch at the least).

    The tables of the crystalline parts are random too: they cost what real ones do.
    """
    table = parameter_table(model)
    weights = np.zeros(table.size, np.float32)
    initialize(model, weights, seed=0)
    adapter, learned = config.adapter, None
    if adapter is not None:
        table = adapter_table(model, adapter)
        learned = np.zeros(table.size, np.float32)
        initialize_adapters(model, adapter, learned, seed=0)
    per_lane = -(-config.sequences_per_step // config.lanes)
    count = max(1, min(per_lane, LONGEST_BATCH // model.seq_len))
    shape = (count, model.seq_len + 1)
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, model.vocab_size, shape, np.int32)
    epsilon, k = config.crystalline_epsilon, config.crystalline_k
    neighbors = draw.integers(0, model.vocab_size, (model.vocab_size, k), np.int32)
    shares = np.full((model.vocab_size, k), 1 / k, np.float32)
    features = draw.standard_normal((model.vocab_size, FEATURES), np.float32)
    workers = max(1, min(cores, config.lanes, config.sequences_per_step))
    precision = resolve_precision(config)
    ready = threading.Barrier(workers)
    rates: list[float] = []

    def work() -> None:
        attends = model.attention == "crystalline"
        mine = Transformer.allocate(
            model, weights, precision=precision, features=features if attends else None,
            adapter=adapter, adapters=learned,
        )  # fmt: skip
        if config.smooths:
            mine.set_neighbors(neighbors, shares)
        grads = np.zeros(table.size, np.float32)
        mine.compute(tokens[:1], grads, scale=1.0, epsilon=epsilon)  # touches the memory
        ready.wait()
        began, batches = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < seconds or not batches:
            mine.compute(tokens, grads, scale=1.0, epsilon=epsilon)
            batches += 1
        rates.append(batches * count * model.seq_len / passed)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lanes = min(config.lanes, config.sequences_per_step)
    # The lanes are read; gradient, both moments, weights and their two packed forms go both ways.
    update_s = 4 * table.size * (lanes + 10) / BYTES_PER_SECOND
    return Speed(sum(rates), update_s)
