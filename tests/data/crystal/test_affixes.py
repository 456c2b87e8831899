"""The affix analysis: judged English pairs, an invented language, and the code lengths in Python.

The golden pairs were drawn and judged before anything was tuned; what was tuned was tuned on
tuning.tsv, of which no pair is among those of the test (tests/golden/morphology/draw.py).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.data.crystal import description
from crystalline.data.crystal.affixes import Affix, Derivations, find_derivations
from crystalline.data.crystal.candidates import DOUBLED, find_candidates
from crystalline.data.tokenizer import Tokenizer
from tests.golden.morphology import draw


def roots(found: Derivations) -> list[int]:
    tokens = np.arange(len(found.parent))
    for _ in range(len(tokens) + 1):
        above = found.parent[tokens]
        if (above == tokens).all():
            return tokens.tolist()
        tokens = above
    raise AssertionError("the parents go in a circle")


def derived(texts: list[str | None], found: Derivations) -> dict[str, tuple[str, str]]:
    """Return what each derived token is made of: (parent, affix)."""
    return {
        texts[token]: (texts[found.parent[token]], str(found.affixes[affix]))
        for token, affix in enumerate(found.affix)
        if affix >= 0
    }


def analyze(words: str, counts: list[int] | None = None) -> dict[str, tuple[str, str]]:
    texts = words.split()
    return derived(texts, find_derivations(texts, np.array(counts or [10] * len(texts))))


# --- English ----------------------------------------------------------------------------------


ENGLISH = "-s -ed -ing -ly -er -est -ness -ful -less -ment -ion -y -ity -ous un- dis- re- in-"


@pytest.fixture(scope="module")
def dickens() -> tuple[list[str | None], Derivations]:
    texts, counts = draw.read_words()
    start = time.process_time()
    found = find_derivations(texts, counts)
    print(f"\n{len(texts)} tokens in {time.process_time() - start:.2f} s")
    assert time.process_time() - start < 3
    return texts, found


def judge(name: str, texts: list[str | None], found: Derivations) -> tuple[float, float]:
    """Return precision and recall of "same root" on a file of judged pairs, and print them."""
    first = {draw.form_of(text): token for token, text in enumerate(texts) if text}
    root = roots(found)
    rows = draw.read_pairs(name)
    said = np.array([root[first[a]] == root[first[b]] for a, b, _ in rows])
    same = np.array([verdict == "same" for _, _, verdict in rows])
    assert {verdict for _, _, verdict in rows} == {"same", "different"}
    precision, recall = (said & same).sum() / said.sum(), (said & same).sum() / same.sum()
    print(f"{name}: precision {precision:.3f}, recall {recall:.3f}")
    return float(precision), float(recall)


def test_judged_pairs_of_the_same_root_are_found(dickens) -> None:
    precision, recall = judge("pairs.tsv", *dickens)
    assert precision >= 0.8
    assert recall >= 0.5
    assert judge("tuning.tsv", *dickens) >= (0.8, 0.5)


def test_the_judged_pairs_are_the_ones_drawn() -> None:
    pairs = [row[:2] for row in draw.read_pairs("pairs.tsv")]
    tuning = [row[:2] for row in draw.read_pairs("tuning.tsv")]
    assert pairs == draw.draw(draw.SEED_TEST, 200)
    assert tuning == draw.draw(draw.SEED_TUNING, 100, without=set(pairs))
    assert not set(pairs) & set(tuning)
    verdicts = Counter(row[2] for row in draw.read_pairs("pairs.tsv"))
    assert min(verdicts["same"], verdicts["different"]) >= 80


def test_english_affixes_are_found(dickens) -> None:
    _, found = dickens
    uses = Counter(str(found.affixes[affix]) for affix in found.affix if affix >= 0)
    for affix in ENGLISH.split():
        assert uses[affix] >= 20, affix
    assert min(uses.values()) >= 1
    assert len(uses) == len(found.affixes) < 200


@pytest.mark.parametrize(
    ("word", "parent", "affix"),
    [
        ("walked", "walk", "-ed"),
        ("running", "run", "-ing"),  # doubled
        ("dropping", "drop", "-ing"),
        ("taking", "take", "-ing"),  # dropped
        ("happiness", "happy", "-ness"),  # replaced
        ("reasonably", "reasonable", "-y"),
        ("unhappy", "happy", "un-"),
        ("greatest", "great", "-est"),
        ("gentlemen", "gentleman", "-en"),
    ],
)
def test_an_english_word_is_its_parent_and_its_affix(dickens, word, parent, affix) -> None:
    texts, found = dickens
    pairs = zip(texts, found.parent, strict=True)
    forms = [(draw.form_of(text), draw.form_of(texts[above])) for text, above in pairs if text]
    assert (word, parent) in forms
    tokens = [t for t, text in enumerate(texts) if text and draw.form_of(text) == word]
    assert affix in {str(found.affixes[found.affix[token]]) for token in tokens}


@pytest.mark.parametrize(
    "pair", ["the them", "in ing", "so son", "car care", "he her", "an and", "for fort", "no not"]
)
def test_false_friends_are_strangers(dickens, pair: str) -> None:
    texts, found = dickens
    first = {draw.form_of(text): token for token, text in enumerate(texts) if text}
    one, other = (first.get(word) for word in pair.split())
    if one is not None and other is not None:
        assert roots(found)[one] != roots(found)[other]


# --- small vocabularies -----------------------------------------------------------------------

RUN = {"running": ("run", "-ing"), "runs": ("run", "-s")}


@pytest.mark.parametrize("counts", [[50, 20, 10], [10, 10, 10], [10, 20, 30], [1, 1, 1]])
@pytest.mark.parametrize("order", ["run running runs", "runs running run"])
def test_run_running_runs(counts: list[int], order: str) -> None:
    assert analyze(order, counts) == RUN


def test_run_running_runs_among_others() -> None:
    ten = "run running runs the cat a of dog and in"
    assert analyze(ten, [50, 20, 10, 200, 30, 100, 90, 33, 80, 70]) == RUN
    twenty = [" run", " running", " runs", " the", " cat", " a", " of", " dog", " and", " in"]
    twenty += [" to", " was", " it", " that", "his", "with", "had", ".", ",", "house"]
    found = find_derivations(twenty, np.arange(60, 40, -1))
    assert derived(twenty, found) == {
        " running": (" run", "-ing"),
        " runs": (" run", "-s"),
    }


def test_seams_of_a_small_vocabulary() -> None:
    found = analyze("make making try tries run running runs bake baking the cat cats")
    assert found["making"] == ("make", "-ing")
    assert found["baking"] == ("bake", "-ing")
    assert found["running"] == ("run", "-ing")
    assert found["cats"] == ("cat", "-s")


STEMS = "work paint farm teach build speak sing train report help"


def test_a_chain_has_every_link() -> None:
    texts = [stem + end for end in ("", "er", "ers", "ing") for stem in STEMS.split()]
    found = derived(texts, find_derivations(texts, np.arange(100, 60, -1)))
    assert found["workers"] == ("worker", "-s")
    assert found["worker"] == ("work", "-er")
    assert "work" not in found


@pytest.mark.parametrize("size", [100, 1000, 3000])
def test_one_letter_is_no_root(size: int) -> None:
    """The most frequent words alone are few and short: to name one is cheap."""
    texts, counts = draw.read_words()
    found = find_derivations(texts[:size], counts[:size])
    formal = {(" ", "prefix"), ("Aa", "case"), ("AA", "case")}
    parents = [
        draw.form_of(texts[found.parent[token]])
        for token, affix in enumerate(found.affix)
        if affix >= 0 and (found.affixes[affix].text, found.affixes[affix].kind) not in formal
    ]
    assert min(map(len, parents)) > 1


def test_no_word_is_far_more_frequent_than_its_root() -> None:
    texts = [stem + end for stem in STEMS.split() for end in ("", "er", "ing")]
    counts = np.full(len(texts), 50)
    assert texts[:3] == ["work", "worker", "working"]
    for count, parent in ((15 * 50, "work"), (17 * 50, None)):
        counts[2] = count
        found = derived(texts, find_derivations(texts, counts))
        assert found.get("working", (None,))[0] == parent


# --- spaces and capitals ----------------------------------------------------------------------


def test_space_and_capitals_are_formal() -> None:
    texts = [" The", "the", " the", "The", "THE", " THE"]
    found = find_derivations(texts, np.array([5, 9, 60, 7, 2, 1]))
    assert derived(texts, found) == {
        " The": ("The", " -"),
        " the": ("the", " -"),
        "The": ("the", "Aa"),
        "THE": ("the", "AA"),
        " THE": ("THE", " -"),
    }
    assert found.affixes[0] == Affix(" ", "prefix")
    assert Affix("AA", "case") in found.affixes


def test_capitals_without_the_plain_form_derive_from_what_there_is() -> None:
    texts = [" work", "Work", " Worker", "WORK"]
    found = derived(texts, find_derivations(texts, np.array([50, 5, 5, 1])))
    assert found["Work"] == (" work", "Aa")
    assert found["WORK"] == (" work", "AA")


def test_characters_derive_by_case_only() -> None:
    tokenizer = Tokenizer.train("char", ["Aa bBc.\n ÄäßE"], 0)
    texts = [tokenizer.token_bytes(i).decode() for i in range(tokenizer.vocab_size)]
    found = find_derivations(texts, np.ones(len(texts), np.int64))
    assert derived(texts, found) == {"A": ("a", "Aa"), "B": ("b", "Aa"), "Ä": ("ä", "Aa")}


def test_what_is_not_text_or_no_word_is_a_root() -> None:
    texts = [None, "", "12", "123", "--", "---", " (", "(", "  ", " ", "run", "run", None, "McRun"]
    found = find_derivations(texts, np.arange(14))
    assert derived(texts, found) == {" (": ("(", " -")}
    assert found.affix.dtype == found.parent.dtype == np.int32


def test_a_piece_of_words_is_neither_root_nor_derived() -> None:
    """Where words follow a space, "laim" is what BPE left over of "claim" and not a word."""
    texts = [" claim", "laim", " claims", " name", " names", " sound", " sounds", "ounds", " lame"]
    found = derived(texts, find_derivations(texts, np.array([90, 9, 50, 80, 40, 70, 30, 5, 8])))
    assert found == {
        " claims": (" claim", "-s"),
        " names": (" name", "-s"),
        " sounds": (" sound", "-s"),
    }


def test_nothing_and_too_little() -> None:
    found = find_derivations([], np.zeros(0, np.int64))
    assert (found.parent.shape, found.affix.shape, found.affixes) == ((0,), (0,), ())
    assert analyze("a") == {}
    with pytest.raises(ValueError, match="2 texts and 3 counts"):
        find_derivations(["a", "b"], np.zeros(3, np.int64))


# --- properties -------------------------------------------------------------------------------


LETTERS = st.characters(exclude_categories=["Cs"])


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.none() | st.text("abAß ", max_size=7) | st.text(LETTERS),
        max_size=40,
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_vocabulary_gives_a_forest(texts: list[str | None], seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 1000, len(texts))
    found = find_derivations(texts, counts)
    roots(found)
    tokens = np.arange(len(texts))
    assert ((found.affix < 0) == (found.parent == tokens)).all()
    assert all(texts[token] for token in tokens[found.affix >= 0])
    made = [int(counts[found.affix == place].sum()) for place in range(len(found.affixes))]
    assert made == sorted(made, reverse=True)
    assert set(found.affix.tolist()) - {-1} == set(range(len(found.affixes)))
    assert len(set(found.affixes)) == len(found.affixes)
    for token in tokens[found.affix >= 0]:
        affix, text = found.affixes[found.affix[token]], texts[token]
        if affix == Affix(" ", "prefix"):
            assert text == " " + texts[found.parent[token]]
        elif affix.kind == "case":
            assert text != text.lower()
        elif affix.kind == "suffix":
            assert text.lower().endswith(affix.text.lower())
        else:
            form = text.removeprefix(" ").lower()
            assert form == affix.text + texts[found.parent[token]].removeprefix(" ").lower()


def test_the_same_every_time_whatever_the_hash_seed() -> None:
    code = (
        "from tests.golden.morphology.draw import read_words\n"
        "from crystalline.data.crystal.affixes import find_derivations\n"
        "texts, counts = read_words()\n"
        "found = find_derivations(texts[:3000], counts[:3000])\n"
        "print(found.parent.tolist(), found.affix.tolist(), found.affixes)\n"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(said[0]) > 10_000


# --- an invented language ---------------------------------------------------------------------


def invented(seed: int) -> tuple[list[str], np.ndarray, list[int]]:
    """Return the texts, counts and true roots of a language that no one speaks.

    Its roots end in "a" or a consonant; "-ost", "-im" and the prefix "gu-" are put on, "-ost"
    drops the "a"; there are many roots that nothing derives from.
    """
    random = np.random.default_rng(seed)

    def syllable() -> str:
        return "".join(random.choice(list(letters)) for letters in ("bdgklmnprstvz", "aeiou"))

    bases: set[str] = set()
    while len(bases) < 700:
        base = "".join(syllable() for _ in range(random.integers(2, 4)))
        bases.add(base[:-1] + "a" if random.random() < 0.4 else base[:-1])
    texts: dict[str, int] = {}
    for base in sorted(bases):
        texts.setdefault(base, len(texts))
    true = list(range(len(texts)))
    counts = random.zipf(1.3, len(texts)).clip(2, 10**6).tolist()
    for base in sorted(bases):
        stem = base.removesuffix("a")
        for form in (stem + "ost", base + "im", "gu" + base):
            if random.random() < 0.3 and form not in texts:
                texts[form] = len(texts)
                true.append(texts[base])
                counts.append(max(1, int(counts[texts[base]] * random.random())))
    return list(texts), np.array(counts), true


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_invented_language_is_understood(seed: int) -> None:
    texts, counts, true = invented(seed)
    found = find_derivations(texts, counts)
    root = roots(found)
    derivations = [token for token in range(len(texts)) if true[token] != token]
    said = [token for token in range(len(texts)) if found.affix[token] >= 0]
    right = [token for token in said if root[token] == true[token]]
    print(f"\nprecision {len(right) / len(said):.3f}, recall {len(right) / len(derivations):.3f}")
    assert len(right) / len(said) > 0.9
    assert len(right) / len(derivations) > 0.8
    assert {str(affix) for affix in found.affixes[:3]} == {"-ost", "-im", "gu-"}


def test_words_made_at_random_have_few_relations() -> None:
    random = np.random.default_rng(5)
    words = {
        "".join(random.choice(list("abdeiklmnorstu"), random.integers(3, 9))) for _ in range(999)
    }
    found = find_derivations(sorted(words), random.integers(1, 1000, len(words)))
    assert (found.affix >= 0).mean() < 0.02


# --- closeness --------------------------------------------------------------------------------


def test_closeness_tells_false_friends_and_finds_what_spelling_missed() -> None:
    texts, counts, true = invented(4)
    plain = find_derivations(texts, counts)
    random = np.random.default_rng(6)
    centers = random.standard_normal((len(texts), 32))
    rows = centers[true] + 0.7 * random.standard_normal(centers.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    asked = []

    def closeness(children: np.ndarray, parents: np.ndarray) -> np.ndarray:
        assert children.dtype == parents.dtype == np.int32
        assert children.shape == parents.shape
        asked.append(len(children))
        return (rows[children] * rows[parents]).sum(axis=1)

    found = find_derivations(texts, counts, closeness=closeness)
    assert len(asked) == 2

    def score(derivations: Derivations) -> tuple[int, int]:
        root = roots(derivations)
        said = [token for token in range(len(texts)) if derivations.affix[token] >= 0]
        wrong = [token for token in said if root[token] != true[token]]
        return len(said) - len(wrong), len(wrong)

    (right, wrong), (right_plain, wrong_plain) = score(found), score(plain)
    assert right > right_plain
    assert wrong < wrong_plain
    blind = find_derivations(texts, counts, closeness=lambda a, _: np.zeros(len(a)))
    assert (blind.parent == plain.parent).mean() > 0.99


@settings(deadline=None)
@given(
    true=st.tuples(st.floats(-1, 1), st.floats(0.05, 1)),
    chance=st.tuples(st.floats(-1, 1), st.floats(0.05, 1)),
)
def test_evidence_never_falls_where_the_cosine_rises(true, chance) -> None:
    x = np.linspace(-1, 1, 201)
    bits = description._likelier(x, true, chance)
    assert (np.diff(bits) >= -1e-9).all()
    if true[0] > chance[0]:
        density = [
            -((x - mean) ** 2) / (2 * s * s) / math.log(2) - math.log2(s)
            for mean, s in (true, chance)
        ]
        between = (x >= chance[0]) & (x <= true[0])
        expected = np.clip(density[0] - density[1], -24, 24)
        np.testing.assert_allclose(bits[between], expected[between], atol=1e-6)


# --- the code lengths, once more in plain Python ------------------------------------------------


def slow_gain(edge, chosen, words, counts, proper, c) -> float:
    """The gain of one candidate by the sentences of description.py, word by word."""
    child, parent = int(c.child[edge]), int(c.parent[edge])
    n = len(words)
    others = [int(e) for place, e in enumerate(chosen) if e >= 0 and place != child]
    known = [w for place, w in enumerate(words) if chosen[place] < 0 and place != child]
    size = len(set("".join(words))) + 1

    def spelled(word: str) -> float:
        bits = 0.0
        uses: Counter[str] = Counter()  # of letters with none, one or two before them
        contexts: Counter[str] = Counter()
        for other in known:
            text = "^^" + other + "$"
            for at in range(2, len(text)):
                for order in (0, 1, 2):
                    uses[text[at - order : at + 1]] += 1
                    contexts[f"{order}{text[at - order : at]}"] += 1
        text = "^^" + word + "$"
        for at in range(2, len(text)):
            p = 1 / size
            for order in (0, 1, 2):
                total = contexts[f"{order}{text[at - order : at]}"]
                p = (uses[text[at - order : at + 1]] + size * p) / (total + size)
            bits -= math.log2(p)
        return bits

    letters = Counter("".join(words))
    total = sum(letters.values()) + n + size

    def once(text: str) -> float:
        return 0.5 * math.prod((letters[x] + 1) / total / 2 for x in text)

    def change_base(change) -> float:
        drop, add = change
        if not drop:
            return 0.25 if add else 0.5
        return once(add) / 2 ** (2 + len(drop))

    def last(e: int) -> str:
        return words[c.parent[e]][-1]

    affix, change = int(c.affix[edge]), int(c.change[edge])
    d = len(others)
    n_affix = sum(c.affix[e] == affix for e in others)
    p_affix = (n_affix + once(c.affixes[affix][1])) / (d + 1)
    p_change = (sum(c.change[e] == change for e in others) + 4 * change_base(c.changes[change])) / (
        d + 4
    )
    both = [e for e in others if c.affix[e] == affix and c.change[e] == change]
    p_change = (len(both) + p_change) / (n_affix + 1)
    after = [e for e in others if last(e) == last(edge)]
    p_whole = (sum(last(e) == last(edge) for e in both) + 20 * p_affix * p_change) / (
        len(after) + 20
    )
    level = [int(math.log2(max(count, 1))) for count in counts]
    up, own = level[parent], level[child]
    of_level = level.count(up)
    with_level = [e for e in others if level[c.parent[e]] == up]
    base = (len(with_level) / of_level + 10 / n) / (d + 10)
    p_parent = (sum(c.parent[e] == parent for e in others) + n / 2 * base) / (d + n / 2)
    p_level_root = (level.count(own) + 1) / (n + 24)
    steps = sum(level[c.child[e]] - level[c.parent[e]] == own - up for e in others)
    p_level = (steps + 10 * p_level_root) / (d + 10)
    p_level = (sum(level[c.child[e]] == own for e in with_level) + 10 * p_level) / (
        len(with_level) + 10
    )
    p_case_root = (list(proper).count(proper[child]) + 1) / (n + 2)
    alike = [e for e in others if proper[c.parent[e]] == proper[parent]]
    p_case = (sum(proper[c.child[e]] == proper[child] for e in alike) + 2 * p_case_root) / (
        len(alike) + 2
    )
    p_derived, p_root = (d + 1) / (n + 1), (n - d) / (n + 1)
    as_root = spelled(words[child]) - math.log2(p_level_root * p_case_root * p_root)
    as_derived = -math.log2(p_parent * p_whole * p_level * p_case * p_derived)
    return as_root - as_derived - 2 * len(c.changes[change][0])


SMALL = """
    walk walks walked talk talks talked make making unmake try tries run running stop stopped the
    them hope hoping unhope Tom
"""


def test_gains_are_the_code_lengths_said() -> None:
    words = SMALL.split()
    random = np.random.default_rng(7)
    counts = random.integers(1, 5000, len(words))
    proper = random.random(len(words)) < 0.3
    c = find_candidates(words)
    known = description._Description(words, counts, proper, c)
    for round_ in range(4):
        chosen = np.full(len(words), -1)
        for place in range(len(words)):
            mine = np.flatnonzero(c.child == place)
            if len(mine) and random.random() < 0.25 * round_:
                chosen[place] = random.choice(mine)
        gains = known.gains(chosen)
        for edge in random.permutation(len(c.child))[:40]:
            expected = slow_gain(int(edge), chosen, words, counts, proper, c)
            assert gains[edge] == pytest.approx(expected, abs=2e-6), (words[c.child[edge]], round_)


def test_every_accepted_derivation_saves_bits() -> None:
    texts, counts = draw.read_words()
    forms: Counter[str] = Counter()
    for text, count in zip(texts, counts, strict=True):
        if text and draw.form_of(text).isalpha():
            forms[draw.form_of(text)] += int(count)
    words, totals = list(forms), np.array(list(forms.values()))
    proper = np.zeros(len(words), np.bool_)
    chosen, candidates = description.derive(words, totals, proper)
    gains = description._Description(words, totals, proper, candidates).gains(chosen)
    assert (chosen >= 0).sum() > 3000
    assert gains[chosen[chosen >= 0]].min() > 0


def test_candidates_are_all_ways_to_derive() -> None:
    words = ["try", "tries", "run", "running", "make", "remake"]
    c = find_candidates(words)
    ways = {
        (words[p], words[k], c.affixes[a], c.changes[x])
        for k, p, a, x in zip(c.child, c.parent, c.affix, c.change, strict=True)
    }
    assert ways >= {
        ("try", "tries", ("suffix", "es"), ("y", "i")),
        ("try", "tries", ("suffix", "ies"), ("y", "")),
        ("run", "running", ("suffix", "ing"), ("", DOUBLED)),
        ("run", "running", ("suffix", "ning"), ("", "")),
        ("make", "remake", ("prefix", "re"), ("", "")),
    }
    for parent, child, (kind, text), (drop, add) in ways:
        if kind == "prefix":
            assert child == text + parent
        else:
            stem = parent.removesuffix(drop)
            assert child == stem + add.replace(DOUBLED, stem[-1:]) + text
