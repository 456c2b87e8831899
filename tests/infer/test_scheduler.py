"""Many texts over one decoder: fair passes, the same text as alone, and nothing lost on the way."""

from __future__ import annotations

import random

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError
from crystalline.infer.beam import BeamSearch, beam_search
from crystalline.infer.engine import Generation, GenerationSettings
from crystalline.infer.sampling import SamplingSettings
from crystalline.infer.scheduler import SHARED_TOKENS, Job, Scheduler, Scoring
from crystalline.model.config import ModelConfig
from crystalline.model.decode import Decoder
from crystalline.model.params import initialize, parameter_table
from tests.infer.fake_model import FakeDecoder, noise

CHARS = "abcdefghijklm"


@pytest.fixture(scope="module")
def char():
    return Tokenizer.train("char", [CHARS], 0)


def fake(slots, seq_len=24, chunk=0):
    return FakeDecoder(noise(13), vocab_size=13, seq_len=seq_len, slots=slots, chunk=chunk)


def text(tokenizer, prompt, seed=0, longest=12):
    knobs = SamplingSettings(temperature=1.5, top_p=1.0, seed=seed)
    return Generation(tokenizer, prompt, GenerationSettings(longest, (), knobs))


def alone(tokenizer, decoder, prompt, seed=0, longest=12):
    run = text(tokenizer, prompt, seed, longest)
    scheduler = Scheduler(decoder)
    scheduler.submit(run)
    scheduler.finish(run)
    return run.tokens


class Endless(Job):
    """A job that says 1 for ever; `at` has the passes in which it came on."""

    def __init__(self, prompt, clock):
        super().__init__(prompt)
        self.clock, self.at = clock, []

    def advance(self, rows):
        assert len(rows) == 1
        self.at.append(self.clock[0])
        return [(0, 1)]


def passes(scheduler, clock, count):
    for _ in range(count):
        clock[0] += 1
        scheduler.step()


# --- the same text --------------------------------------------------------------------------------


@pytest.mark.parametrize(("slots", "chunk"), [(1, 1), (2, 2), (3, 5), (4, 64), (7, 7)])
def test_a_text_is_the_same_alone_and_among_others(char, slots, chunk):
    """Any number of slots and tokens a pass, arrivals at any time, contexts that fill up."""
    rng = random.Random(slots)
    asked = [
        (
            [rng.randrange(13) for _ in range(rng.choice([1, 3, 9, 24, 40]))],
            seed,
            rng.randint(1, 50),
        )
        for seed in range(12)
    ]
    decoder = fake(slots, chunk=chunk)
    scheduler = Scheduler(decoder)
    runs = []
    for prompt, seed, longest in asked:
        runs.append(text(char, prompt, seed, longest))
        scheduler.submit(runs[-1])
        for _ in range(rng.randrange(4)):
            scheduler.step()
    for run in runs:
        scheduler.finish(run)
    assert [run.tokens for run in runs] == [alone(char, fake(1), *ask) for ask in asked]
    assert all(run.finish_reason == "length" for run in runs)
    assert scheduler.is_idle
    assert max(sum(map(len, call.values())) for call in decoder.calls) <= chunk


def test_beams_and_texts_share_the_passes(char):
    def search():
        return BeamSearch([2, 0, 1], width=3, max_tokens=30, vocab_size=13, ends=lambda _: None)

    decoder = fake(5, seq_len=16, chunk=7)
    scheduler = Scheduler(decoder)
    jobs = [text(char, [1] * 12, 1, 40), search(), text(char, [3], 2, 9), search()]
    for job in jobs:
        scheduler.submit(job)
    for job in jobs:
        scheduler.finish(job)
    expected = search()
    lone = Scheduler(fake(3, seq_len=16))
    lone.submit(expected)
    lone.finish(expected)
    assert jobs[1].found == jobs[3].found == expected.found
    assert len(expected.found[0].tokens) == 30
    assert jobs[0].tokens == alone(char, fake(1, seq_len=16), [1] * 12, 1, 40)
    assert jobs[2].tokens == alone(char, fake(1, seq_len=16), [3], 2, 9)


@pytest.fixture(scope="module")
def weights():
    flat = np.zeros(parameter_table(TINY).size, np.float32)
    initialize(TINY, flat, seed=3)
    flat *= 6.0  # far from even
    return flat


TINY = ModelConfig(vocab_size=13, seq_len=24, num_layers=2, num_heads=2, embed_dim=24)


def test_a_real_model_says_the_same_alone_and_among_others(char, weights):
    rng = random.Random(5)
    asked = [([rng.randrange(13) for _ in range(rng.randint(1, 14))], s, 40) for s in range(6)]
    scheduler = Scheduler(Decoder(TINY, weights, slots=4))
    runs = [text(char, *ask) for ask in asked]
    for run in runs:
        scheduler.submit(run)
    for run in runs:
        scheduler.finish(run)
    assert [run.tokens for run in runs] == [
        alone(char, Decoder(TINY, weights), *ask) for ask in asked
    ]
    assert len({tuple(run.tokens) for run in runs}) == 6


# --- fairness -------------------------------------------------------------------------------------


def test_a_long_prompt_holds_nobody_up():
    """While it is read in chunks, each text that is being written gets a token in every pass."""
    clock = [0]
    decoder = fake(3, seq_len=200, chunk=8)
    scheduler = Scheduler(decoder)
    writers = [Endless([2, 3], clock), Endless([4], clock)]
    for job in writers:
        scheduler.submit(job)
    passes(scheduler, clock, 3)
    reader = Endless([5] * 60, clock)
    scheduler.submit(reader)
    passes(scheduler, clock, 12)
    assert [job.at for job in writers] == [list(range(1, 16))] * 2
    assert reader.at == [13, 14, 15]  # 60 tokens, 6 in a pass
    assert [len(call[2]) for call in decoder.calls if 2 in call] == [6] * 10 + [1, 1]


def test_prompts_are_read_in_order_of_arrival():
    clock = [0]
    scheduler = Scheduler(fake(3, seq_len=200, chunk=10))
    jobs = [Endless([start] * 25, clock) for start in (2, 3, 4)]
    for job in jobs:
        scheduler.submit(job)
    passes(scheduler, clock, 12)
    assert [job.at[0] for job in jobs] == [3, 6, 9]  # the second reads with what the first leaves


def test_a_full_context_is_read_again_in_chunks_and_holds_nobody_up():
    clock = [0]
    decoder = fake(2, seq_len=40, chunk=6)
    scheduler = Scheduler(decoder)
    short, full = Endless([3], clock), Endless([2] * 39, clock)
    scheduler.submit(short)
    scheduler.submit(full)
    passes(scheduler, clock, 20)
    assert short.at == list(range(1, 21))
    # 39 tokens in 8 passes (the first with 5), one more, then 20 in 4 passes of 5
    assert full.at[:3] == [8, 9, 13]


def test_nobody_waits_for_ever(char):
    """With one token more than slots in a pass, everything that comes is done in time."""
    scheduler = Scheduler(fake(3, seq_len=64, chunk=3))
    rng = random.Random(2)
    runs = [text(char, [rng.randrange(13)] * rng.randint(1, 60), s, 20) for s in range(15)]
    for run in runs:
        scheduler.submit(run)
    count = 0
    while not scheduler.is_idle:
        scheduler.step()
        count += 1
    assert all(len(run.tokens) == 20 for run in runs)
    assert count <= sum(len(run.prompt) + 20 for run in runs)


def test_who_needs_several_slots_is_not_passed():
    clock = [0]
    scheduler = Scheduler(fake(3))
    first, second = Endless([1], clock), Endless([2], clock)
    wide = BeamSearch([3], width=3, max_tokens=2, vocab_size=13, ends=lambda _: None)
    last = Endless([4], clock)
    for job in (first, second, wide, last):
        scheduler.submit(job)
    passes(scheduler, clock, 4)
    assert (last.at, scheduler.waiting) == ([], 2)
    scheduler.cancel(first)
    scheduler.cancel(second)
    passes(scheduler, clock, 3)
    assert wide.done
    assert last.at == [7]


def test_a_chunk_has_a_token_for_each_slot():
    with pytest.raises(ValueError, match="a chunk of 2 tokens for 3 slots"):
        Scheduler(fake(3, chunk=2))


def test_a_job_has_to_fit():
    with pytest.raises(ValueError, match="a job of 4 slots"):
        beam_search(
            Scheduler(fake(3)), BeamSearch([1], width=4, max_tokens=2, vocab_size=13, ends=str)
        )
    with pytest.raises(ValueError, match="at least one token"):
        Endless([], [0])
    with pytest.raises(TypeError, match="str is no work"):
        Scheduler(fake(1)).submit("text")


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(12))
def test_a_job_can_be_canceled_at_any_time(char, after):
    """Waiting, reading, writing: its slot is free at once, and the others notice nothing."""
    decoder = fake(2, chunk=3)
    scheduler = Scheduler(decoder)
    runs = [text(char, [seed] * 7, seed, 6) for seed in range(4)]
    for run in runs:
        scheduler.submit(run)
    for _ in range(after):
        scheduler.step()
    for canceled in (runs[1], runs[3]):
        scheduler.cancel(canceled)
        scheduler.cancel(canceled)  # again does nothing
    for run in runs:
        scheduler.finish(run)
    assert scheduler.is_idle
    for seed in (0, 2):
        assert runs[seed].tokens == alone(char, fake(1), [seed] * 7, seed, 6)
    for canceled in (runs[1], runs[3]):
        if len(canceled.tokens) < 6:
            assert canceled.finish_reason == "interrupted"


def test_who_stops_listening_cancels(char):
    scheduler = Scheduler(fake(1))
    run, other = text(char, [1, 2], 1, 30), text(char, [3], 2, 5)
    scheduler.submit(run)
    scheduler.submit(other)
    stream = scheduler.pieces(run)
    next(stream)
    stream.close()
    assert (run.done, run.finish_reason, len(run.tokens)) == (True, "interrupted", 1)
    assert "".join(scheduler.pieces(other)) == other.text
    assert len(other.tokens) == 5


def test_an_error_ends_its_own_text_only(char):
    def rule(tokens):
        return np.full(13, np.nan) if tokens[0] == 5 and len(tokens) > 3 else noise(13)(tokens)

    scheduler = Scheduler(FakeDecoder(rule, vocab_size=13, seq_len=24, slots=2))
    broken, fine = text(char, [5], 1), text(char, [2], 2)
    scheduler.submit(broken)
    scheduler.submit(fine)
    scheduler.finish(fine)
    with pytest.raises(CheckpointError, match="NaN"):
        scheduler.finish(broken)
    assert len(broken.tokens) == 3
    assert fine.tokens == alone(char, fake(1), [2], 2)


def test_a_job_that_breaks_off_is_done_and_the_others_go_on(char):
    class Broken(Endless):
        def advance(self, rows):
            super().advance(rows)
            raise KeyboardInterrupt

    scheduler = Scheduler(fake(3))
    run, broken, other = text(char, [2], 2), Broken([5], [0]), text(char, [3], 3)
    for job in (run, broken, other):
        scheduler.submit(job)
    with pytest.raises(KeyboardInterrupt):
        scheduler.step()
    assert broken.done
    scheduler.finish(run)
    scheduler.finish(other)
    assert scheduler.is_idle
    assert run.tokens == alone(char, fake(1), [2], 2)
    assert other.tokens == alone(char, fake(1), [3], 3)


@pytest.mark.parametrize("call", ["extend", "reorder"])
@pytest.mark.parametrize("done", [False, True])
def test_ctrl_c_in_the_middle_of_a_pass_leaves_the_rest_right(char, monkeypatch, call, done):
    """Before or after the decoder did its part, what the caches hold is never believed wrongly."""
    decoder = fake(4, seq_len=16)
    scheduler = Scheduler(decoder)
    run = text(char, [1, 2, 3], 3, 20)
    search = BeamSearch([2, 0], width=3, max_tokens=20, vocab_size=13, ends=lambda _: None)
    scheduler.submit(run)
    scheduler.submit(search)
    for _ in range(3):
        scheduler.step()
    true = getattr(FakeDecoder, call)

    def interrupted(self, *args):
        if done:
            true(self, *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeDecoder, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(9):
            scheduler.step()
    monkeypatch.undo()
    scheduler.cancel(search)  # it may have chosen what was never appended
    scheduler.finish(run)
    assert run.tokens == alone(char, fake(1, seq_len=16), [1, 2, 3], 3, 20)

    def again() -> BeamSearch:
        return BeamSearch([2, 0], width=3, max_tokens=20, vocab_size=13, ends=lambda _: None)

    expected = beam_search(Scheduler(fake(3, seq_len=16)), again())
    assert beam_search(scheduler, again()) == expected


def test_ctrl_c_in_the_middle_of_a_copy_leaves_nothing_of_it(char, monkeypatch):
    decoder = fake(2, seq_len=64)
    scheduler = Scheduler(decoder)
    prompt = [1] * 40
    first, second, third = (
        text(char, prompt[:20], 1, 1),
        text(char, prompt, 2),
        text(char, prompt, 3),
    )
    scheduler.submit(second)
    scheduler.step()
    scheduler.submit(first)
    scheduler.finish(first)  # its slot holds 20 of the third's tokens, the second's 39
    scheduler.submit(third)

    def torn(self, sources):
        for slot, source in enumerate(sources):
            if slot != source:
                self._caches[slot] = (9,) * len(self._caches[source])
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeDecoder, "reorder", torn)
    with pytest.raises(KeyboardInterrupt):
        scheduler.step()
    monkeypatch.undo()
    scheduler.cancel(second)
    scheduler.submit(text(char, [5], 5))  # in its slot, so that there is nothing to copy
    scheduler.finish(third)
    assert third.tokens == alone(char, fake(1, seq_len=64), prompt, 3)


# --- what is read only once -----------------------------------------------------------------------


def test_samples_of_a_prompt_read_it_once(char):
    prompt = list(range(13)) + list(range(10, -1, -1))  # 24, of which the last is read by each
    decoder = fake(4, seq_len=64, chunk=8)
    scheduler = Scheduler(decoder)
    runs = [text(char, prompt, seed) for seed in range(6)]
    for run in runs:
        scheduler.submit(run)
    for run in runs:
        scheduler.finish(run)
    assert scheduler.figures.prompt_tokens == 24 + 5
    assert decoder.copies == 3
    assert [run.tokens for run in runs] == [
        alone(char, fake(1, seq_len=64), prompt, seed) for seed in range(6)
    ]


def test_a_conversation_goes_on_where_it_was(char):
    decoder = fake(1, seq_len=64)
    scheduler = Scheduler(decoder)
    first = text(char, [1] * SHARED_TOKENS, 1)
    scheduler.submit(first)
    scheduler.finish(first)
    prompt = [*first.prompt, *first.tokens, 7, 8, 9]
    second = text(char, prompt, 2)
    scheduler.submit(second)
    before = len(decoder.calls)
    scheduler.finish(second)
    assert decoder.calls[before] == {0: (first.tokens[-1], 7, 8, 9)}
    assert second.tokens == alone(char, fake(1, seq_len=64), prompt, 2)


def test_few_common_tokens_are_read_again(char):
    prompt = [1] * SHARED_TOKENS
    for count, copies in ((SHARED_TOKENS, 0), (SHARED_TOKENS + 1, 1)):
        decoder = fake(2, seq_len=64)
        scheduler = Scheduler(decoder)
        runs = [text(char, [*prompt, 2][:count], seed) for seed in range(2)]
        for run in runs:
            scheduler.submit(run)
        for run in runs:
            scheduler.finish(run)
        assert decoder.copies == copies


def test_a_canceled_reader_is_waited_for_no_more(char):
    decoder = fake(2, seq_len=64, chunk=20)
    scheduler = Scheduler(decoder)
    prompt = [1] * 40
    runs = [text(char, prompt, seed) for seed in range(2)]
    for run in runs:
        scheduler.submit(run)
    scheduler.step()
    scheduler.cancel(runs[0])
    scheduler.finish(runs[1])
    assert runs[1].tokens == alone(char, fake(1, seq_len=64), prompt, 1)
    assert scheduler.figures.prompt_tokens == 40  # the 20 that were read are used


# --- measuring ------------------------------------------------------------------------------------


def test_texts_are_measured_beside_others():
    """One window a pass, in turns, while a text goes on in every pass."""
    clock = [0]
    decoder = fake(1)
    scheduler = Scheduler(decoder)
    writer = Endless([2], clock)
    windows = [np.arange(start, start + 4, dtype=np.int32) for start in range(5)]
    taken = {"a": [], "b": []}
    scorings = [
        Scoring(
            windows[: 3 + 2 * place], lambda part, name=name: taken[name].append((clock[0], part))
        )
        for place, name in enumerate(taken)
    ]
    for work in (writer, *scorings):
        scheduler.submit(work)
    passes(scheduler, clock, 10)
    assert writer.at == list(range(1, 11))
    assert [at for at, _ in taken["a"]] == [1, 3, 5]
    assert [at for at, _ in taken["b"]] == [2, 4, 6, 8, 9]
    assert all(work.done for work in scorings)
    for found in taken.values():
        for (_, part), window in zip(found, windows, strict=False):
            np.testing.assert_array_equal(part, fake(1).score(window))


def test_a_measurement_that_fails_ends():
    def take(_):
        raise CheckpointError("broken")

    scheduler = Scheduler(fake(1))
    scoring = Scoring([np.int32([1, 2])], take)
    scheduler.submit(scoring)
    with pytest.raises(CheckpointError, match="broken"):
        scheduler.finish(scoring)
    assert scheduler.is_idle


def test_figures_are_divided_between_prompts_and_texts(char):
    scheduler = Scheduler(fake(2, seq_len=16))
    run = text(char, [1, 2, 3], 1, 30)
    scheduler.submit(run)
    scheduler.step()
    figures = scheduler.figures
    assert (figures.prompt_tokens, figures.decode_tokens, figures.decode_seconds) == (3, 0, 0.0)
    assert figures.prompt_seconds > 0
    read_s = figures.prompt_seconds
    scheduler.finish(run)  # full contexts are read again for the text, not for its prompt
    assert (figures.prompt_tokens, figures.decode_tokens) == (3, 29)
    assert figures.prompt_seconds == read_s
    assert figures.decode_seconds > 0
