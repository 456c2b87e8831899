"""The switch for faults: what it takes, how passages are counted, and what it costs when off."""

from __future__ import annotations

import errno
import os
import re
import signal
import time
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest

from crystalline import faults
from crystalline.cli.run import run_command
from crystalline.errors import UsageError
from crystalline.faults import (
    COUNTS_VARIABLE,
    NODE_ZERO,
    POINTS,
    ROLES,
    SPHERE,
    VARIABLE,
    Counts,
    Fault,
    parse,
    play,
    point,
    set_up,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _off_afterwards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv(COUNTS_VARIABLE, raising=False)
    yield
    os.environ.pop(VARIABLE, None)
    os.environ.pop(COUNTS_VARIABLE, None)
    set_up(SPHERE)


@pytest.fixture
def counts(tmp_path: Path) -> Iterator[Counts]:
    found = Counts.open(str(tmp_path / "counts"))
    yield found
    found.close()


def switch_on(text: str, tmp_path: Path, role: str = SPHERE) -> None:
    os.environ[VARIABLE] = text
    os.environ[COUNTS_VARIABLE] = str(tmp_path / "counts")
    set_up(role)


# The table, the code and the page


def points_in_the_code() -> list[str]:
    found = []
    for path in sorted((ROOT / "crystalline").rglob("*.py*")):
        if path.suffix in (".py", ".pyx") and path.name != "faults.py":
            text = path.read_text("utf-8")
            calls = re.findall(r"\bpoint\(([^)]*)\)|\b_pass_point\(([^)]*)\)", text)
            found += [one or other for one, other in calls]
    declared = ["(<bytes>name", "const char* name"]  # the hook of compiled code itself
    return [call.strip('"') for call in found if call not in declared]


def test_the_table_names_the_points_of_the_code_and_no_others() -> None:
    assert sorted(set(points_in_the_code())) == sorted(POINTS)


def test_each_point_says_who_passes_it_and_what_happens() -> None:
    for found in POINTS.values():
        assert found.roles, found.name
        assert set(found.roles) <= set(ROLES), found.name
        assert re.fullmatch(r"[a-z]+\.[a-z]+", found.name)
        assert found.what, found.name


def test_the_page_has_a_row_for_each_point() -> None:
    page = (ROOT / "docs" / "faults.md").read_text("utf-8")
    rows = re.findall(r"^\| `[a-z]+\.[a-z]+` .*$", page, re.MULTILINE)
    assert rows == [
        f"| `{p.name}` | {', '.join(p.roles)} | {p.what} | {', '.join(p.actions)} |"
        for p in POINTS.values()
    ]


# Texts


def test_what_can_be_asked_for() -> None:
    assert parse("barrier.claimed=kill") == [Fault("barrier.claimed", "kill")]
    assert parse(" arena.map=fail:ENOMEM@2+/node-zero , node.step=delay:0.5,") == [
        Fault("arena.map", "fail", at=2, lasts=True, role=NODE_ZERO, errno=errno.ENOMEM),
        Fault("node.step", "delay", seconds=0.5),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "asks for nothing"),
        ("barrier.claimed", "Write NAME=ACTION"),
        ("barier.claimed=kill", "no such point. Did you mean barrier.claimed?"),
        ("xyz=kill", "no such point. They are listed in docs/faults.md."),
        ("barrier.claimed=explode", "Use one of: kill, stop, delay, fail."),
        ("barrier.claimed=", "Use one of: kill, stop, delay, fail."),
        ("node.step=fail", "Use one of: kill, stop, delay."),
        ("barrier.claimed=kill@0", "the number of a passage, from 1"),
        ("barrier.claimed=kill@", "the number of a passage, from 1"),
        ("barrier.claimed=kill@1e9", "the number of a passage, from 1"),
        ("barrier.claimed=kill@9999999999", "the number of a passage, from 1"),
        ("barrier.claimed=kill/launcher", "of that role passes there. Use one of: sphere."),
        ("barrier.claimed=kill/", "no process of that role passes there"),
        ("arena.map=fail:NOSUCH", "an error's name"),
        ("arena.map=fail:errorcode", "an error's name"),
        ("arena.map=delay:nan", "come seconds"),
        ("arena.map=delay:-1", "come seconds"),
        ("arena.map=delay:soon", "come seconds"),
        ("arena.map=kill:9", "kill takes nothing after a colon"),
        (",".join(["arena.map=kill"] * 65), "asks for 65 faults. There can be 64."),
    ],
)  # fmt: skip
def test_a_mistake_is_named(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert f"the environment variable {VARIABLE}" in str(caught.value)


def test_a_command_says_so_and_does_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "barrier.claimed=explode")
    assert run_command("cllm-train", lambda _: pytest.fail("it has begun"), []) == 2
    assert capsys.readouterr().err.startswith("cllm-train: error: the environment variable CRYST")


def test_counts_that_cannot_be_kept_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "barrier.claimed=kill")
    monkeypatch.setenv(COUNTS_VARIABLE, "/no/such/folder/counts")
    with pytest.raises(UsageError, match="cannot be opened \\(No such file"):
        set_up(SPHERE)


# What happens


def test_nothing_happens_when_nothing_is_asked_for() -> None:
    set_up(SPHERE)
    point("barrier.claimed")
    point("there.is none such")  # is found by the test of the table, not at the cost of each call
    assert not faults.are_on()


def test_a_call_fails_at_its_passage_only(tmp_path: Path) -> None:
    switch_on("arena.map=fail:ENOMEM@2", tmp_path, NODE_ZERO)
    point("arena.map")
    with pytest.raises(OSError, match="Cannot allocate memory") as caught:
        point("arena.map")
    assert caught.value.errno == errno.ENOMEM
    point("arena.map")


def test_a_call_fails_from_a_passage_on(tmp_path: Path) -> None:
    switch_on("arena.map=fail@2+/node-zero", tmp_path, NODE_ZERO)
    point("arena.map")
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output error"):
            point("arena.map")
    play(SPHERE)
    point("arena.map")


def test_a_delay_lasts(tmp_path: Path, counts: Counts) -> None:
    switch_on("barrier.claimed=delay:0.05", tmp_path)
    before = time.monotonic()
    point("barrier.claimed")
    assert time.monotonic() - before >= 0.05
    assert counts.fired(0)


def test_processes_count_together(tmp_path: Path, counts: Counts) -> None:
    """Of five forked processes that pass one point three times each, one dies, at the seventh."""
    switch_on("barrier.claimed=kill@7", tmp_path)
    children = [_fork_and_pass("barrier.claimed", 3) for _ in range(5)]
    ends = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children}
    dead = [pid for pid, code in ends.items() if code == -signal.SIGKILL]
    assert len(dead) == 1
    assert counts.pid(0) == dead[0]
    assert counts.role(0) == SPHERE
    assert 13 <= counts.passed("barrier.claimed", SPHERE) <= 15
    assert counts.passed("barrier.claimed", NODE_ZERO) == 0


def test_recovery_is_the_next_end_of_a_phase(tmp_path: Path, counts: Counts) -> None:
    switch_on("barrier.claimed=delay:0", tmp_path)
    point("handover.done")
    point("barrier.claimed")
    assert counts.recovered_s(0) is None
    time.sleep(0.02)
    point("handover.done")
    found = counts.recovered_s(0)
    assert found is not None
    assert 0.02 <= found < 5.0
    point("handover.done")
    assert counts.recovered_s(0) == found


def test_children_find_the_counts_without_a_file() -> None:
    os.environ[VARIABLE] = "barrier.claimed=kill@2"
    set_up(SPHERE)
    assert os.environ[COUNTS_VARIABLE].startswith(f"/proc/{os.getpid()}/fd/")
    point("barrier.claimed")
    pid = _fork_and_pass("barrier.claimed", 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def _fork_and_pass(name: str, times: int) -> int:
    pid = os.fork()
    if pid == 0:
        for _ in range(times):
            point(name)
        os._exit(0)
    return pid


def test_a_point_costs_next_to_nothing_when_it_is_off() -> None:
    """Some hundred are passed in a step of `tiny`, which takes tens of milliseconds."""
    set_up(SPHERE)
    calls = 20_000
    each_s = min(timeit.repeat(lambda: point("barrier.claimed"), number=calls, repeat=7)) / calls
    assert each_s < 0.5e-6
