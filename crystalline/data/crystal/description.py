"""The shortest description of a list of words in which words may derive from one another.

The list is described word by word, each word either as a *root* or as *derived*, and the
forest of derivations is chosen that makes the description short (minimum description
length: Rissanen 1978; for morphology Goldsmith 2001, "Unsupervised learning of the
morphology of a natural language", Computational Linguistics 27; Creutz and Lagus 2007,
"Unsupervised models for morpheme segmentation", ACM TSLP 4).  Only orthography and counts
are looked at; no language is built in.  The code lengths, in bits, of n words, D derived:

* **Root or derived**: -log2((n - D) / n) or -log2(D / n).
* **A root is spelled out** letter by letter with its end: -log2 of a letter after the two
  before it, from the other roots, each context smoothed with as many pseudo-counts as
  there are letters, spread like the next shorter context (MacKay and Peto 1995, "A
  hierarchical Dirichlet language model").  It costs what is left of the spelling when one
  knows the roots, so what looks like an ending is dear to spell out.
* **A derived word names its parent**: -log2((c + w b) / (D + w)), where c is the number of
  the parent's other derived words (a root with several affixes is the likelier root of one
  more), w = n / 2 and b the share of derived words whose parents have this count level,
  divided among the words of the level.  A level is log2 of the count, rounded down.
* **and its affix and change at the seam**: the pair (affix, change) from its uses after
  the parent's last letter, backed off to the uses of the affix, then of the change given
  the affix, then of the change, then to spelling them out; every step is Pitman's Chinese
  restaurant (Goldwater, Griffiths and Johnson 2006), so an affix is dear once and cheap
  when it is productive.  Every letter of the parent that is dropped costs `DROP_BITS`.
* **The count levels**, of a root from the shares of the levels among all words, of a
  derived word from the levels seen with its parent's: a derived word is rarely the more
  frequent one (Schone and Jurafsky 2001; Baroni, Matiasek and Trost 2002 on what else
  tells true pairs from chance).  Whether a word is mostly capitalized is coded alike.
* **Closeness**, where embeddings are given, is added to the gain: log2 of how much likelier
  a pair's cosine is among accepted than among random pairs, both taken as normal with the
  median and the median deviation of the sample, never falling where the cosine rises.

All shares leave the word itself out (what the code would be if it came last), so that
nothing is explained by itself.  A derivation is worth its *gain*: the bits of the word as a
root less those as derived.  The shares follow from the forest and the forest from the
gains: both are found in turn, each time by taking the pairs in the order of their gains,
without cycles.  The first rounds accept a loss that falls to nothing (annealing), or no
affix could ever become productive; in the end every derivation saves bits.

Three kinds of pairs are not considered: parents whose letters carry less than
`LEAST_ROOT_BITS`, words `MUCH_MORE` frequent than their parents, and words that are neither
longer nor rarer than they.  More than one letter of the parent is dropped only for words
that no other parent is found for, and that are rarer (amazing from amazed, where there is
no "amaze").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from crystalline.data.crystal.candidates import Candidates, Indices, find_candidates

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Closeness = Callable[[Indices, Indices], npt.NDArray[np.floating]]

DROP_BITS = 2.0
# A phase admits more changes at the seam than the one before, and begins with a loss, given as a
# share of log2(n) bits: none; one letter dropped, replaced or doubled; more letters.
PHASES = (0.6, 0.6, 1.2)
ANNEALING, ROUNDS = 6, 12  # rounds of a phase: with a loss, at most
LEAST_ROOT_BITS = 6.0  # that the letters of a root carry: one Latin letter is none
MUCH_MORE = 16  # no derived word is so many times as frequent as its parent
LEVELS = 24
_REACH = 24.0  # bits: the most that closeness can say
_RANDOM_PAIRS = 1 << 14
_LEAST_DEVIATION = 0.05
_CHANGE_WEIGHT = 4.0
_LETTER_WEIGHT = 20.0  # pseudo-counts of the step from all letters to the parent's last
_LEVEL_WEIGHT = 10.0
_CASE_WEIGHT = 2.0


def derive(
    words: Sequence[str],
    counts: npt.NDArray[np.int64],
    proper: Bools,
    closeness: Closeness | None = None,
) -> tuple[Indices, Candidates]:
    """Return the candidate that derives each word, int64[n] (-1: a root), and all candidates.

    `words` are distinct and not empty, `counts` (int64[n]) their occurrences, `proper`
    (bool[n]) tells which of them are mostly capitalized.  `closeness` gives the cosines
    of pairs of words, by index.
    """
    candidates = find_candidates(words)
    chosen = np.full(len(words), -1, np.int64)
    if not len(candidates.child):
        return chosen, candidates
    description = _Description(words, counts, proper, candidates)
    child, parent = candidates.child, candidates.parent
    seam = np.array([max(len(drop), bool(add)) for drop, add in candidates.changes])
    seam = seam[candidates.change]
    lengths = np.array([len(word) for word in words])
    telling = lengths[parent] * description.spelling.letter_bits >= LEAST_ROOT_BITS
    rarer = telling & (counts[child] <= counts[parent])
    rare = telling & (counts[child] < MUCH_MORE * counts[parent])
    regular = rarer | rare & (lengths[child] > lengths[parent])
    for phase, share in enumerate(PHASES):
        usable = regular & (seam <= phase)
        if phase == 2:  # these only where nothing else is found
            usable = regular & (seam <= 1) | rarer & (chosen < 0)[child]
        chosen = _settle(description.gains, description, chosen, usable, share)
    gains = description.gains
    if closeness is not None:
        near = np.flatnonzero(usable & (description.gains(chosen) > -_REACH))
        evidence = _Evidence(closeness, near, candidates, len(words))

        def gains(chosen: Indices) -> Floats:
            return description.gains(chosen) + evidence.bits(chosen)

        chosen = _settle(gains, description, chosen, usable, 0.0)
    return _pruned(gains, chosen), candidates


def _settle(
    gains: Callable[[Indices], Floats],
    description: _Description,
    chosen: Indices,
    usable: Bools,
    share: float,
) -> Indices:
    """Return the forest where choice and shares agree, or that of the last round."""
    loss = share * np.log2(description.n)
    for number in range(ROUNDS):
        before = chosen
        allowed = max(0.0, loss * (1 - number / ANNEALING))
        chosen = description.choose(np.where(usable, gains(chosen), -np.inf), allowed)
        if allowed == 0 and (before == chosen).all():
            break
    return chosen


def _pruned(gains: Callable[[Indices], Floats], chosen: Indices) -> Indices:
    """Return a forest without the derivations that save nothing in it."""
    while True:
        useless = (chosen >= 0) & (gains(chosen)[chosen] <= 0)
        if not useless.any():
            return chosen
        chosen = np.where(useless, -1, chosen)


class _Description:
    """The code of one list of words; what varies is which candidates are chosen."""

    def __init__(
        self,
        words: Sequence[str],
        counts: npt.NDArray[np.int64],
        proper: Bools,
        candidates: Candidates,
    ) -> None:
        n = len(words)
        self.n = n
        self.candidates = candidates
        self.spelling = spelling = _Spelling(words)
        self.level = np.minimum(np.log2(np.maximum(counts, 1)).astype(np.int64), LEVELS - 1)
        self.proper = proper.astype(np.int64)
        last = np.array([spelling.code[word[-1]] for word in words], np.int64)
        self.letter = last[candidates.parent]
        changes = candidates.changes
        self.dropped = np.array([len(drop) for drop, _ in changes])[candidates.change]
        self.pair, self.n_pairs = _number(candidates.affix * len(changes) + candidates.change)
        self.whole, self.n_whole = _number(self.letter * self.n_pairs + self.pair)
        self.affix_base = np.array([spelling.once(text) for _, text in candidates.affixes])
        self.change_base = np.array([self._change_base(*change) for change in changes])

    def _change_base(self, drop: str, add: str) -> float:
        """Return the probability of a change before any is known: none 1/2, doubling 1/4."""
        if not drop:
            return 1 / 4 if add else 1 / 2
        return self.spelling.once(add) / 2.0 ** (2 + len(drop))

    def gains(self, chosen: Indices) -> Floats:
        """Return the bits that each candidate would save beside the other `chosen` ones, [E]."""
        c = self.candidates
        derived = chosen >= 0
        edges = chosen[derived]
        mine = chosen[c.child]
        has = mine >= 0

        def uses(of: Indices, size: int) -> Floats:
            """Count the other words whose candidates share of[e] with candidate e."""
            own = has & (of == of[mine])
            count: Floats = np.bincount(of[edges], minlength=size)[of].astype(np.float64) - own
            return count

        others = (len(edges) - has).astype(np.float64)
        affix_uses = uses(c.affix, len(c.affixes))
        affix = (affix_uses + self.affix_base[c.affix]) / (others + 1)
        change = (uses(c.change, len(c.changes)) + _CHANGE_WEIGHT * self.change_base[c.change]) / (
            others + _CHANGE_WEIGHT
        )
        change = (uses(self.pair, self.n_pairs) + change) / (affix_uses + 1)
        whole = (uses(self.whole, self.n_whole) + _LETTER_WEIGHT * affix * change) / (
            uses(self.letter, self.spelling.size) + _LETTER_WEIGHT
        )

        level, own = self.level[c.parent], self.level[c.child]
        words_of = np.bincount(self.level, minlength=LEVELS)
        level_uses = uses(level, LEVELS)
        among = (level_uses / words_of[level] + _LEVEL_WEIGHT / self.n) / (others + _LEVEL_WEIGHT)
        parent = (uses(c.parent, self.n) + self.n / 2 * among) / (others + self.n / 2)

        root_level = ((words_of + 1) / (self.n + LEVELS))[own]
        level_step = (uses(own - level + LEVELS, 2 * LEVELS) + _LEVEL_WEIGHT * root_level) / (
            others + _LEVEL_WEIGHT
        )
        level_pair = (uses(level * LEVELS + own, LEVELS * LEVELS) + _LEVEL_WEIGHT * level_step) / (
            level_uses + _LEVEL_WEIGHT
        )

        case, own_case = self.proper[c.parent], self.proper[c.child]
        root_case = ((np.bincount(self.proper, minlength=2) + 1) / (self.n + 2))[own_case]
        case_pair = (uses(2 * case + own_case, 4) + _CASE_WEIGHT * root_case) / (
            uses(case, 2) + _CASE_WEIGHT
        )

        flag = (others + 1) / (self.n - others)
        spelled = self.spelling.bits(~derived)[c.child]
        likelier = flag * parent * whole * (level_pair / root_level) * (case_pair / root_case)
        # Rounded, so that the last bit of a logarithm does not decide between equals.
        gains: Floats = np.round(spelled + np.log2(likelier) - DROP_BITS * self.dropped, 6)
        return gains

    def choose(self, gains: Floats, loss: float) -> Indices:
        """Return for each word the candidate that derives it, [n]: best first, no cycles."""
        c = self.candidates
        good = np.flatnonzero(gains > -loss)
        good = good[np.argsort(-gains[good], kind="stable")]
        chosen = np.full(self.n, -1, np.int64)
        above = [-1] * self.n
        children, parents = c.child[good].tolist(), c.parent[good].tolist()
        for edge, child, parent in zip(good.tolist(), children, parents, strict=True):
            if above[child] < 0:
                place = parent
                while place not in (-1, child):
                    place = above[place]
                if place < 0:
                    above[child] = parent
                    chosen[child] = edge
        return chosen


class _Spelling:
    """What it costs to spell out words: every letter after the two before it."""

    def __init__(self, words: Sequence[str]) -> None:
        letters = sorted(set("".join(words)))
        self.code = {letter: place for place, letter in enumerate(letters, 1)}
        self.size = len(letters) + 1  # 0: the end of a word
        self.n = len(words)
        lengths = np.array([len(word) + 1 for word in words], np.int64)
        self.word = np.repeat(np.arange(self.n), lengths)
        flat = [code for word in words for code in (0, 0, *map(self.code.__getitem__, word), 0)]
        at = np.arange(len(self.word)) + 2 * (self.word + 1)
        text = np.array(flat, np.int64)
        letter, last, before = text[at], text[at - 1], text[at - 2]
        self.orders = [  # (what is spelled with what is before it, only what is before it)
            (self._grams(letter), self._grams(np.zeros_like(letter))),
            (self._grams(last * self.size + letter), self._grams(last)),
            (
                self._grams((before * self.size + last) * self.size + letter),
                self._grams(before * self.size + last),
            ),
        ]
        uses = np.bincount(letter, minlength=self.size) + 1.0
        self._share = uses / uses.sum()
        letters_share = self._share[1:] / self._share[1:].sum()
        self.letter_bits = float(-(letters_share * np.log2(letters_share)).sum())

    def once(self, text: str) -> float:
        """Return the probability of a text that stands alone; half of what is left ends it."""
        letters = [self._share[self.code[letter]] / 2 for letter in text]
        return float(np.prod([0.5, *letters]))

    def bits(self, known: Bools) -> Floats:
        """Return the bits of each word [n] where the words marked in `known` [n] are known."""
        seen = known[self.word].astype(np.float64)
        shares = np.full(len(self.word), 1 / self.size)
        for order in self.orders:
            uses, total = (np.bincount(of, seen, size)[of] - seen * own for of, size, own in order)
            shares = (uses + self.size * shares) / (total + self.size)
        bits: Floats = np.bincount(self.word, -np.log2(shares), self.n).astype(np.float64)
        return bits

    def _grams(self, keys: Indices) -> tuple[Indices, int, Indices]:
        """Number the keys: the numbers, how many there are, how often each is in its word."""
        of, size = _number(keys)
        in_word, _ = _number(self.word * size + of)
        return of, size, np.bincount(in_word)[in_word]


class _Evidence:
    """What cosines tell: how much likelier they are between word and root than at random."""

    def __init__(self, closeness: Closeness, near: Indices, c: Candidates, n: int) -> None:
        self._near = near
        self._n_candidates = len(c.child)
        self._cosines = np.asarray(closeness(c.child[near], c.parent[near]), np.float64)
        generator = np.random.default_rng(0)
        first = generator.integers(0, n, _RANDOM_PAIRS)
        second = (first + generator.integers(1, max(n, 2), _RANDOM_PAIRS)) % n
        self._random = _normal(np.asarray(closeness(first, second), np.float64))

    def bits(self, chosen: Indices) -> Floats:
        """Return the evidence for each candidate [E]; 0 where it cannot matter."""
        accepted = np.isin(self._near, chosen)
        result = np.zeros(self._n_candidates)
        if accepted.any():
            bits = _likelier(self._cosines, _normal(self._cosines[accepted]), self._random)
            result[self._near] = np.round(bits, 6)
        return result


def _normal(sample: Floats) -> tuple[float, float]:
    """Return mean and deviation of a normal distribution, by medians: outliers do not count."""
    mean = float(np.median(sample))
    deviation = 1.4826 * float(np.median(np.abs(sample - mean)))
    return mean, max(deviation, _LEAST_DEVIATION)


def _likelier(x: Floats, true: tuple[float, float], chance: tuple[float, float]) -> Floats:
    """Return log2 of true(x) / chance(x) for two normals, at most `_REACH` either way.

    It never falls where the cosine rises: beyond its vertex the parabola goes on level.

    >>> _likelier(np.array([-1.0, 0.0, 0.4]), (0.4, 0.2), (0.0, 0.1)).round(1).tolist()
    [-4.8, -3.9, 10.5]
    """
    (mean, deviation), (mean0, deviation0) = true, chance
    if mean <= mean0:
        return np.zeros_like(x)
    precision, precision0 = deviation**-2, deviation0**-2
    if precision != precision0:
        vertex = (mean * precision - mean0 * precision0) / (precision - precision0)
        x = np.maximum(x, vertex) if precision < precision0 else np.minimum(x, vertex)
    nats = (
        np.log(deviation0 / deviation)
        + ((x - mean0) ** 2 * precision0 - (x - mean) ** 2 * precision) / 2
    )
    bits: Floats = np.clip(nats / np.log(2), -_REACH, _REACH)
    return bits


def _number(keys: Indices) -> tuple[Indices, int]:
    """Number what occurs in `keys` from 0: the numbers and how many there are."""
    found, numbers = np.unique(keys, return_inverse=True)
    return numbers.astype(np.int64), len(found)
