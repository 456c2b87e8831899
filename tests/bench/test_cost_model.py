"""The cost model against numbers worked out by hand; and that it measures something."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import cost_model
from bench.cost_model import Engine, Machine, Speeds, StepTime, Work
from bench.workloads import Workload
from crystalline.model.params import parameter_table

SHAPE = Workload(L=2, H=2, C=8, T=4, B=14, V=10)
SPEEDS = Speeds(1e9, 4e6, 2e6, 1e6, 1e6, 8e6, 4e6, 6e6, 9e6)
IDLE = Engine(0.0, 0.0)


def test_work_of_a_token() -> None:
    # 12 L C C + V C = 1616 weights in products; scores 2 L T C = 128
    work = cost_model.work_per_token(SHAPE, "float32")
    assert work == Work(6464.0, 3232.0, 128.0, 320.0, 4 * 8 * (2 * 32 + 6), 80.0)
    pairs = cost_model.work_per_token(SHAPE, "bf16").pass_bytes - work.pass_bytes
    assert pairs == 2 * 8 * (96 + 28)


def test_products_are_the_flops_that_shares_count() -> None:
    work = cost_model.work_per_token(SHAPE, "float32")
    vectors = sum(p.size for p in parameter_table(SHAPE.model).parameters if len(p.shape) == 1)
    counted = SHAPE.flops_per_token - 12 * SHAPE.L * SHAPE.C * SHAPE.T - 6 * vectors
    assert work.matmul + work.weight_gradient == counted


def test_every_kind_of_work_takes_its_own_time() -> None:
    work = Work(8e6, 6e6, 1e6, 2e6, 4e6, 1e6)
    assert cost_model.token_seconds(work, SPEEDS) == pytest.approx(2 + 3 + 1 + 2 + 0.5 + 0.25)


def test_sequences_go_round_the_lanes() -> None:
    assert cost_model.lane_sequences(14, 12) == [2, 2, *[1] * 10]
    assert cost_model.lane_sequences(4, 12) == [1] * 4


@given(
    st.lists(st.integers(1, 6).map(float), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_makespan_is_near_the_best_of_all_schedules(costs: list[float], cores: int) -> None:
    best = min(
        max(sum(c for c, at in zip(costs, places, strict=True) if at == core)
            for core in range(cores))
        for places in itertools.product(range(cores), repeat=len(costs))
    )  # fmt: skip
    got = cost_model.makespan(costs, cores)
    assert best <= got <= (2 - 1 / cores) * best  # Graham 1966


def test_one_host_needs_no_network() -> None:
    assert cost_model.all_reduce_seconds(1e9, Machine(2, 1e9)) == 0.0


def test_all_reduce_by_hand() -> None:
    machine = Machine(2, 1e9, hosts=5, network=2e6, latency_s=0.25)
    assert cost_model.all_reduce_seconds(1e6, machine) == pytest.approx(0.8 + 6 * 0.25)


def test_step_by_hand() -> None:
    size = 4.0 * parameter_table(SHAPE.model).size
    segments = len(parameter_table(SHAPE.model).segments())
    token = cost_model.token_seconds(cost_model.work_per_token(SHAPE, "float32"), SPEEDS)
    step = cost_model.predict(SHAPE, "float32", SPEEDS, Engine(0.5, 0.25), Machine(5, 1e6))
    store = size / (1e6 / 5)  # 5 cores share memory; each of 12 lanes stores a gradient
    assert step.compute == pytest.approx((14 * 4 * token + 12 * store) / 5)
    # Two cores take the two lanes of two sequences, three take two of one; four more follow.
    assert step.compute + step.waiting == pytest.approx(3 * (4 * token + store))
    assert step.reduce == pytest.approx(13 * size / 1e6)
    assert step.update == pytest.approx(9 * size / 1e6)
    assert step.hand_over == pytest.approx(0.5 + 0.25 * (12 + 2 * segments) / 5)
    assert step.network == 0.0
    assert step.total == pytest.approx(
        step.compute + step.waiting + step.reduce + step.update + step.hand_over
    )


def test_lanes_that_share_a_buffer_by_hand() -> None:
    size = 4.0 * parameter_table(SHAPE.model).size
    token = cost_model.token_seconds(cost_model.work_per_token(SHAPE, "float32"), SPEEDS)
    step = cost_model.predict(SHAPE, "float32", SPEEDS, IDLE, Machine(2, 1e6))
    store = size / (1e6 / 2)  # the second lane of a pair also reads what it adds to
    assert step.compute == pytest.approx((14 * 4 * token + 6 * 3 * store) / 2)
    assert step.compute + step.waiting == pytest.approx(8 * 4 * token + 9 * store)
    assert step.reduce == pytest.approx(7 * size / 1e6)


def test_packed_weights_are_half_as_large_in_bf16() -> None:
    machine = Machine(8, 1e6)
    wide, narrow = (
        cost_model.predict(SHAPE, p, SPEEDS, IDLE, machine).update for p in ("float32", "bf16")
    )
    assert wide / narrow == pytest.approx(9 / 8)


def test_one_core_cannot_take_the_memory_of_all() -> None:
    alone = cost_model.predict(SHAPE, "float32", SPEEDS, IDLE, Machine(1, 100e6))
    assert alone.waiting == pytest.approx(0.0)
    size = 4.0 * parameter_table(SHAPE.model).size
    assert alone.update == pytest.approx(9 * size / SPEEDS.memory)


def test_more_cores_than_lanes_wait() -> None:
    even = replace(SHAPE, B=12)
    step = cost_model.predict(even, "float32", SPEEDS, IDLE, Machine(48, 1e12))
    assert step.waiting == pytest.approx(3 * step.compute)


def test_engine_by_hand() -> None:
    # 800 segments more are 1600 units more, on 2 cores: 16 ms / 800
    engine = cost_model.engine_from(0.001, 0.017, cores=2)
    assert engine.unit_s == pytest.approx(20e-6)
    assert engine.step_s == pytest.approx(0.001 - 20e-6 * 28 / 2)


def test_measured_engine_is_quick_and_costs_something(tmp_path: Path) -> None:
    engine = cost_model.measure_engine(tmp_path, cores=1, steps=40)
    assert 0 < engine.unit_s < 1e-3
    assert 0 <= engine.step_s < 0.1


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_measured_speeds_lie_below_the_peak(precision: str) -> None:
    if precision == "bf16" and not cost_model.formats.is_native("bf16"):
        pytest.skip("the processor has no bf16 products")
    shape = Workload(L=1, H=2, C=32, T=24, B=5, V=70)
    speeds = cost_model.measure_speeds(shape, precision, 0.002, cores=1)
    for flops in (speeds.matmul, speeds.weight_gradient):
        assert 0 < flops < 1.2 * speeds.peak
    assert min(speeds.pass_bytes, speeds.logits_bytes, speeds.memory, speeds.all_memory) > 0


def test_tables_from_a_file_of_speeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "speeds.json"
    speeds = {"tiny float32": cost_model.asdict(SPEEDS)}
    path.write_text(
        json.dumps({"cores": 2, "engine": {"step_s": 0, "unit_s": 0}, "speeds": speeds})
    )
    arguments = ["--workloads", "tiny", "--precisions", "float32", "--speeds", str(path)]
    assert cost_model.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.count("| tiny float32 |") == 6
    for lanes in (12, 60, 72, 192):
        assert f"64 cores, 300 GB/s, {lanes} lanes" in printed
    assert "64 hosts like this one" in printed


def test_where_names_the_largest_first() -> None:
    step = StepTime(compute=2.0, waiting=5.0, reduce=0.1, update=0.0, hand_over=2.9, network=0.0)
    assert cost_model.where(step) == "50 % waiting, 29 % hand-over, 20 % compute"
