from __future__ import annotations

import numpy as np

from crystalline.ipc.permits import Permits


def test_permits_are_few() -> None:
    words = np.zeros(Permits.words_needed(3), np.int64)
    pool = Permits(words)
    assert pool.count == 3
    assert [pool.acquire(s) for s in (40, 0, 7, 5)] == [0, 1, 2, -1]
    assert pool.holders() == [40, 0, 7]
    assert (pool.held_by(0), pool.held_by(7), pool.held_by(5)) == (1, 2, -1)
    assert pool.free_count() == 0
    pool.release(1)
    assert pool.free_count() == 1
    assert pool.acquire(5) == 1
    assert Permits(words).held_by(5) == 1
