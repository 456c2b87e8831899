"""The tree of spheres by `control RUN tree`: of a run that goes on, and from a status.json."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from crystalline.cli import control
from crystalline.train.stats import Snapshot
from crystalline.train.statusfile import StatusFile
from crystalline.train.tree import balls, tree_lines
from tests.cli.test_control_states import asking, launched
from tests.ui.fake_snapshots import extreme_snapshot, fake_snapshot

pytestmark = pytest.mark.timeout(60)

EXTREME = dataclasses.replace(extreme_snapshot(40), tokens=10**18)  # more digits are not read


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    def ask(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = control.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return ask


def deep(count: int = 5) -> Snapshot:
    """Spheres 0 and 1 below Node Zero, all others below sphere 1."""
    snapshot = fake_snapshot(spheres=count)
    spheres = tuple(
        dataclasses.replace(
            sphere, id=index + 10, parent=-1 if index < 2 else 1, level=1 if index < 2 else 2,
            place=index % 2 if index < 2 else index - 2, group=index % 12,
            state="control" if index == 1 else "compute", lanes_done=0 if index == 1 else 100,
        )
        for index, sphere in enumerate(snapshot.spheres)
    )  # fmt: skip
    return dataclasses.replace(snapshot, spheres=spheres)


def test_a_control_has_the_share_of_all_below_it() -> None:
    found = {ball.row: ball for ball in balls(deep())}
    assert {row: ball.role for row, ball in found.items()} == {
        0: "leaf", 1: "control", 2: "leaf", 3: "leaf", 4: "leaf",
    }  # fmt: skip
    assert found[1].share == 0.75
    assert [found[row].share for row in (0, 2, 3, 4)] == [0.25] * 4
    assert found[3].id == 13
    assert (found[3].parent, found[3].level, found[3].position) == (1, 2, 1)


def test_lines_are_indented_by_level() -> None:
    lines = tree_lines(deep())
    assert [line.split(":")[0] for line in lines] == [
        "Node Zero", "  sphere 0", "  sphere 1", "    sphere 2", "    sphere 3", "    sphere 4",
        "work over the groups",
    ]  # fmt: skip
    assert lines[-1] == "work over the groups: 2.000 bits of 3.585"


def test_a_run_that_goes_on_and_one_that_has_ended(tmp_path: Path, ask: Any) -> None:
    run_dir = tmp_path / "run"
    picture = tmp_path / "tree.svg"
    with launched(run_dir, depth="2", workers=3, options={"naps": {"compute": 0.002}}) as process:
        with asking(run_dir) as run:
            run.wait_for("training")
            assert run.outcome(run.ask("spawn", [1, 2]))["ok"]
            code, out, err = ask(run_dir, "tree")
            assert (code, err) == (0, "")
            assert out.splitlines()[0] == "Node Zero"
            assert len(re.findall(r"^  sphere \d+: ", out, re.MULTILINE)) == 3
            assert len(re.findall(r"^    sphere \d+: ", out, re.MULTILINE)) == 2
            assert run.ask("stop")["ok"]
        assert process.wait(20) == 75
    code, out, err = ask(run_dir, "tree", "--dot", "--svg", picture)
    assert (code, err) == (0, "")
    nodes = set(re.findall(r"^  (s_\d+) \[.*shape=(box|ellipse)", out, re.MULTILINE))
    edges = re.findall(r"^  (\w+) -> (s_\d+);$", out, re.MULTILINE)
    assert sorted(shape for _, shape in nodes) == ["box"] + ["ellipse"] * 4
    assert {child for _, child in edges} == {name for name, _ in nodes}
    assert sum(parent == "node_zero" for parent, _ in edges) == 3
    assert ET.parse(picture).getroot().tag.endswith("svg")
    assert ask(run_dir / "status.json", "tree", "--dot") == (0, out, "")
    code, text, _ = ask(run_dir, "tree", "--json")
    assert len(json.loads(text)["spheres"]) == 5


@pytest.mark.parametrize("snapshot", [fake_snapshot(), EXTREME, deep(144)])
def test_from_a_status_that_was_saved(tmp_path: Path, ask: Any, snapshot: Snapshot) -> None:
    StatusFile(tmp_path).close(snapshot, "finished")
    for argv in ([], ["--dot"], ["--svg", tmp_path / "x.svg"]):
        code, _, err = ask(tmp_path / "status.json", "tree", *argv)
        assert (code, err) == (0, "")
    ET.parse(tmp_path / "x.svg")


@pytest.mark.parametrize(
    ("change", "value"),
    [("parent", "x"), ("index", None), ("lanes_done", "many"), ("level", 1.5), ("state", 3),
     ("id", True), ("place", [1]), ("unheard_of", 1)],
)  # fmt: skip
def test_a_status_that_makes_no_sense_is_told(
    tmp_path: Path, ask: Any, change: str, value: object
) -> None:
    StatusFile(tmp_path).close(fake_snapshot(), "finished")
    place = tmp_path / "status.json"
    content = json.loads(place.read_text())
    content["spheres"][1][change] = value
    place.write_text(json.dumps(content))
    code, out, err = ask(place, "tree", "--dot")
    assert (code, out) == (4, "")
    assert "status.json is no status of a run" in err
    assert err.count("\n") == 1


def test_a_tree_that_is_none_is_drawn_all_the_same(tmp_path: Path, ask: Any) -> None:
    """Parents in a circle, or nowhere: a file may say anything."""
    snapshot = deep()
    rows = [*snapshot.spheres]
    rows[1] = dataclasses.replace(rows[1], parent=2, place=-5)
    rows[2] = dataclasses.replace(rows[2], parent=1, level=-3, group=99)
    rows[3] = dataclasses.replace(rows[3], parent=77)
    StatusFile(tmp_path).close(dataclasses.replace(snapshot, spheres=tuple(rows)), "finished")
    for argv in ([], ["--dot"], ["--svg", tmp_path / "x.svg"]):
        assert ask(tmp_path / "status.json", "tree", *argv)[::2] == (0, "")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["status", "--dot"], 2, "--dot is given with the command status. Use it with tree."),
        (["pause", "--svg", "x"], 2, "--svg is given with the command pause."),
        (["tree", "3"], 2, "tree takes no argument, and got '3'"),
        (["tree", "--svg", "nowhere/x.svg"], 2, "--svg nowhere/x.svg cannot be written (No such"),
    ],
)
def test_mistakes(
    tmp_path: Path, ask: Any, monkeypatch: pytest.MonkeyPatch, argv: list[str], code: int,
    words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    StatusFile(tmp_path).close(fake_snapshot(), "finished")
    found, out, err = ask(tmp_path / "status.json", *argv)
    assert (found, out) == (code, "")
    assert err.startswith(f"cllm-control: error: {words}")
    assert ask(tmp_path / "nothing", "tree")[0] == 4
    assert ask(tmp_path, "tree")[0] == 0
