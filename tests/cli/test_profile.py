"""`--profile`: a table, a trace that viewers take, and the bits of a run that has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crystalline._kernels.marks import PASSES
from crystalline.data.finding import find
from tests.surroundings import TEXT, own_surroundings

_TINY = """--tokenizer char --num-layers 2 --num-heads 2 --embed-dim 12 --seq-len 9 --batch-size 13
    --eval-interval 0 --save-interval 0 --workers 3 --plain --precision float32 --json"""
TINY = _TINY.split()


@pytest.fixture(autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    own_surroundings(tmp_path_factory, monkeypatch)


def check_trace(events: list[dict[str, Any]]) -> None:
    """Check what the Trace Event Format asks of complete and metadata events."""
    open_ends: dict[int, list[float]] = {}
    begins: dict[int, float] = {}
    for event in events:
        assert {"name", "ph", "pid", "tid"} <= event.keys()
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ph"] == "X"
        begin, end = event["ts"], event["ts"] + event["dur"]
        assert begin >= 0
        assert event["dur"] >= 0
        assert begin >= begins.get(event["tid"], 0.0)
        begins[event["tid"]] = begin
        stack = open_ends.setdefault(event["tid"], [])
        while stack and stack[-1] <= begin + 1e-6:
            stack.pop()
        assert not stack or end <= stack[-1] + 1e-6  # events of a thread nest
        stack.append(end)


def test_a_profile_is_a_table_and_a_trace(call_train, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    argv = [text, *TINY, "--max-steps", 70, "--checkpoint-dir"]
    code, out, err = call_train(*argv, tmp_path / "profiled", "--profile", path)
    assert code == 0, err
    document = json.loads(path.read_text())
    about = document["otherData"]
    assert (about["first_step"], about["steps"]) == (11, 50)
    assert about["counted"]["lanes"] == 50 * 12
    assert about["counted"]["tokens"] == 50 * 13 * 9
    assert about["system"]["minor faults"] >= 0
    assert "left_out" in about
    events = document["traceEvents"]
    check_trace(events)
    names = {event["name"] for event in events}
    passes = set(PASSES) - {"activation", "activation backward"}  # in products where it is GELU
    assert names >= passes
    assert {"compute", "reduce", "update", "handing over", "end of compute"} <= names
    rows = {row["name"]: row for row in about["rows"]}
    assert rows["compute"]["times"] >= 50 * 12
    inside = sum(rows[name]["seconds"] for name in (*passes, "the rest"))
    assert inside == pytest.approx(rows["compute"]["seconds"])
    assert rows["the rest"]["seconds"] > 0
    assert rows["attention"]["times"] == 2 * 50 * 12  # layers of each lane, in one chunk
    shares = [
        row["share"] for name, row in rows.items()
        if name not in (*PASSES, "the rest", "(without a permit)")
    ]  # fmt: skip
    assert sum(shares) == pytest.approx(1.0)
    assert "profile of steps 11 to 60: " in err
    assert "\n  attention backward " in err
    assert f"the profile of steps 11 to 60 is in {path}" in err
    # It changes no bits, and is no text.
    code, plain, _ = call_train(*argv, tmp_path / "plain")
    assert json.loads(plain)["weights_sha256"] == json.loads(out)["weights_sha256"]
    (tmp_path / "profiled.json").write_text('{"text": "theirs"}')
    found = [source.path.name for source in find([tmp_path]).sources]
    assert found == ["profiled.json", "text.txt"]
    # A profile is written over, nothing else.
    code, _, err = call_train("--resume", tmp_path / "plain", "--max-steps", 85, "--profile", path)
    assert code == 0, err
    assert json.loads(path.read_text())["otherData"]["first_step"] == 81
    assert json.loads(path.read_text())["otherData"]["steps"] == 5


def test_a_run_that_ends_too_soon_says_so(call_train, text: Path, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    code, _, err = call_train(text, *TINY, "--max-steps", 4, "--profile", path)
    assert code == 0
    assert "the run was over before its profile began, after 10 steps" in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "more", "wrong"),
    [
        ("text.txt", [], "text.txt is there already, and is no profile"),
        ("no/p.json", [], "p.json cannot be written. Name a file in a folder that is there."),
        ("p.json", ["--create"], "--create trains no step that --profile could tell of"),
    ],
)
def test_profiles_that_cannot_be(
    call_train, text: Path, tmp_path: Path, name: str, more: list[str], wrong: str
) -> None:
    code, _, err = call_train(text, *TINY, *more, "--profile", tmp_path / name)
    assert code == 2
    assert wrong in err
    assert text.read_text() == TEXT
