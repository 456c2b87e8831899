"""The comparison with PyTorch: pairs, tables and environments; the peer itself where it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.peers import bench_torch
from bench.peers.bench_torch import PeerError, Round, Row, Variant, check, choose, environment
from bench.workloads import Workload

VARIANT = Variant("float32", "compile", "tuned")
LEARNED = {"first_loss": 4.22, "first_norm": 1.5, "last_loss": 3.9}


def test_patterns_choose_in_table_order_without_repeats() -> None:
    chosen = [v.name for v in choose("bf16-*-stock, float32-eager-*,bf16-eager-stock")]
    assert chosen == [
        "float32-eager-stock", "float32-eager-tuned", "bf16-eager-stock", "bf16-compile-stock",
    ]  # fmt: skip
    assert len(choose("*")) == 8


def test_pattern_without_a_match_is_named() -> None:
    with pytest.raises(PeerError, match="'float16-\\*'"):
        choose("float32-*,float16-*")


def test_environments_differ_in_the_library_only(tmp_path: Path) -> None:
    base = {"PATH": "/bin", "LD_PRELOAD": "x.so", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    stock = environment(base, Variant("bf16", "eager", "stock"), tmp_path)
    tuned = environment(base, Variant("bf16", "eager", "tuned"), tmp_path)
    assert stock == {"PATH": "/bin", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    added = tuned.items() - stock.items()
    assert tuned.items() > stock.items()
    assert dict(added)["LD_PRELOAD"] == str(tmp_path / "fast_path.so")


def test_medians_are_of_pairs_within_a_round() -> None:
    measured = [(90.0, 110.0, 50.0, 4e3), (30.0, 30.0, 10.0, 1e3), (60.0, 60.0, 40.0, 1e4)]
    rounds = [
        Round(
            [{"float32": before}, {"float32": after}],
            [{"float32-eager-stock": rate}],
            {"float32": peak},
        )
        for before, after, rate, peak in measured
    ]
    ours, peer = bench_torch.summarize(rounds, flops_per_token=20.0)
    assert ours == Row("ours float32", 60.0, pytest.approx(0.5), {})
    # pairs 2.0, 3.0, 1.5; the ratio of the medians would be 1.5
    assert peer == Row("float32-eager-stock", 40.0, pytest.approx(0.2), {"float32": 2.0})


def test_a_variant_is_paired_with_the_runs_beside_its_group() -> None:
    ours = [{"float32": 10.0, "bf16": 20.0}, {"float32": 30.0, "bf16": 60.0},
            {"float32": 50.0, "bf16": 100.0}]  # fmt: skip
    peers = [{"float32-eager-stock": 5.0}, {"bf16-eager-stock": 8.0}]
    rows = bench_torch.summarize([Round(ours, peers, {"float32": 1.0, "bf16": 1.0})], 1.0)
    assert [row.ours_over_it for row in rows[2:]] == [
        {"float32": 4.0, "bf16": 8.0},
        {"float32": 5.0, "bf16": 10.0},
    ]


def test_table_marks_the_best_peer_of_each_precision() -> None:
    rows = [
        Row("ours float32", 6000.0, 0.8, {}),
        Row("float32-eager-stock", 1500.0, 0.2, {"float32": 4.0}),
        Row("float32-compile-tuned", 5000.0, 0.667, {"float32": 1.2}),
    ]
    lines = bench_torch.table("small", rows).splitlines()
    assert lines[0] == "| small | tokens/s | share of peak | ours float32 / it |"
    assert lines[2:] == [
        "| ours float32 | 6,000 | 80.0% | |",
        "| PyTorch float32-eager-stock | 1,500 | 20.0% | 4.00 |",
        "| **PyTorch float32-compile-tuned** | 5,000 | 66.7% | 1.20 |",
    ]


def test_peer_that_computes_the_same_and_learns_is_accepted() -> None:
    check(VARIANT, LEARNED, loss=4.22, norm=1.5)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (LEARNED | {"first_loss": 4.23}, "first loss is 4.23"),
        (LEARNED | {"first_loss": float("nan")}, "first loss is nan"),
        (LEARNED | {"first_norm": 1.51}, "gradient norm is 1.51"),
        (LEARNED | {"last_loss": 4.2195}, "does not learn"),
        (LEARNED | {"last_loss": float("nan")}, "does not learn"),
    ],
)
def test_peer_that_does_something_else_is_refused(result: dict[str, float], message: str) -> None:
    with pytest.raises(PeerError, match=message):
        check(VARIANT, result, loss=4.22, norm=1.5)


def test_missing_torch_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setenv("BENCH_TORCH_PYTHON", str(python))
    assert bench_torch.main(["--workloads", "tiny"]) == 1
    said = capsys.readouterr().err
    assert str(python) in said
    assert "pip install torch" in said


def test_interpreter_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_TORCH_PYTHON", "/nowhere/python")
    with pytest.raises(PeerError, match="/nowhere/python"):
        bench_torch.interpreter()


@pytest.mark.skipif("BENCH_TORCH_PYTHON" not in os.environ, reason="PyTorch is a peer, by hand")
@pytest.mark.parametrize("library", ["stock", "tuned"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_peer_starts_from_our_loss_and_learns(tmp_path: Path, precision: str, library: str) -> None:
    shape, variant = Workload(2, 3, 24, 10, 5, 37), Variant(precision, "eager", library)
    bench_torch.build_fast_path(tmp_path)
    loss, norm = bench_torch.write_start(shape, tmp_path / "start")
    python, _ = bench_torch.interpreter()
    result = bench_torch.run_peer(python, variant, shape, tmp_path, tmp_path / "start", 0.01)
    check(variant, result, loss, norm)
    assert result["tokens_per_second"] > 0
