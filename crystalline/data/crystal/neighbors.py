"""The most similar tokens of every token: what the crystalline loss spreads its targets over.

Two similarities: "primes" compares the tokens' numbers,

    S(a, b) = 0.7 gcd(a, b) / max(a, b) + 0.3 / (1 + d(a, b))

with d the Euclidean distance of the numbers' places on Ulam's spiral; "morphology" takes the
tokens of the same root only, and of these the most frequent.  Tables are exact, the same whatever
the number of threads, the machine and its instruction set, and can be kept in a folder beside the
tokenizer.  The numbers themselves are made in `tokens`; the loss is `_kernels.crossentropy`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from crystalline._kernels import neighbors as kernel
from crystalline.atomic import atomic_write
from crystalline.data.crystal.tokens import Crystal
from crystalline.exact import gcd_similarity, spiral_distances_squared, spiral_places
from crystalline.log import get_logger
from crystalline.machine.cores import usable_cores
from crystalline.untrusted import read_bytes

Similarity = Literal["primes", "morphology"]
Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, and rows of the table done and in all."""

FORMAT = 1  # raise it when the same crystal would give another table
ROWS = 512  # of the table that one thread fills before it takes others
STAGE = "Finding neighbors"

_log = get_logger("data")


class NeighborTable(NamedTuple):
    """The k neighbors of each of V tokens, and their shares of a target.

    A row of weights sums to 1, or is all 0 where a token has no neighbors.  Where it has fewer
    than k, the rest has the weight 0 and the id of some other token.  A token is never among its
    own neighbors, except in a vocabulary of one.
    """

    ids: npt.NDArray[np.int32]  # [V, k]
    weights: npt.NDArray[np.float32]  # [V, k], the largest first


def neighbor_table(
    crystal: Crystal,
    k: int,
    *,
    similarity: Similarity = "primes",
    progress: Progress | None = None,
    threads: int | None = None,
) -> NeighborTable:
    """Return the k most similar tokens of every token, weighted in proportion to similarity.

    With "primes" of equal ones the lower id comes first, and a vocabulary of V <= k tokens has
    V - 1 neighbors each.  With "morphology" the weights are in proportion to the counts in the
    corpus, at least 1 each.  `progress` is called in the calling thread, with "primes" often.
    `threads` is by default as many as this process may keep busy; the table does not depend on
    it.  Raises `ValueError` for k below 1 and a similarity of another name.

    >>> from crystalline.data.crystal.affixes import Affix, Derivations
    >>> found = Derivations(
    ...     parent=np.array([0, 0, 0, 3], np.int32),
    ...     affix=np.array([-1, 0, 1, -1], np.int32),
    ...     affixes=(Affix("ing", "suffix"), Affix("s", "suffix")),
    ... )
    >>> crystal = Crystal.of(("run", "running", "runs", "the"), np.array([9, 6, 2, 99]), found)
    >>> crystal.numbers
    array([ 7, 14, 21,  5], dtype=uint64)
    >>> table = neighbor_table(crystal, 2)
    >>> table.ids.tolist(), table.weights[0].round(2)
    ([[1, 2], [0, 2], [0, 1], [0, 1]], array([0.54, 0.46], dtype=float32))
    >>> neighbor_table(crystal, 2, similarity="morphology").weights.round(2)[1:]
    array([[0.82, 0.18],
           [0.6 , 0.4 ],
           [0.  , 0.  ]], dtype=float32)
    """
    if k < 1:
        raise ValueError(f"k is {k}: at least one neighbor is needed")
    if similarity == "primes":
        ids, scores = _by_primes(crystal, k, progress, threads)
    elif similarity == "morphology":
        ids, scores = _by_morphology(crystal, k)
    else:
        raise ValueError(f"the similarity is {similarity!r}, not 'primes' or 'morphology'")
    total = scores.sum(axis=1, keepdims=True)
    weights = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
    return NeighborTable(ids, weights.astype(np.float32))


def similarities(a: Any, b: Any) -> npt.NDArray[np.float64]:
    """Return S(a, b) for arrays of numbers from 1 to 2^62 - 1, broadcast against each other.

    The bits are those by which "primes" ranks.  Equal numbers have S = 1.

    >>> similarities([5, 10, 7], 10).round(3)
    array([0.415, 1.   , 0.145])
    """
    distance = np.sqrt(spiral_distances_squared(a, b).astype(np.float64))
    closeness: npt.NDArray[np.float64] = kernel.DISTANCE_SHARE / (1.0 + distance)
    return kernel.GCD_SHARE * gcd_similarity(a, b) + closeness


def _by_primes(
    crystal: Crystal, k: int, progress: Progress | None, threads: int | None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    V = crystal.vocab_size
    width = min(k, V - 1)
    if width < 1:
        return _empty(V, k)
    rests = crystal.numbers // crystal.numbers[crystal.root]
    places = spiral_places(crystal.numbers).astype(np.float64)
    members = np.argsort(crystal.root, kind="stable").astype(np.int32)
    families = crystal.root[members]
    first, last = (
        np.searchsorted(families, crystal.root, side).astype(np.int32) for side in ("left", "right")
    )
    ids, scores = np.empty((V, width), np.int32), np.empty((V, width))
    x, y = np.ascontiguousarray(places[:, 0]), np.ascontiguousarray(places[:, 1])

    def work(low: int) -> int:
        high = min(low + ROWS, V)
        kernel.fill(
            *(crystal.numbers, rests, x, y, crystal.root, members, first, last),
            *(low, high, ids, scores),
        )
        return high - low

    done = 0
    with ThreadPoolExecutor(threads or usable_cores(), "neighbors") as pool:
        jobs = [pool.submit(work, low) for low in range(0, V, ROWS)]
        try:
            for job in as_completed(jobs):
                done += job.result()
                if progress is not None:
                    progress(STAGE, done, V)
        finally:  # an interrupt need not wait for all of them
            pool.shutdown(cancel_futures=True)
    if width == k:
        return ids, scores
    wide_ids, wide_scores = _empty(V, k)
    wide_ids[:, :width], wide_scores[:, :width] = ids, scores
    return wide_ids, wide_scores


def _by_morphology(
    crystal: Crystal, k: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    V = crystal.vocab_size
    ids, scores = _empty(V, k)
    counts = np.maximum(crystal.counts, 1)
    order = np.lexsort((np.arange(V), -counts, crystal.root))
    starts = np.flatnonzero(np.diff(crystal.root[order], prepend=-1))
    for family in np.split(order, starts[1:]):
        for token in family if family.size > 1 else ():
            chosen = family[: k + 1]
            chosen = chosen[chosen != token][:k]
            ids[token, : chosen.size] = chosen
            scores[token, : chosen.size] = counts[chosen]
    return ids, scores


def _empty(V: int, k: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return a table of no neighbors: every id is that of another token."""
    ids = np.zeros((V, k), np.int32)
    ids[:1] = min(1, V - 1)
    return ids, np.zeros((V, k))


# --- kept beside the tokenizer ----------------------------------------------------------------


def load_or_build(
    folder: str | os.PathLike[str],
    crystal: Crystal,
    k: int,
    similarity: Similarity = "primes",
    *,
    progress: Progress | None = None,
) -> NeighborTable:
    """Return `neighbor_table(crystal, k)`, read from `folder` where it is kept there already.

    The folder holds one file for each crystal, k and similarity, written atomically, so that any
    number of processes may ask at once.  A file that is damaged is written again; one that cannot
    be written is reported, and the table is made anew the next time.
    """
    document = {
        "format": FORMAT,
        "crystal": crystal.sha256,
        "k": k,
        "similarity": similarity,
        "vocab_size": crystal.vocab_size,
    }
    head = json.dumps(document, sort_keys=True).encode() + b"\n"
    key = hashlib.sha256(head).hexdigest()[:32]
    path = Path(folder, f"neighbors-{key}.bin")
    table = _read(path, head, (crystal.vocab_size, k))
    if table is not None:
        return table
    table = neighbor_table(crystal, k, similarity=similarity, progress=progress)
    body = table.ids.astype("<i4").tobytes() + table.weights.astype("<f4").tobytes()
    try:
        with atomic_write(path) as file:
            file.write(head)
            file.write(hashlib.sha256(head + body).digest())
            file.write(body)
    except OSError as error:
        _log.warning("The table of neighbors will be made again next time: %s", error)
    return table


def _read(path: Path, head: bytes, shape: tuple[int, int]) -> NeighborTable | None:
    """Return the table of a file: a line of JSON, the SHA-256 of the rest, ids, weights."""
    start = len(head) + hashlib.sha256().digest_size
    size = 4 * shape[0] * shape[1]
    try:
        data = read_bytes(path, start + 2 * size)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("The table of neighbors %s is made again: %s", path, error.strerror)
        return None
    body = data[start:]
    checksum = hashlib.sha256(head + body).digest()
    if data[:start] != head + checksum or len(body) != 2 * size:
        _log.warning("The table of neighbors %s is damaged and is made again", path)
        return None
    ids = np.frombuffer(body, "<i4", count=shape[0] * shape[1]).astype(np.int32)
    weights = np.frombuffer(body, "<f4", offset=size).astype(np.float32)
    ids_fit = not ids.size or 0 <= ids.min() <= ids.max() < shape[0]
    if not ids_fit or not np.isfinite(weights).all() or weights.min(initial=0.0) < 0:
        _log.warning("The table of neighbors %s is impossible and is made again", path)
        return None
    return NeighborTable(ids.reshape(shape), weights.reshape(shape))
