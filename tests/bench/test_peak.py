"""The measured peaks: that every one of them is there and plausible, and where sizes come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bench import peak
from crystalline._kernels import formats, isa
from crystalline._kernels.memory import TRAFFIC, aligned_empty, move


def _cache(folder: Path, kind: str, level: str, size: str, shared: str) -> None:
    folder.mkdir()
    for name, value in (("type", kind), ("level", level), ("size", size),
                        ("shared_cpu_list", shared)):  # fmt: skip
        (folder / name).write_text(value + "\n")


def test_caches_are_those_of_a_core(tmp_path: Path) -> None:
    _cache(tmp_path / "index0", "Data", "1", "48K", "0")
    _cache(tmp_path / "index1", "Instruction", "1", "64K", "0")
    _cache(tmp_path / "index2", "Unified", "2", "2048K", "0,32")
    _cache(tmp_path / "index3", "Unified", "3", "32M", "0-3,32-35")
    assert peak.caches(tmp_path) == {"L1": 48 << 10, "L2": 1 << 20, "L3": 4 << 20}
    assert peak.working_sets(peak.caches(tmp_path))["L3"] == 2 << 20
    assert peak.caches(tmp_path / "none") == {}
    assert [*peak.working_sets({})] == ["memory"]


@pytest.mark.parametrize("traffic", TRAFFIC)
@pytest.mark.parametrize("n", [64, 640])
def test_what_moves_is_what_is_counted(traffic: str, n: int) -> None:
    a, b = aligned_empty(n), aligned_empty(n)
    a[:], b[:] = np.arange(n), -1.0
    move(traffic, a, b)
    expected = {
        "read": np.full(n, -1.0, np.float32),
        "write": np.zeros(n, np.float32),
        "write past the cache": np.zeros(n, np.float32),
        "copy": np.arange(n, dtype=np.float32),
        "change": (~np.full(n, -1.0, np.float32).view(np.uint32)).view(np.float32),
    }
    np.testing.assert_array_equal(b, expected[traffic])
    np.testing.assert_array_equal(a, np.arange(n))


def test_what_cannot_be_moved() -> None:
    whole = aligned_empty(128)
    for a, b in ((whole[:63], whole[:63]), (whole[:64], whole), (whole[:0], whole[:0])):
        with pytest.raises(ValueError, match="multiple of 64"):
            move("copy", a, b)
    with pytest.raises(ValueError, match="cache lines"):
        move("copy", whole[1:65], whole[1:65])
    with pytest.raises(ValueError, match="traffic is 'swap', expected one of read, write"):
        move("swap", whole, whole)


def test_every_peak_is_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak, "MEMORY_BYTES", 32 << 20)
    monkeypatch.setattr("crystalline.machine.cores.usable_cores", lambda: 1)
    assert peak.main(["--seconds", "0.001", "--json", str(tmp_path / "peaks.json")]) == 0
    told = json.loads((tmp_path / "peaks.json").read_text())
    assert (told["level"], told["cores"]) == (isa.level(), [1])
    peaks = told["peaks"]
    assert [*peaks["FLOP/s"]] == [*formats.names()]
    assert [*peaks][1:] == [*told["caches"], "memory"]
    printed = capsys.readouterr().out
    for place, rows in peaks.items():
        assert place == "FLOP/s" or [*rows] == [*TRAFFIC]
        for name, values in rows.items():
            assert len(values) == 1
            assert 1e8 < values[0] < 1e14, (place, name)
            assert f"{values[0] / 1e9:12,.0f} G" in printed
    if "L1" in peaks:
        assert peaks["L1"]["read"][0] >= peaks["memory"]["read"][0]


def test_cores_share_what_they_measure() -> None:
    assert peak.peak_bandwidth("read", 1 << 14, cores=2, seconds=0.0) > 1e8
