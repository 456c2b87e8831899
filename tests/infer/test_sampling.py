"""Sampling against slow, literal twins; frequencies against the stated distribution."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crystalline.errors import CheckpointError, UsageError
from crystalline.infer import sampling
from crystalline.infer.sampling import Sampler, SamplingSettings

INF = math.inf

rows = st.lists(
    st.one_of(
        st.floats(-30, 30, width=32),
        st.sampled_from([0.0, 1.0, 2.0]),  # ties
        st.just(-INF),
    ),
    min_size=1,
    max_size=9,
).filter(lambda row: max(row) > -INF)


def distribution(row, knobs, recent):
    """Return the probabilities of all tokens."""
    ids, probabilities = sampling.candidates(row, knobs, recent)
    assert ids.tolist() == sorted(ids.tolist())
    result = np.zeros(len(row))
    result[ids] = probabilities
    return result


def softmax_twin(row):
    top = max(row)
    weights = [math.exp(value - top) for value in row]
    return [weight / math.fsum(weights) for weight in weights]


def likeliest_first(row):
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


def without(row, kept):
    return [value if token in kept else -INF for token, value in enumerate(row)]


@given(rows, st.integers(0, 12))
def test_top_k_keeps_k_and_the_lower_id_of_a_tie(row, k):
    kept = likeliest_first(row)[:k] if k else range(len(row))
    assert sampling.keep_top_k(np.array(row), k).tolist() == without(row, set(kept))


@given(rows, st.floats(0.01, 1.0))
def test_top_p_keeps_the_smallest_sufficient_set(row, p):
    result = sampling.keep_top_p(np.array(row), p).tolist()
    probabilities = softmax_twin(row)
    order = likeliest_first(row)
    kept = [token for token in order if result[token] > -INF]
    possible = [token for token in order if row[token] > -INF]
    assert result == without(row, set(kept))
    assert kept == possible[: len(kept)]  # a beginning of the order
    assert len(kept) >= 1
    if p == 1:
        assert kept == possible
    else:
        assert math.fsum(probabilities[t] for t in kept) >= p - 1e-9
        assert math.fsum(probabilities[t] for t in kept[:-1]) < p + 1e-9


@given(rows, st.floats(0.0, 1.0))
def test_min_p_keeps_what_is_likely_enough(row, p):
    result = sampling.keep_min_p(np.array(row), p).tolist()
    probabilities = softmax_twin(row)
    for token, value in enumerate(row):
        ratio = probabilities[token] / max(probabilities)
        if abs(ratio - p) > 1e-9:
            assert (result[token] == value) if ratio > p else (result[token] == -INF)


@pytest.mark.parametrize("spread", [0.0, 0.5, 4.0, 40.0])
@pytest.mark.parametrize("p", [0.001, 0.3, 0.95, 0.9999999, 1 - 1e-12])
def test_top_p_of_a_large_vocabulary_is_that_of_sorting_it(spread, p):
    """Few tokens or nearly all of them, ties everywhere: the literal method, value for value."""
    row = np.random.default_rng(3).normal(0, spread, 5000).round(2)
    order = np.argsort(-row, kind="stable")
    reached = np.cumsum(sampling.softmax(row)[order])
    kept = set(order[: int(np.searchsorted(reached, p)) + 1].tolist())
    assert np.flatnonzero(sampling.keep_top_p(row, p) > -INF).tolist() == sorted(kept)


def test_a_draw_from_a_large_vocabulary_is_quick():
    """Of 16 texts at a time each waits for all draws: they must not sort the vocabulary."""
    row = np.random.default_rng(1).normal(0, 3, 50_257)

    def cpu_s(act):
        taken = []
        for _ in range(9):
            began = time.process_time()
            act()
            taken.append(time.process_time() - began)
        return min(taken)

    chooser = Sampler(SamplingSettings(seed=1))
    assert cpu_s(lambda: chooser.choose(row, [])) < cpu_s(lambda: np.argsort(row, kind="stable"))


@given(rows, st.lists(st.integers(0, 8), max_size=6), st.floats(0.5, 3.0))
def test_repeats_are_penalized_once(row, tokens, penalty):
    tokens = [token % len(row) for token in tokens]
    expected = [
        (value / penalty if value > 0 else value * penalty) if token in tokens else value
        for token, value in enumerate(row)
    ]
    result = sampling.penalize_repeats(np.array(row), tokens, penalty)
    assert result.tolist() == expected


@given(rows, st.floats(0.05, 5.0))
def test_softmax_with_temperature(row, temperature):
    top = max(row)
    expected = softmax_twin([(value - top) / temperature for value in row])
    result = sampling.softmax(sampling.apply_temperature(np.array(row), temperature))
    assert result == pytest.approx(expected, rel=1e-12, abs=1e-300)
    logs = sampling.log_softmax(sampling.apply_temperature(np.array(row), temperature))
    assert np.exp(logs) == pytest.approx(expected, rel=1e-9, abs=1e-300)


@given(rows, st.floats(0, 1, exclude_max=True))
def test_draw_inverts_the_cumulative_distribution(row, uniform):
    probabilities = sampling.softmax(np.array(row))
    token = sampling.draw(probabilities, uniform)
    assert probabilities[token] > 0
    assert math.fsum(probabilities[:token]) <= uniform + 1e-12
    assert uniform - 1e-12 <= math.fsum(probabilities[: token + 1])


def test_draw_never_returns_an_excluded_token_at_the_edges():
    probabilities = np.array([0.0, 0.1, 0.0, 0.9 - 1e-16, 0.0])
    assert sampling.draw(probabilities, 0.0) == 1
    assert sampling.draw(probabilities, np.nextafter(1.0, 0.0)) == 3


def test_inputs_are_left_alone():
    row = np.array([1.0, -2.0, 0.5, 0.5])
    before = row.copy()
    sampling.penalize_repeats(row, [0], 2.0)
    sampling.apply_temperature(row, 0.5)
    sampling.keep_top_k(row, 1)
    sampling.keep_top_k(row, 0)[0] = 9
    sampling.keep_top_p(row, 0.5)
    sampling.keep_top_p(row, 1.0)[0] = 9
    sampling.keep_min_p(row, 0.5)
    sampling.keep_min_p(row, 0.0)[0] = 9
    sampling.candidates(row, SamplingSettings(top_p=1.0), [0])[1][0] = 9
    assert row.tolist() == before.tolist()


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ([0.0, math.nan, 1.0], "NaN"),
        ([-INF, -INF], "all -inf"),
        ([0.0, INF], "infinite"),
        ([math.nan, INF], "NaN"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_impossible_logits_are_an_error(row, word, temperature):
    chooser = Sampler(SamplingSettings(temperature=temperature))
    with pytest.raises(CheckpointError, match=word):
        chooser.choose(np.array(row, dtype=np.float32), [0])


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": INF},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repeat_penalty": 0.0},
        {"repeat_penalty": INF},
        {"seed": -1},
        {"seed": 2**64},
    ],
)
def test_impossible_settings_name_the_flag_and_the_value(values):
    (name, value), *_ = values.items()
    with pytest.raises(UsageError) as caught:
        SamplingSettings(**values)
    assert "--" + name.replace("_", "-") in caught.value.message
    assert str(value) in caught.value.message
    assert caught.value.advice


def test_greedy_takes_the_first_of_the_likeliest_and_minds_repeats():
    row = np.array([1.0, 3.0, 3.0, 2.9], dtype=np.float32)
    assert Sampler(SamplingSettings(temperature=0)).choose(row, []) == 1
    penal = SamplingSettings(temperature=0, repeat_penalty=2.0)
    assert Sampler(penal).choose(row, [1]) == 2
    assert Sampler(penal).choose(row, [1, 2]) == 3


def test_the_order_of_the_methods():
    """Each of these rows gives another result under another order."""
    row = np.log([0.5, 0.3, 0.2])
    # temperature comes before top-p: at 0.25 the first token alone has 0.6 and more
    first = SamplingSettings(temperature=0.25, top_p=0.6)
    assert distribution(row, first, []).tolist() == [1.0, 0.0, 0.0]
    # top-k comes before top-p: of the two left, the first has 0.625
    second = SamplingSettings(temperature=1.0, top_k=2, top_p=0.6)
    assert distribution(row, second, []).tolist() == [1.0, 0.0, 0.0]
    # the penalty comes before the temperature's shift: a positive logit is divided
    third = SamplingSettings(temperature=1.0, top_k=1, top_p=1.0, repeat_penalty=2.0)
    assert distribution(np.array([3.0, 2.0]), third, [0]).tolist() == [0.0, 1.0]
    # min-p sees what top-p left, with the same ratios
    fourth = SamplingSettings(temperature=1.0, top_p=1.0, min_p=0.5)
    assert distribution(row, fourth, []) == pytest.approx([0.625, 0.375, 0.0])


def test_only_the_newest_tokens_are_repeats():
    row = np.array([5.0, 4.0, 0.0])
    chooser = Sampler(SamplingSettings(temperature=0, repeat_penalty=2.0))
    assert chooser.choose(row, [0] + [2] * 64) == 0
    assert chooser.choose(row, [0] + [2] * 63) == 1


@pytest.mark.parametrize(
    "knobs",
    [
        {"top_p": 1.0},
        {"temperature": 1.7, "top_p": 1.0, "top_k": 4},
        {"temperature": 0.6, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.3},
    ],
)
def test_frequencies_follow_the_distribution(knobs):
    row = np.array([0.3, -1.2, 2.0, 0.0, 1.1, -0.4, 0.31])
    chosen = SamplingSettings(seed=20, **knobs)
    expected = distribution(row, chosen, [2])
    chooser = Sampler(chosen, sample=3)
    draws = 6000
    counts = np.bincount([chooser.choose(row, [2]) for _ in range(draws)], minlength=row.size)
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    wanted = draws * expected[possible]
    chi_square = float(((counts[possible] - wanted) ** 2 / wanted).sum())
    freedom = int(possible.sum()) - 1
    # mean `freedom`, standard deviation √(2·freedom): five of these are far beyond chance
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_random_numbers_depend_on_seed_sample_and_index_only():
    places = [(seed, sample, index) for seed in (0, 7) for sample in (0, 1) for index in range(50)]
    numbers = [sampling.uniform(*place) for place in places]
    assert numbers == [sampling.uniform(*place) for place in reversed(places)][::-1]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    # the published generator, at the counter of the draw: Philox is counter-based
    reference = np.random.Generator(np.random.Philox(counter=[5, 0, 0, 0], key=[7, 1]))
    assert sampling.uniform(7, 1, 5) == reference.random()


def test_seeds_repeat_and_differ():
    row = np.zeros(50)
    flat = {"temperature": 1.0, "top_p": 1.0}

    def text(seed, sample=0):
        chooser = Sampler(SamplingSettings(seed=seed, **flat), sample)
        return [chooser.choose(row, []) for _ in range(30)]

    assert text(4) == text(4)
    assert text(4) != text(5)
    assert text(4) != text(4, sample=1)
    assert text(2**64 - 1) == text(2**64 - 1)


@settings(max_examples=30)
@given(rows)
def test_a_tiny_temperature_is_greedy(row):
    cold = SamplingSettings(temperature=1e-300, top_p=1.0, seed=1)
    likely = Sampler(cold).choose(np.array(row), [])
    assert row[likely] == max(row)
