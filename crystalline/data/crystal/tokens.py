"""Tokens as numbers: a root is a prime, a derived token the product of its root and its affixes.

Affixes get the first primes, most frequent first; then the roots, by their count in the corpus:
with the suffixes -ing and -s, "run" is 5, "running" 2 * 5 and "runs" 3 * 5.  Numbers are exact,
all different and below `LIMIT`.  Where a product would reach the limit or equal the number of
another token (two affixes put on in either order), the token is made a root of its own, and what
derives from it with it; of equals the most frequent keeps the number.

Which token derives from which is found in `affixes`, and found again with what a model has
learned in `discovery`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from crystalline.atomic import write_text
from crystalline.data.crystal import CRYSTAL
from crystalline.data.crystal.affixes import Affix, Derivations, Kind, find_derivations
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import DataError
from crystalline.exact import factor_signature, nth_prime, prime_array
from crystalline.untrusted import BadContent, parse_json, shown
from crystalline.untrusted.files import CRYSTAL as CRYSTAL_FILE

VERSION = 1  # raise it when the same tokenizer and counts would give another crystal
LIMIT = 1 << 62  # of numbers: their places on Ulam's spiral have distances below 2^32
GROUPS = 12

_FORMAT = "crystalline vocabulary"
_COLUMNS = ["text", "count", "number", "parent", "affix"]
MOST_FACTORS = 64  # of a number below 2^62
MOST_GENERATIONS = 10**9
_ADVICE = "Remove it, and it is made again from the text; or copy the folder again."

_Int32 = npt.NDArray[np.int32]
_Int64 = npt.NDArray[np.int64]
_Uint64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Crystal:
    """The numbers of a vocabulary of V tokens, and the morphology behind them; never changed.

    >>> found = Derivations(
    ...     parent=np.array([0, 0, 0], np.int32),
    ...     affix=np.array([-1, 0, 1], np.int32),
    ...     affixes=(Affix("ing", "suffix"), Affix("s", "suffix")),
    ... )
    >>> crystal = Crystal.of(("run", "running", "runs"), np.array([9, 5, 2]), found)
    >>> crystal.numbers, crystal.factors(1), crystal.derived(0)
    (array([ 5, 10, 15], dtype=uint64), (2, 5), [1, 2])
    """

    texts: tuple[str | None, ...]  # [V], None where a token is not text
    counts: _Int64  # [V] occurrences in the training split
    parent: _Int32  # [V] the token that it derives from directly; its own id for roots
    root: _Int32  # [V] the end of the chain of parents
    affix: _Int32  # [V] what it has and its parent has not, an index; -1 for roots
    affixes: tuple[Affix, ...]  # [A]
    affix_primes: _Uint64  # [A]
    numbers: _Uint64  # [V]
    generation: int  # 0 as first built, 1 more at every remap

    def __post_init__(self) -> None:
        for array in (self.counts, self.parent, self.root, self.affix):
            array.flags.writeable = False
        self.affix_primes.flags.writeable = False
        self.numbers.flags.writeable = False

    @classmethod
    def of(
        cls,
        texts: Sequence[str | None],
        counts: npt.NDArray[Any],
        derivations: Derivations,
        *,
        generation: int = 0,
    ) -> Crystal:
        """Return the crystal of a morphology: the primes are chosen here.

        Affixes that make no token of their own get no prime and are left out.  Raises
        `ValueError` for arrays of different lengths and for parents that go in a circle.
        """
        counts = np.array(counts, np.int64)
        parent, affix = derivations.parent.copy(), derivations.affix.copy()
        if not len(texts) == len(counts) == len(parent) == len(affix):
            raise ValueError(
                f"{len(texts)} texts, {len(counts)} counts, {len(parent)} parents and "
                f"{len(affix)} affixes are not of one vocabulary"
            )
        used, primes, numbers = _number(parent, affix, counts)
        renumbered = np.full(len(derivations.affixes) + 1, -1, np.int32)  # the last is for -1
        renumbered[used] = np.arange(used.size)
        return cls(
            texts=tuple(texts),
            counts=counts,
            parent=parent,
            root=_chains(parent)[0],
            affix=renumbered[affix],
            affixes=tuple(derivations.affixes[index] for index in used.tolist()),
            affix_primes=primes,
            numbers=numbers,
            generation=generation,
        )

    @property
    def vocab_size(self) -> int:
        """V: tokens are 0 to V - 1."""
        return len(self.texts)

    def is_root(self, token: int) -> bool:
        """Return whether a token derives from no other; its number is a prime."""
        return int(self.parent[token]) == token

    def group(self, token: int) -> int:
        """Return the symmetry group of a token, 0 to 11: its id modulo 12."""
        return token % GROUPS

    def affixes_of(self, token: int) -> list[int]:
        """Return the affixes of a token, as indices, in the order in which its root took them."""
        found = []
        while not self.is_root(token):
            found.append(int(self.affix[token]))
            token = int(self.parent[token])
        return found[::-1]

    def factors(self, token: int) -> tuple[int, ...]:
        """Return the prime factors of a token's number with multiplicity, ascending."""
        primes = [int(self.affix_primes[index]) for index in self.affixes_of(token)]
        return tuple(sorted([*primes, int(self.numbers[self.root[token]])]))

    def signature(self, token: int) -> tuple[int, ...]:
        """Return the exponents in the factorization of a token's number, in descending order."""
        return factor_signature(int(self.numbers[token]))

    def derived(self, token: int) -> list[int]:
        """Return the tokens that derive from this one directly, most frequent first."""
        parents, tokens = self._children
        first, last = np.searchsorted(parents, [token, token + 1])
        return [int(other) for other in tokens[first:last]]

    def family(self, token: int) -> list[int]:
        """Return all tokens of the same root: the root, then the others, most frequent first."""
        roots, tokens = self._families
        root = int(self.root[token])
        first, last = np.searchsorted(roots, [root, root + 1])
        return [int(other) for other in tokens[first:last]]

    def find(self, text: str) -> int | None:
        """Return the token of a text (the first, if there are several), or None."""
        return self._ids.get(text)

    @cached_property
    def _children(self) -> tuple[_Int32, _Int64]:
        """Parents in ascending order, and what derives from each, most frequent first."""
        tokens = np.flatnonzero(self.affix >= 0)
        tokens = tokens[np.lexsort((tokens, -self.counts[tokens], self.parent[tokens]))]
        return self.parent[tokens], tokens

    @cached_property
    def _families(self) -> tuple[_Int32, _Int64]:
        """Roots in ascending order, and the tokens of each."""
        tokens = np.arange(self.vocab_size)
        tokens = tokens[np.lexsort((tokens, -self.counts, self.affix >= 0, self.root))]
        return self.root[tokens], tokens

    @cached_property
    def _ids(self) -> dict[str, int]:
        backwards = reversed(list(enumerate(self.texts)))
        return {text: token for token, text in backwards if text is not None}

    # --- at rest --------------------------------------------------------------------------------

    @cached_property
    def sha256(self) -> str:
        """The hash of the content: equal crystals have equal ones, also after a reload."""
        return hashlib.sha256(self._body.encode()).hexdigest()

    @cached_property
    def _body(self) -> str:
        """The content as JSON, a token a line, without the braces around it."""
        primes = self.affix_primes.tolist()
        columns = (self.counts, self.numbers, self.parent, self.affix)
        affixes = [[a.kind, a.text, p] for a, p in zip(self.affixes, primes, strict=True)]
        tokens = [
            list(row)
            for row in zip(self.texts, *(column.tolist() for column in columns), strict=True)
        ]
        return (
            f'"generation": {self.generation},\n'
            f'"affixes": {_lines(affixes)},\n'
            f'"columns": {json.dumps(_COLUMNS)},\n'
            f'"tokens": {_lines(tokens)}'
        )

    def to_json(self) -> str:
        """Return the content of `crystal.json`."""
        head = f'"format": "{_FORMAT}",\n"version": {VERSION},\n"sha256": "{self.sha256}"'
        return f"{{\n{head},\n{self._body}\n}}\n"

    @classmethod
    def from_json(cls, text: str, name: str | os.PathLike[str] = CRYSTAL) -> Crystal:
        """Return the crystal that `to_json` wrote; `name` is for messages.

        Raises `DataError` when it is damaged or of another version.
        """
        try:
            document = parse_json(text)
        except BadContent as error:
            raise DataError(f"{name} is damaged ({error})", advice=_ADVICE) from None
        if not isinstance(document, dict) or document.get("format") != _FORMAT:
            raise DataError(f"{name} is no {CRYSTAL}", advice=_ADVICE)
        version = document.get("version")
        if version != VERSION:
            raise DataError(
                f"{name} has version {shown(repr(version), 40)}; this program reads {VERSION}",
                advice=_ADVICE,
            )
        try:
            crystal = cls._read(document)
            sha256 = crystal.sha256
        except (KeyError, ValueError, TypeError, OverflowError, IndexError, RecursionError):
            raise DataError(
                f"{name} is damaged (a value is missing or impossible)", advice=_ADVICE
            ) from None
        if sha256 != document.get("sha256"):
            raise DataError(f"{name} is damaged (its checksum is wrong)", advice=_ADVICE)
        return crystal

    @classmethod
    def _read(cls, document: dict[str, Any]) -> Crystal:
        """Build from JSON's values; what is wrong with them raises, or changes the checksum."""
        texts, counts, numbers, parent, affix = (
            zip(*document["tokens"], strict=True) if document["tokens"] else ((),) * 5
        )
        kinds, affix_texts, primes = (
            zip(*document["affixes"], strict=True) if document["affixes"] else ((),) * 3
        )
        parents = np.array(parent, np.int32)
        crystal = cls(
            texts=tuple(_text(text) for text in texts),
            counts=np.array(counts, np.int64),
            parent=parents,
            root=_chains(parents, MOST_FACTORS)[0],
            affix=np.array(affix, np.int32),
            affixes=tuple(Affix(text, kind) for text, kind in zip(affix_texts, kinds, strict=True)),
            affix_primes=np.array(primes, np.uint64),
            numbers=np.array(numbers, np.uint64),
            generation=document["generation"],
        )
        crystal._require_arithmetic()
        return crystal

    def _require_arithmetic(self) -> None:
        """Raise `ValueError` where the numbers do not follow from the table of derivations."""
        if not isinstance(self.generation, int) or not 0 <= self.generation <= MOST_GENERATIONS:
            raise ValueError("the generation is out of range")
        if any(affix.kind not in get_args(Kind) for affix in self.affixes):
            raise ValueError("an affix is of an unknown kind")
        derived = self.parent != np.arange(self.vocab_size)
        if not np.array_equal(derived, self.affix >= 0) or (self.affix < -1).any():
            raise ValueError("a root has an affix, or what derives from one has none")
        if self.counts.min(initial=0) < 0 or self.numbers.min(initial=1) < 1:
            raise ValueError("a count or a number is out of range")
        base = self.numbers[self.parent[derived]]
        by = self.affix_primes[self.affix[derived]]
        if self.numbers.max(initial=1) >= LIMIT or (by < 2).any():
            raise ValueError("a number is out of range")
        # Below LIMIT the quotient is exact where the product is what it should be.
        if (self.numbers[derived] % by).any() or (self.numbers[derived] // by != base).any():
            raise ValueError("a number is not the product of its factors")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `crystal.json` atomically.  Raises `OSError`."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Crystal:
        """Read a `crystal.json`.

        Raises `DataError` when it is missing, damaged or of another version.
        """
        try:
            text = CRYSTAL_FILE.read_bytes(path).decode("utf-8")
        except OSError as error:
            raise DataError(
                f"the vocabulary's numbers {path} cannot be read ({error.strerror})",
                advice="Check its permissions." if isinstance(error, PermissionError) else _ADVICE,
            ) from None
        except UnicodeDecodeError:
            raise DataError(f"{path} is damaged (not UTF-8)", advice=_ADVICE) from None
        return cls.from_json(text, path)


def build_crystal(tokenizer: Tokenizer, counts: npt.NDArray[np.int64]) -> Crystal:
    """Return the crystal of a tokenizer's vocabulary.

    `counts` holds how often each token occurs in the training split, int64[V].  The same
    vocabulary and counts give the same crystal on any machine.  Counts beyond the vocabulary are
    of padding, which is no text and never occurs.  Raises `ValueError` for counts of another
    vocabulary.

    >>> tokenizer = Tokenizer.train("char", ["ab"], 0)
    >>> build_crystal(tokenizer, np.array([3, 7])).numbers
    array([3, 2], dtype=uint64)
    """
    texts = token_texts(tokenizer)
    is_padded = len(counts) > len(texts) and not counts[len(texts) :].any()
    texts += [None] * (len(counts) - len(texts) if is_padded else 0)
    if counts.shape != (len(texts),):
        raise ValueError(f"counts of shape {counts.shape} are not of {len(texts)} tokens")
    counts = np.array(counts, np.int64)
    return Crystal.of(texts, counts, find_derivations(texts, counts))


def token_texts(tokenizer: Tokenizer) -> list[str | None]:
    """Return the text of every token; None for special tokens and for parts of characters.

    >>> token_texts(Tokenizer.train("byte", [], 0))[97:257:53]
    ['a', None, None, None]
    """
    added = tokenizer.inner.get_added_tokens_decoder()
    special = {token for token, entry in added.items() if entry.special}
    texts: list[str | None] = []
    for token in range(tokenizer.vocab_size):
        try:
            text = tokenizer.token_bytes(token).decode()
        except UnicodeDecodeError:  # a part of a character
            text = ""
        texts.append(text if text and token not in special else None)
    return texts


# --- numbers ----------------------------------------------------------------------------------


def _number(
    parent: _Int32, affix: _Int32, counts: _Int64
) -> tuple[npt.NDArray[np.intp], _Uint64, _Uint64]:
    """Return (the affixes in use, their primes, the number of every token).

    Tokens that cannot have the product as their number are made roots in `parent` and `affix`.
    That moves the primes of other roots, so all of it is done again until nothing is cut; as a
    cut is never taken back, that ends.
    """
    while True:
        _, depth = _chains(parent)
        roots = np.flatnonzero(depth == 0)
        roots = roots[np.lexsort((roots, -counts[roots]))]
        used = np.unique(affix[affix >= 0]).astype(np.intp)
        primes = _first_primes(used.size + roots.size)
        affix_prime = np.ones(int(used.max(initial=-1)) + 1, np.uint64)
        affix_prime[used] = primes[: used.size]
        numbers = np.zeros(parent.size, np.uint64)
        numbers[roots] = primes[used.size :]
        cut = [
            _multiply(np.flatnonzero(depth == level), parent, affix, counts, affix_prime, numbers)
            for level in range(1, int(depth.max(initial=0)) + 1)
        ]
        tokens = np.concatenate([np.empty(0, np.intp), *cut])
        if not tokens.size:
            return used, primes[: used.size].copy(), numbers
        parent[tokens], affix[tokens] = tokens, -1


def _multiply(
    tokens: npt.NDArray[np.intp],
    parent: _Int32,
    affix: _Int32,
    counts: _Int64,
    affix_prime: _Uint64,
    numbers: _Uint64,
) -> npt.NDArray[np.intp]:
    """Write the numbers of one level of derivation; return the tokens that cannot have theirs.

    They, and later what derives from them, keep the number 0.  Equal products have equally many
    factors, so that tokens of other levels need not be looked at.
    """
    base, by = numbers[parent[tokens]], affix_prime[affix[tokens]]
    fits = base <= np.uint64(LIMIT - 1) // by
    too_large = tokens[~fits]
    tokens, products = tokens[fits], (base * by)[fits]
    order = np.lexsort((tokens, -counts[tokens], products))
    tokens, products = tokens[order], products[order]
    twin = np.zeros(tokens.size, np.bool_)
    twin[1:] = (products[1:] == products[:-1]) & (products[1:] > 0)
    numbers[tokens[~twin]] = products[~twin]
    return np.concatenate([too_large, tokens[twin]])


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("a token's text is no text")
    return value


def _chains(parent: _Int32, most: int | None = None) -> tuple[_Int32, _Int32]:
    """Return the root of every token, and how many steps away it is, `most` if that is given.

    Raises `ValueError` for a circle, for a longer way and for a parent that is no token.
    """
    most = parent.size if most is None else min(most, parent.size)
    if parent.size and not 0 <= parent.min() <= parent.max() < parent.size:
        raise ValueError(f"a parent is not one of the {parent.size} tokens")
    root = np.arange(parent.size, dtype=np.int32)
    depth = np.zeros(parent.size, np.int32)
    while True:
        above = parent[root]
        moved = above != root
        if not moved.any():
            return root, depth
        root = above
        depth += moved
        if depth.max() >= most:
            raise ValueError("the parents of some tokens go in a circle")


def _first_primes(n: int) -> _Uint64:
    return prime_array(nth_prime(n) + 1) if n else np.empty(0, np.uint64)


def _lines(rows: list[list[Any]]) -> str:
    """Return a list of lists as JSON, one of them a line."""
    if not rows:
        return "[]"
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]"
