"""Where marks are written: rows of words, one for each process that makes some.

    words of a row:  MARK_HEADER  marks ever written, and spare ones
                     [KINDS, 2]   nanoseconds and marks of each kind
                     [ring, 3]    the newest: begin, end (monotonic, ns), unit << 8 | kind

The kinds below `len(PASSES)` are those of a lane; the others are their users'.
"""

from libc.stdint cimport int64_t

KINDS = MARK_KINDS
HEADER_WORDS = MARK_HEADER
RING_WORDS = MARK_WORDS

# What the passes of a lane are called; what they read and write is told in docs/passes.md.
PASSES = (
    "embed", "norms", "q, k, v", "attention", "out", "fc", "activation", "proj", "head and loss",
    "norms backward", "packing", "proj backward", "activation backward", "fc backward",
    "proj gradient", "fc gradient", "out backward", "out gradient", "attention backward",
    "q, k, v backward", "q, k, v gradient", "embed backward",
)
if len(PASSES) != LANE_PASSES:
    raise ImportError("PASSES and the enum Pass differ")


def row_words(int64_t ring):
    """Return the words of a row whose ring has room for so many marks."""
    return MARK_HEADER + 2 * MARK_KINDS + MARK_WORDS * ring


cdef class MarkRow:
    """A door to a row: `words` [row_words(ring)], ring a power of two; `on` [1] for all rows.

    >>> import numpy as np
    >>> on, words = np.ones(1, np.int64), np.zeros(row_words(4), np.int64)
    >>> row = MarkRow(words, on)
    >>> row.span(100, 350, 3, 7); words[0], words[HEADER_WORDS + 2 * 3 :][:2].tolist()
    (np.int64(1), [250, 1])
    """

    def __init__(self, int64_t[::1] words not None, int64_t[::1] on not None):
        cdef int64_t ring = (words.shape[0] - MARK_HEADER - 2 * MARK_KINDS) // MARK_WORDS
        if on.shape[0] < 1 or ring < 1 or ring & (ring - 1) or row_words(ring) != words.shape[0]:
            raise ValueError(f"a row of marks has {words.shape[0]} words")
        self._words, self._on = words, on
        self.marks.on = &on[0]
        self.marks.written = &words[0]
        self.marks.sums = &words[MARK_HEADER]
        self.marks.ring = &words[MARK_HEADER + 2 * MARK_KINDS]
        self.marks.mask = ring - 1
        self.marks.last = self.marks.unit = 0

    def span(self, int64_t begin_ns, int64_t end_ns, int kind, int64_t unit) -> None:
        """Enter a time of a kind."""
        if not 0 <= kind < MARK_KINDS:
            raise ValueError(f"there is no kind {kind}")
        mark_span(&self.marks, begin_ns, end_ns, kind, unit)

    def name_unit(self, int64_t unit) -> None:
        """Say which unit the marks of a lane belong to from now on."""
        self.marks.unit = unit
