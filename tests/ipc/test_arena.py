from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crystalline.errors import EngineError
from crystalline.ipc.arena import SHM_DIR, Arena, Layout, Region, arena_name, sweep_stale

LAYOUT = Layout(
    [
        Region("bytes", "uint8", (3, 7)),
        Region("words", "int64", (5,)),
        Region("page", "float32", (33,), align=4096),
        Region("empty", "float64", (0, 4)),
        Region("last", "int32", (1,)),
    ]
)


def test_regions_follow_each_other_aligned() -> None:
    ends = 0
    for region in LAYOUT.regions:
        offset = LAYOUT.offset(region.name)
        assert offset % region.align == 0
        assert ends <= offset < ends + region.align
        ends = offset + region.size_bytes
    assert LAYOUT.size_bytes == ends


def test_a_layout_survives_json() -> None:
    again = Layout.from_json(LAYOUT.to_json())
    assert again.regions == LAYOUT.regions


@pytest.mark.parametrize(("regions", "match"), [
    ([Region("a", "int8", (1,)), Region("a", "int8", (2,))], "two regions are called 'a'"),
    ([Region("a", "int8", (1,), align=48)], "alignment 48"),
    ([Region("a", "int8", (1,), align=4)], "alignment 4"),
])  # fmt: skip
def test_a_wrong_table_is_refused(regions: list[Region], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Layout(regions)


def test_two_mappings_see_the_same_memory(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    assert arena.path.parent == SHM_DIR
    other = Arena.attach(LAYOUT, arena.path)
    arena.unlink()
    assert not arena.path.exists()
    assert not arena["words"].any()
    arena["words"][:] = [5, 6, 7, 8, 9]
    arena["page"][32] = 2.5
    assert other["words"].tolist() == [5, 6, 7, 8, 9]
    assert other["page"][32] == 2.5
    assert other["bytes"].shape == (3, 7)
    arena.unlink()  # once more does nothing


def test_neighbors_do_not_overlap(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    arena.unlink()
    for number, region in enumerate(LAYOUT.regions, 1):
        arena[region.name][...] = number
    for number, region in enumerate(LAYOUT.regions, 1):
        assert (arena[region.name] == number).all()


def test_a_view_outlives_the_arena(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    arena.unlink()
    view = arena["page"]
    view[:] = 3
    del arena
    assert view.sum() == 99


def test_memory_is_allocated_at_once(tmp_path: Path) -> None:
    layout = Layout([Region("much", "uint8", (3_000_000,))])
    arena = Arena.create(layout, tmp_path)
    allocated = os.stat(arena.path).st_blocks * 512  # noqa: PTH116
    arena.unlink()
    assert allocated >= 3_000_000


def test_no_resource_tracker_is_started(tmp_path: Path) -> None:
    """It would unlink the arena behind its users' backs."""
    code = (
        "import sys; from pathlib import Path; from crystalline.ipc.arena import *\n"
        "a = Arena.create(Layout([Region('a', 'int8', (9,))]), Path(sys.argv[1]))\n"
        "b = Arena.attach(a.layout, a.path)\n"
        "from multiprocessing import resource_tracker as t\n"
        "print(t._resource_tracker._pid, a.path)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        cwd=Path(__file__).resolve().parents[2], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    tracker, _, path = done.stdout.strip().partition(" ")
    assert tracker == "None"
    assert Path(path).exists()  # left by a process that did not unlink …
    assert Path(path) in sweep_stale()  # … and swept, since that process is gone
    assert not Path(path).exists()


def _full(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    allocate = os.posix_fallocate

    def refuse(descriptor: int, offset: int, size: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        if target.parent in directories:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", refuse)


def test_a_full_dev_shm_makes_a_file_in_the_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _full(monkeypatch, SHM_DIR)
    before = set(SHM_DIR.iterdir())
    with caplog.at_level(logging.WARNING):
        arena = Arena.create(LAYOUT, tmp_path)
    assert "sharing memory through a file" in caplog.text
    assert arena.path.parent == tmp_path
    assert set(SHM_DIR.iterdir()) - before == set()
    other = Arena.attach(LAYOUT, arena.path)
    arena["words"][2] = 42
    assert other["words"].tolist() == [0, 0, 42, 0, 0]
    arena.unlink()
    assert list(tmp_path.iterdir()) == []


def test_room_nowhere_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _full(monkeypatch, SHM_DIR, tmp_path)
    with pytest.raises(EngineError, match=r"fit neither into /dev/shm nor into .*No space left"):
        Arena.create(LAYOUT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_arenas_of_the_dead_are_swept(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    dead = int(done.stdout)
    alive = arena_name()
    names = {
        f".cllm-0a-{dead}-77": True,
        f"cllm-0b-{dead}-0": True,
        f"cllm-0c-{os.getpid()}-1": True,  # our pid, another process
        alive: False,
        "." + alive: False,
        "cllm-notes": False,
        "cllm-my-notes-of-today": False,
        f"other-0a-{dead}-77": False,
    }
    for name in names:
        (tmp_path / name).touch()
    removed = {path.name for path in sweep_stale(tmp_path) if path.parent == tmp_path}
    assert removed == {name for name, stale in names.items() if stale}
    assert {path.name for path in tmp_path.iterdir()} == set(names) - removed


def test_views_have_the_types_of_the_table(tmp_path: Path) -> None:
    arena = Arena.create(LAYOUT, tmp_path)
    arena.unlink()
    assert {r.name: arena[r.name].dtype for r in LAYOUT.regions} == {
        "bytes": np.uint8, "words": np.int64, "page": np.float32, "empty": np.float64,
        "last": np.int32,
    }  # fmt: skip
