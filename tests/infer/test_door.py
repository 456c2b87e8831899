"""Many threads at one scheduler: the texts they get, and that nobody is left waiting."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CheckpointError, CrystallineError, EngineError
from crystalline.infer.beam import BeamSearch
from crystalline.infer.door import Door
from crystalline.infer.engine import Generation, GenerationSettings
from crystalline.infer.sampling import SamplingSettings
from crystalline.infer.scheduler import Scheduler, Scoring
from tests.infer.fake_model import FakeDecoder, noise

V = 13


@pytest.fixture(scope="module")
def char():
    return Tokenizer.train("char", ["abcdefghijklm"], 0)


@pytest.fixture
def opened():
    """Return a function that opens a door with a thread behind it; all are closed in the end."""
    doors = []

    def open_door(rule=None, slots=3, serve=Door.serve):
        decoder = FakeDecoder(rule or noise(V), vocab_size=V, seq_len=24, slots=slots)
        door = Door(Scheduler(decoder))
        thread = threading.Thread(target=serve, args=(door,))
        thread.start()
        doors.append((door, thread))
        return door, decoder

    yield open_door
    for door, thread in doors:
        door.close()
        thread.join(timeout=20)
        assert not thread.is_alive()


def text(tokenizer, prompt, seed, longest=12):
    knobs = SamplingSettings(temperature=1.5, top_p=1.0, seed=seed)
    return Generation(tokenizer, prompt, GenerationSettings(longest, (), knobs))


def alone(tokenizer, *ask):
    run = text(tokenizer, *ask)
    scheduler = Scheduler(FakeDecoder(noise(V), vocab_size=V, seq_len=24))
    scheduler.submit(run)
    scheduler.finish(run)
    return run.text


def test_many_threads_get_their_own_texts(opened, char):
    door, _ = opened()
    found = {}

    def ask(seed):
        for turn in range(3):
            prompt = [seed, turn]
            found[seed, turn] = "".join(door.ask(text(char, prompt, seed, 5 + seed)))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert found == {
        (seed, turn): alone(char, [seed, turn], seed, 5 + seed)
        for seed in range(8)
        for turn in range(3)
    }


def test_pieces_come_as_they_are_made_and_who_leaves_cancels(opened, char):
    reached = threading.Event()

    def rule(tokens):
        if len(tokens) > 8:
            reached.set()
            time.sleep(0.001)
        return noise(V)(tokens)

    door, _ = opened(rule, slots=1)
    endless = text(char, [1], 1, 10**6)
    stream = door.ask(endless)
    next(stream)
    assert reached.wait(20)
    assert not endless.done
    stream.close()
    assert len("".join(door.ask(text(char, [2], 2)))) == 12  # the only slot is free again
    assert (endless.done, endless.finish_reason) == (True, "interrupted")


def test_measurements_go_through_it(opened):
    door, decoder = opened()
    taken = []
    assert list(door.ask(Scoring([np.int32([1, 2, 3])], taken.append))) == []
    np.testing.assert_array_equal(taken[0], decoder.score(np.int32([1, 2, 3])))


def test_an_error_reaches_its_asker_only(opened, char):
    door, _ = opened(lambda tokens: noise(V)(tokens) * (np.nan if tokens[0] == 5 else 1))
    with pytest.raises(CheckpointError, match="NaN"):
        list(door.ask(text(char, [5], 1)))
    wide = BeamSearch([1], width=9, max_tokens=2, vocab_size=V, ends=lambda _: None)
    with pytest.raises(CrystallineError, match="a job of 9 slots"):
        list(door.ask(wide))
    assert "".join(door.ask(text(char, [2], 2))) == alone(char, [2], 2)


def test_a_closed_door_leaves_nobody_waiting(opened, char):
    door, _ = opened()
    stream = door.ask(text(char, [1], 1, 10**6))
    next(stream)
    door.close()
    with pytest.raises(EngineError, match="nobody works"):
        list(stream)
    with pytest.raises(EngineError, match="nobody works"):
        list(door.ask(text(char, [2], 2)))


def test_a_server_that_fails_leaves_nobody_waiting(opened, char):
    def rule(tokens):
        if len(tokens) > 3:
            raise ZeroDivisionError
        return noise(V)(tokens)

    failed = []

    def serve(door):
        try:
            door.serve()
        except ZeroDivisionError as error:
            failed.append(error)

    door, _ = opened(rule, serve=serve)
    with pytest.raises(EngineError, match="nobody works"):
        list(door.ask(text(char, [1], 1)))
    assert failed
