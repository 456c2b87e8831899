"""Draw the word pairs that the affix analysis is judged by, without looking at its answers.

    python tests/golden/morphology/draw.py words FOLDER > words.txt   # texts and counts
    python tests/golden/morphology/draw.py pairs > pairs.tsv          # the 200 of the test
    python tests/golden/morphology/draw.py tuning > tuning.tsv        # 100 others, to tune on

The pairs come out unjudged; the third column (`same` or `different`) is filled in by a
reader.  "Same" means that a dictionary would give both words the same English root, as
English is spoken now: `grew` and `grow` are the same, `heart` and `hear` are not, and the
Latin kinship of `receive` and `deceive` does not count.  A compound (`everyone`) is the
same as either of its words.

**The pool.**  All unordered pairs of different forms (tokens in lower case without the
leading space) of three letters or more, in six parts, each pair in the first that fits:

| part | what the two have in common | drawn of 20 |
|---|---|---|
| begins | one is the beginning of the other | 6 |
| stem | the first letters: at least 4, and at least 60 % of the longer form | 6 |
| inside | one stands in the other, not at its beginning | 3 |
| start | the first three letters | 3 |
| vowels | the consonants, two or more: the pairs differ in vowels only | 1 |
| irregular | the list of strong verbs and plurals below | 1 |

The constants of the analysis were chosen on tuning.tsv alone, after both files were judged.
A pair's place in the draw is the SHA-256 of seed and pair, so that the draw is the same on
every Python.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from crystalline.data.tokenizer import END_OF_TEXT, UNKNOWN, Tokenizer

HERE = Path(__file__).parent
SHARES = {"begins": 6, "stem": 6, "inside": 3, "start": 3, "vowels": 1, "irregular": 1}  # of 20
SEED_TEST, SEED_TUNING = "crystalline", "tuning"
VOCABULARY = 10_000
IRREGULAR = """
    become became, begin began, begin begun, bind bound, blow blew, break broke, bring brought,
    build built, buy bought, catch caught, child children, choose chose, choose chosen, come came,
    creep crept, deal dealt, do done, draw drew, drink drank, drive drove, eat ate, fall fell,
    feel felt, fight fought, find found, fly flew, foot feet, forget forgot, get got, give gave,
    go gone, grow grew, hear heard, hold held, keep kept, know knew, lay laid, leave left, lie lay,
    lose lost, make made, man men, mean meant, meet met, ride rode, rise rose, run ran, say said,
    see saw, see seen, sell sold, send sent, shake shook, sing sang, sit sat, sleep slept,
    speak spoke, spend spent, stand stood, strike struck, swear swore, sweep swept, take took,
    teach taught, tear tore, tell told, think thought, throw threw, tooth teeth, wear wore,
    weep wept, wife wives, win won, woman women, write wrote
"""

Pair = tuple[str, str]


def make_words(folder: Path) -> str:
    """Return the content of words.txt for the texts of a folder."""
    texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.txt"))]
    tokenizer = Tokenizer.train("word", texts, VOCABULARY)
    counts = sum(
        np.bincount(tokenizer.encode(text), minlength=tokenizer.vocab_size) for text in texts
    )
    lines = [
        "# The word vocabulary of the novels of Charles Dickens (Project Gutenberg, 16 MB),",
        f"# made by Tokenizer.train('word', texts, {VOCABULARY}): a line per token in the order",
        "# of the ids, how often it occurs and its text as JSON; null for what is not text.",
    ]
    for id_, count in enumerate(counts):
        text = tokenizer.token_bytes(id_).decode()
        shown = None if text in (UNKNOWN, END_OF_TEXT) else text
        lines.append(f"{count}\t{json.dumps(shown, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def read_words() -> tuple[list[str | None], np.ndarray]:
    """Read words.txt: the text of every token (None: not text) and its count, int64[V]."""
    texts: list[str | None] = []
    counts: list[int] = []
    for line in (HERE / "words.txt").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            count, text = line.split("\t")
            counts.append(int(count))
            texts.append(json.loads(text))
    return texts, np.array(counts, np.int64)


def read_pairs(name: str) -> list[tuple[str, str, str]]:
    """Read a judged file: (word, word, "same" or "different")."""
    lines = (HERE / name).read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(first, second, verdict) for first, second, verdict in rows]


def form_of(text: str) -> str:
    """Return a token's text in lower case without its leading space."""
    return text.removeprefix(" ").lower()


def pool() -> dict[str, list[Pair]]:
    """Return all pairs that may be drawn, by part; the two words of a pair are in order."""
    texts, _ = read_words()
    forms = sorted({form_of(text) for text in texts if text})
    forms = [form for form in forms if len(form) >= 3 and form.isalpha()]
    parts: dict[str, list[Pair]] = {part: [] for part in SHARES}
    taken: set[Pair] = set()
    for part, pair in _candidates(forms):
        if pair not in taken:
            taken.add(pair)
            parts[part].append(pair)
    return parts


def _candidates(forms: list[str]) -> Iterator[tuple[str, Pair]]:
    """Yield pairs with their part; a pair that fits several comes first with its own."""
    for first, second in _within(forms, lambda form: form[:3]):
        common = _alike(first, second)
        if common == len(first):
            yield "begins", (first, second)
        elif common >= 4 and common >= 0.6 * max(len(first), len(second)):
            yield "stem", (first, second)
    known = set(forms)
    for form in forms:
        for start in range(1, len(form) - 2):
            for end in range(start + 3, len(form) + 1):
                if form[start:end] in known:
                    first, second = sorted((form, form[start:end]))
                    yield "inside", (first, second)
    for first, second in _within(forms, lambda form: form[:3]):
        yield "start", (first, second)
    for first, second in _within(forms, _consonants):
        if len(_consonants(first)) >= 2:
            yield "vowels", (first, second)
    for pair in IRREGULAR.split(","):
        first, second = sorted(pair.split())
        if first in known and second in known:
            yield "irregular", (first, second)


def _alike(first: str, second: str) -> int:
    """Return how many letters two words begin with in common."""
    differ = [a != b for a, b in zip(first, second, strict=False)]
    return [*differ, True].index(True)


def _consonants(form: str) -> str:
    return "".join(letter for letter in form if letter not in "aeiou")


def _within(forms: list[str], key) -> Iterator[Pair]:  # type: ignore[no-untyped-def]
    groups = defaultdict(list)
    for form in forms:
        groups[key(form)].append(form)
    for _, group in sorted(groups.items()):
        yield from combinations(group, 2)


def draw(seed: str, count: int, without: set[Pair] | None = None) -> list[Pair]:
    """Return `count` pairs of the pool (a multiple of 20), none of them among `without`."""
    chosen: list[Pair] = []
    for part, pairs in pool().items():
        left = [pair for pair in pairs if pair not in (without or set())]
        left.sort(key=lambda pair: hashlib.sha256(" ".join((seed, *pair)).encode()).digest())
        chosen += left[: SHARES[part] * count // 20]
    return chosen


def main() -> None:
    """Print what the first argument asks for."""
    what = sys.argv[1]
    if what == "words":
        print(make_words(Path(sys.argv[2])), end="")
        return
    pairs = draw(SEED_TEST, 200)
    if what == "tuning":
        pairs = draw(SEED_TUNING, 100, without=set(pairs))
    for pair in pairs:
        print(*pair, "?", sep="\t")


if __name__ == "__main__":
    main()
