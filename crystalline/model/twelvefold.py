"""The twelve-fold position table: a clock of twelve hours beside rotations by the golden angle.

It is where learned positions may begin (`initialize` in `params`): a pure function of the shape,
the same on every machine.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from crystalline.exact import BigFixed, exp, golden_turn, log, mul
from crystalline.exact.rotations import TURN_BITS, rotations

HOURS = 12
HARMONICS = 5  # of the clock: the sixth has no sine

_GUARD_BITS = 32
_SINE_60 = math.sqrt(0.75)
_COSINES = np.array([1, _SINE_60, 0.5, 0, -0.5, -_SINE_60, -1, -_SINE_60, -0.5, 0, 0.5, _SINE_60])


def twelvefold_positions(seq_len: int, embed_dim: int) -> npt.NDArray[np.float32]:
    """Return the table float32[T, C] of T positions and C channels; its rms is 1.

    Channels 2q and 2q + 1 of position i are √2 (cos a, sin a).  Of the first ten pairs the even
    ones are the clock, all others the golden angle:

    * q = 0, 2, 4, 6, 8: the clock's harmonic k = 1, ..., 5, a = k · 2π (i mod 12) / 12, which knows
      i modulo 12 only.  More of them would repeat what these say.
    * The g-th of the G other pairs, g = 0, ..., G - 1: a rotation, a = i · γ / T^(g / (G - 1)) with
      the golden angle γ = 2π / φ².  The rates are spread geometrically from γ down to γ / T, with
      which the whole context is less than half a turn; none ever comes back to where it was, since
      no power of φ is rational.

    Every pair has the same length in every row.  Of an odd C the last channel is a cosine alone,
    brought to rms 1.  The angles are exact to 2^-128 turns and the entries within 1 unit of the
    last place of 1.0f.

    >>> table = twelvefold_positions(24, 8)
    >>> bool((table[:12, [0, 1, 4, 5]] == table[12:, [0, 1, 4, 5]]).all())
    True
    >>> float((table**2).mean().round(6))
    1.0
    """
    if seq_len < 1 or embed_dim < 1:
        raise ValueError(f"a table of {seq_len} positions and {embed_dim} channels is empty")
    pairs = (embed_dim + 1) // 2
    table = np.empty((seq_len, pairs, 2))
    clock = range(0, min(pairs, 2 * HARMONICS), 2)
    golden = [q for q in range(pairs) if q not in clock]
    for harmonic, q in enumerate(clock, start=1):
        hours = harmonic * np.arange(seq_len)
        table[:, q, 0] = _COSINES[hours % HOURS]
        table[:, q, 1] = _COSINES[(hours - HOURS // 4) % HOURS]
    table[:, golden] = rotations(_golden_rates(seq_len, len(golden)), seq_len)
    flat = table.reshape(seq_len, 2 * pairs)[:, :embed_dim]
    scale = np.full(embed_dim, math.sqrt(2))
    if embed_dim % 2:
        scale[-1] = math.sqrt(seq_len / math.fsum(x * x for x in flat[:, -1].tolist()))
    result: npt.NDArray[np.float64] = flat * scale
    return result.astype(np.float32)


def _golden_rates(seq_len: int, count: int) -> list[int]:
    """Return γ / T^(g / (count - 1)) for g = 0, ..., count - 1, in the units of `rotations`."""
    bits = TURN_BITS + _GUARD_BITS
    golden = BigFixed.from_mantissa(golden_turn(1, bits), bits)
    nepers = log(BigFixed(seq_len), bits)
    rates = (mul(golden, exp(nepers * -g / max(count - 1, 1), bits), bits) for g in range(count))
    return [int(rate.mantissa) >> _GUARD_BITS for rate in rates]
