"""Which part of the text is held out for evaluation; decided on text, before there are tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from crystalline.data.corpus import Corpus
from crystalline.data.pieces import cut

MIN_DOCUMENTS = 20


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Whole documents, or the end of the text from a character on."""

    documents: npt.NDArray[np.bool_] | None  # (documents,) True where held out
    first_char: int  # where `documents` is None: what is before it trains

    def chars(self, corpus: Corpus, *, val: bool) -> int:
        """Return the characters of one split."""
        if self.documents is not None:
            return int(corpus.doc_chars[self.documents == val].sum())
        rest = int(corpus.doc_chars.sum()) - self.first_char
        return rest if val else self.first_char

    def begins(self, corpus: Corpus, number: int, *, val: bool) -> int:
        """Return the character of a document with which a split's part of it begins."""
        if self.documents is not None or not val:
            return 0
        return max(0, self.first_char - int(corpus.doc_chars[:number].sum()))

    def texts(self, corpus: Corpus, val: bool) -> Iterator[tuple[int, str]]:
        """Read one split: (document number, text), never empty."""
        if self.documents is not None:
            for number, piece in corpus.pieces():
                if self.documents[number] == val:
                    yield number, piece
            return
        # Cut anew: where a word is divided between the splits, the second begins another one.
        for number, parts in groupby(self._parts(corpus, val), key=itemgetter(0)):
            for piece in cut(part for _, part in parts):
                yield number, piece

    def _parts(self, corpus: Corpus, val: bool) -> Iterator[tuple[int, str]]:
        """Read what is before or after `first_char`."""
        at = 0
        for number, piece in corpus.pieces():
            here = min(max(self.first_char - at, 0), len(piece))
            at += len(piece)
            part = piece[here:] if val else piece[:here]
            if part:
                yield number, part
            elif not val:
                return


def hold_out(corpus: Corpus, val_fraction: float) -> HeldOut:
    """Choose about `val_fraction` (0 up to, not including, 1) of the text.

    Where there are at least `MIN_DOCUMENTS` and none is larger than the share asked
    for, whole documents, chosen by a hash of their content until the share is
    reached; equal documents stay together.  Otherwise the end of the text: of n
    characters the first int(n × (1 - val_fraction)) train.
    """
    n_chars = int(corpus.doc_chars.sum())
    if val_fraction == 0:
        return HeldOut(None, n_chars)
    wanted_bytes = val_fraction * corpus.total_bytes
    if corpus.documents >= MIN_DOCUMENTS and corpus.doc_bytes.max() <= wanted_bytes:
        digests = corpus.doc_digests
        order = np.lexsort(digests.T[::-1])
        reached = np.cumsum(corpus.doc_bytes[order])
        count = int(np.searchsorted(reached, wanted_bytes)) + 1
        while count < len(order) and (digests[order[count]] == digests[order[count - 1]]).all():
            count += 1
        if count < len(order):
            chosen = np.zeros(corpus.documents, np.bool_)
            chosen[order[:count]] = True
            return HeldOut(chosen, 0)
    return HeldOut(None, int(n_chars * (1 - val_fraction)))
