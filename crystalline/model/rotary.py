"""Rotary positions (Su et al. 2021): the angle by which a pair of channels turns at every position.

Pair i of a head of D channels turns by p · theta^(-2 i / D) at position p.  A model that was
stretched beyond its first context turns some pairs more slowly (see `RopeScaling`).
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from crystalline.exact.fixed import BigFixed, div, mul
from crystalline.exact.functions import exp, log, pi
from crystalline.exact.rotations import TURN_BITS, rotations
from crystalline.model.config import ModelConfig, RopeScaling

_GUARD_BITS = 64  # beyond those of a turn; the slowest pairs are far below 1

Floats = npt.NDArray[np.float32]


@lru_cache(maxsize=8)
def rotary_table(config: ModelConfig) -> tuple[Floats, Floats]:
    """Return cosines and sines, float32 [T, D / 2], the same bits on every machine.

    The angles are exact to 2^-100 turns or better, and the entries within 1 unit of the last place
    of 1.0f.  yarn multiplies both by its attention factor.

    >>> config = ModelConfig(5, 3, 1, 2, 8, architecture="llama")
    >>> [table.astype(float).round(3).tolist() for table in rotary_table(config)]
    [[[1.0, 1.0], [0.54, 1.0], [-0.416, 1.0]], [[0.0, 0.0], [0.841, 0.01], [0.909, 0.02]]]
    """
    turns = _turns(config.theta, config.head_dim)
    scaling, factor = config.rope_scaling, 1.0
    if scaling is not None:
        slowed = slowing(config.theta, config.head_dim, scaling)
        turns = [round(turn * Fraction(rate)) for turn, rate in zip(turns, slowed, strict=True)]
        factor = attention_factor(scaling)
    table = rotations(turns, config.seq_len) * factor
    cosines, sines = (np.ascontiguousarray(table[..., i], dtype=np.float32) for i in range(2))
    for array in (cosines, sines):
        array.setflags(write=False)
    return cosines, sines


def _turns(theta: float, head_dim: int) -> list[int]:
    """Return theta^(-2 i / D) / 2 pi for each pair, in units of 2^-TURN_BITS turns."""
    bits = TURN_BITS + _GUARD_BITS
    ratio = Fraction(theta)
    base = div(BigFixed(ratio.numerator), BigFixed(ratio.denominator), bits)
    nepers, turn = log(base, bits), pi(bits) * 2
    rates = (
        div(
            exp(div(mul(nepers, BigFixed(-2 * i), bits), BigFixed(head_dim), bits), bits),
            turn,
            bits,
        )
        for i in range(head_dim // 2)
    )
    return [int(rate.mantissa) >> _GUARD_BITS for rate in rates]


def slowing(theta: float, head_dim: int, scaling: RopeScaling) -> list[float]:
    """Return what the angle of each pair is multiplied by.

    llama3 as in Llama 3.1's released code; yarn as in Peng et al. 2023, with whole pairs as the
    ends of its ramp, as transformers and llama.cpp have it.

    >>> scaling = RopeScaling("llama3", 8.0, original_seq_len=64)
    >>> [round(rate, 3) for rate in slowing(10000.0, 8, scaling)]
    [1.0, 0.13, 0.125, 0.125]
    """
    pairs, slow = head_dim // 2, 1.0 / scaling.factor
    if scaling.kind == "linear":
        return [slow] * pairs
    if scaling.kind == "llama3":
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        rates = []
        for i in range(pairs):
            rotated = scaling.original_seq_len * theta ** (-2 * i / head_dim) / (2 * math.pi)
            kept = min(1.0, max(0.0, (rotated - low) / (high - low)))
            rates.append((1.0 - kept) * slow + kept)
        return rates

    def pair_of(rotations: float) -> float:
        ratio = scaling.original_seq_len / (rotations * 2 * math.pi)
        return head_dim * math.log(ratio) / (2 * math.log(theta))

    first = max(math.floor(pair_of(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_of(scaling.beta_slow)), head_dim - 1)
    width = max(last - first, 0.001)
    ramp = [min(1.0, max(0.0, (i - first) / width)) for i in range(pairs)]
    return [share * slow + (1.0 - share) for share in ramp]


def attention_factor(scaling: RopeScaling) -> float:
    """Return what yarn multiplies queries and keys by; 1 for the others."""
    if scaling.kind != "yarn":
        return 1.0
    if scaling.attention_factor:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1.0 else 1.0
