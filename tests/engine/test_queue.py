"""The queue of requests: in order, each answered once, sixteen at a time, whatever the words."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from crystalline.engine import board as b
from crystalline.engine.obeying import Obeying, RefusedError
from crystalline.engine.queue import Answer, RequestQueue
from crystalline.engine.requests import Wish
from crystalline.ipc.arena import Arena, Layout


@pytest.fixture
def queue(tmp_path: Path) -> RequestQueue:
    return RequestQueue(b.Board(Arena.create(Layout(b.engine_regions(1, 1, 1)), tmp_path)))


def test_requests_are_answered_in_order_round_and_round(queue: RequestQueue) -> None:
    for number in range(3 * b.REQUEST_PLACES):
        assert queue.put(f"workers={number}", 10 + number, number) == number
        asked = queue.next()
        assert asked is not None
        assert (asked.number, asked.text) == (number, f"workers={number}")
        assert (asked.pid, asked.uid) == (10 + number, number)
        assert abs(asked.asked_at - time.time()) < 10
        assert queue.is_waiting
        answer = Answer(bool(number % 2), f"told {number}", "Do it.")
        queue.answer(asked, answer)
        assert not queue.is_waiting
        assert queue.next() is None
        assert queue.answered == number + 1
        assert queue.answer_to(number) == answer


def test_no_more_than_its_places(queue: RequestQueue) -> None:
    for number in range(b.REQUEST_PLACES):
        assert queue.put("pause", 1, 1) == number
    assert queue.put("pause", 1, 1) is None
    asked = queue.next()
    assert asked is not None
    queue.answer(asked, Answer(True, ""))
    assert queue.put("resume", 1, 1) == b.REQUEST_PLACES
    assert queue.put("pause", 1, 1) is None


@pytest.mark.parametrize("text", ["", "é" * 1000, "a\0b", "x" * 511, "x" * 512, "x" * 513])
def test_words_of_any_length(queue: RequestQueue, text: str) -> None:
    queue.put("y" * 600, 1, 1)
    asked = queue.next()
    assert asked is not None
    queue.answer(asked, Answer(False, text))
    found = queue.answer_to(0)
    assert not found.ok
    assert found.told[:100] == text.replace("\0", found.told[1:2])[:100]
    assert len(found.told.encode()) <= b.REQUEST_TEXT_BYTES


def test_another_process_asks(queue: RequestQueue) -> None:
    pid = os.fork()
    if pid == 0:
        for number in range(40):
            while queue.put(f"workers={number}", os.getpid(), os.getuid()) is None:
                time.sleep(0.0005)
        os._exit(0)
    seen = []
    deadline = time.monotonic() + 20
    while len(seen) < 40 and time.monotonic() < deadline:
        if (asked := queue.next()) is not None:
            seen.append((asked.text, asked.pid))
            queue.answer(asked, Answer(True, asked.text))
    os.waitpid(pid, 0)
    assert seen == [(f"workers={number}", pid) for number in range(40)]


def test_every_request_is_told_of_with_its_answer(queue: RequestQueue) -> None:
    events: list[dict[str, Any]] = []
    done: list[Wish] = []

    def checkpoint(wish: Wish) -> str:
        done.append(wish)
        return "it is written"

    def refuse(_: Wish) -> str:
        raise RefusedError("it cannot be", advice="Leave it.")

    obeying = Obeying(queue, {"checkpoint": checkpoint}, lambda _, **v: events.append(v))
    obeying.add({"restore": refuse})
    for text in ("checkpoint=a", "restore=5", "pause", "dance", "workers+"):
        queue.put(text, 7, 8)
    assert obeying.is_wanted
    obeying.obey()
    assert not obeying.is_wanted
    assert done == [Wish("checkpoint", "a")]
    assert [(e["command"], e["argument"], e["ok"]) for e in events][:3] == [
        ("checkpoint", "a", True), ("restore", "5", False), ("pause", None, False),
    ]  # fmt: skip
    assert events[4]["command"] == "workers"
    assert events[4]["argument"] == "+"
    assert {(e["pid"], e["uid"]) for e in events} == {(7, 8)}
    assert queue.answer_to(1) == Answer(False, "it cannot be", "Leave it.")
    assert queue.answer_to(2).told == "this program knows no pause"
    assert queue.answer_to(3).told.startswith("'dance' is no request")


def test_what_waits_at_the_end_is_done_where_it_can_be(queue: RequestQueue) -> None:
    handlers = dict.fromkeys(("checkpoint", "workers", "stop"), lambda _: "done")
    obeying = Obeying(queue, handlers, lambda *_, **__: None)
    for text in ("checkpoint=a", "workers=3", "workers+", "stop"):
        queue.put(text, 1, 1)
    obeying.finish(("checkpoint", "stop"), "the run has ended")
    assert [queue.answer_to(n).ok for n in range(4)] == [True, False, False, True]
    assert queue.answer_to(1).told == "the run has ended"
