"""Which tokens of a vocabulary derive from which others, and by which affixes.

The texts of the tokens and their counts in the corpus are all that is known.  A token's
*form* is its text in lower case without the leading space; the leading space and capitals
are affixes too, the prefix " " and the affixes "Aa" and "AA" of the kind "case", and are
formal: a token that differs from another in these only derives from it.  Between forms,
prefixes and suffixes are found by minimum description length; how, and what it costs in
bits, is said in `description.py`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from crystalline.data.crystal.description import derive

SPACE, CAPITALIZED, CAPITALS = ("prefix", " "), ("case", "Aa"), ("case", "AA")
_WITHIN_WORDS = "'’-"  # besides letters and their marks

Kind = Literal["prefix", "suffix", "case"]
Variant = tuple[int, int]  # capitals: 0 none, 1 "Aa", 2 "AA"; leading spaces: 0 or 1
Closeness = Callable[[npt.NDArray[np.int32], npt.NDArray[np.int32]], npt.NDArray[np.floating]]


@dataclass(frozen=True)
class Affix:
    """What a derived token has more than its parent.

    >>> print(Affix("un", "prefix"), Affix("ing", "suffix"), Affix("Aa", "case"))
    un- -ing Aa
    """

    text: str
    kind: Kind

    def __str__(self) -> str:
        if self.kind == "case":
            return self.text
        return f"{self.text}-" if self.kind == "prefix" else f"-{self.text}"


@dataclass(frozen=True, eq=False)
class Derivations:
    """A forest over the V tokens of a vocabulary; its trees are the families of the roots."""

    parent: npt.NDArray[np.int32]  # [V] the token it derives from directly; its own id for roots
    affix: npt.NDArray[np.int32]  # [V] index into `affixes`; -1 for roots
    affixes: tuple[Affix, ...]  # most frequent first: by the corpus count of what they make


def find_derivations(
    texts: Sequence[str | None],
    counts: npt.NDArray[np.int64],
    *,
    closeness: Closeness | None = None,
) -> Derivations:
    """Find roots, affixes and derivations in a vocabulary of V tokens.

    `texts[i]` is the text of token i, or None where it is not text (a special token, part
    of a character): such a token is a root.  `counts[i]` is how often it occurs.  Chains
    such as workers, worker, work never cycle.  The same input gives the same answer.

    `closeness`, evidence from learned embeddings, takes the ids of tokens and of as many
    possible parents (int32 arrays) and returns the cosine of each pair, -1 to 1.  It is
    asked once for the pairs that it can decide and once for random ones.

    Raises `ValueError` where texts and counts are not of one length.

    >>> found = find_derivations(["run", "running", "runs"], np.array([50, 20, 10]))
    >>> found.parent.tolist(), [str(found.affixes[affix]) for affix in found.affix[1:]]
    ([0, 0, 0], ['-ing', '-s'])
    """
    if len(texts) != len(counts):
        raise ValueError(f"there are {len(texts)} texts and {len(counts)} counts")
    forms: dict[str, dict[Variant, int]] = {}
    for id_, text in enumerate(texts):
        if text:
            form, variant = _surface(text)
            forms.setdefault(form, {}).setdefault(variant, id_)
    parent = np.arange(len(texts), dtype=np.int32)
    made_by: dict[int, tuple[str, str]] = {}
    for variants in forms.values():
        for variant, id_ in variants.items():
            for affix, plainer in _plainer(variant):
                if plainer in variants:
                    parent[id_] = variants[plainer]
                    made_by[id_] = affix
                    break
    words = _words(forms, counts)
    for word, root, affix in _derived_forms(words, forms, counts, closeness):
        variant, id_ = min(forms[word].items())
        parent[id_] = _alike(forms[root], variant)
        made_by[id_] = affix
    made: dict[tuple[str, str], int] = {}
    for id_, affix in made_by.items():
        made[affix] = made.get(affix, 0) + int(counts[id_])
    order = sorted(made, key=lambda affix: (-made[affix], affix))
    place = {affix: number for number, affix in enumerate(order)}
    numbers = np.full(len(texts), -1, np.int32)
    for id_, affix in made_by.items():
        numbers[id_] = place[affix]
    return Derivations(
        parent, numbers, tuple(Affix(text, cast(Kind, kind)) for kind, text in order)
    )


def _derived_forms(
    words: list[str],
    forms: dict[str, dict[Variant, int]],
    counts: npt.NDArray[np.int64],
    closeness: Closeness | None,
) -> list[tuple[str, str, tuple[str, str]]]:
    """Return (form, the form it derives from, affix) for every derived form."""
    totals = np.zeros(len(words), np.int64)
    capitalized = np.zeros(len(words), np.int64)
    token = np.zeros(len(words), np.int32)  # the most frequent one of each form
    for place, word in enumerate(words):
        variants = forms[word]
        totals[place] = sum(int(counts[id_]) for id_ in variants.values())
        capitalized[place] = sum(int(counts[id_]) for (case, _), id_ in variants.items() if case)
        token[place] = max(variants.values(), key=lambda id_: (int(counts[id_]), -id_))

    def of_forms(
        children: npt.NDArray[np.int64], parents: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.floating]:
        assert closeness is not None
        return closeness(token[children], token[parents])

    chosen, candidates = derive(
        words, totals, 2 * capitalized > totals, of_forms if closeness else None
    )
    return [
        (words[place], words[candidates.parent[edge]], candidates.affixes[candidates.affix[edge]])
        for place, edge in enumerate(chosen)
        if edge >= 0
    ]


def _surface(text: str) -> tuple[str, Variant]:
    """Return the form of a token's text and which variant of the form it is.

    >>> _surface(" The"), _surface("USA"), _surface("McCoy"), _surface("  ")
    (('the', (1, 1)), ('usa', (2, 0)), ('McCoy', (0, 0)), ('  ', (0, 0)))
    """
    bare = text.removeprefix(" ")
    if not bare or bare[0].isspace():
        return text, (0, 0)
    space = len(text) - len(bare)
    form = bare.lower()
    if bare == form:
        return form, (0, space)
    if bare == form[0].upper() + form[1:]:
        return form, (1, space)
    if bare == form.upper():
        return form, (2, space)
    return bare, (0, space)


def _plainer(variant: Variant) -> list[tuple[tuple[str, str], Variant]]:
    """Return the affixes that may make a variant and what they make it of, best first."""
    case, space = variant
    found = [(SPACE, (case, 0))] if space else []
    for plainer in range(case):
        affix = CAPITALS if case == 2 else CAPITALIZED
        found += [(affix, (plainer, space)), (affix, (plainer, 1 - space))]
    return found


def _alike(variants: dict[Variant, int], wanted: Variant) -> int:
    """Return the token of a form that is most like a variant: alike, in lower case, plain."""
    _, space = wanted
    for variant in (wanted, (0, space), (0, 1 - space)):
        if variant in variants:
            return variants[variant]
    return min(variants.items())[1]


def _words(forms: dict[str, dict[Variant, int]], counts: npt.NDArray[np.int64]) -> list[str]:
    """Return the forms that are words.

    Where most words follow a space, a form that never does is a piece of words (of BPE) and
    not one itself.
    """
    words = [form for form in forms if _is_word(form)]
    total = spaced = 0
    for word in words:
        for (_, space), id_ in forms[word].items():
            total += int(counts[id_])
            spaced += int(counts[id_]) * space
    if 2 * spaced <= total:
        return words
    return [word for word in words if any(space for _, space in forms[word])]


def _is_word(form: str) -> bool:
    """Tell whether a form is of letters (with marks, apostrophes and hyphens) only.

    >>> [_is_word(form) for form in ("naïve", "o'clock", "3rd", "--")]
    [True, True, False, False]
    """
    rest = [char for char in form if not char.isalpha()]
    return len(rest) < len(form) and all(
        char in _WITHIN_WORDS or unicodedata.category(char)[0] == "M" for char in rest
    )
