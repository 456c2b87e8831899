"""A profile as a table for people, and as a trace that chrome://tracing and Perfetto show.

The trace is the JSON object of the Trace Event Format (Google, "Trace Event Format", 2016): a
complete event ("X") for every mark, a thread for every sphere.  Sums are over all marks; where a
sphere made more than its ring holds, the trace has the newest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crystalline._kernels.marks import PASSES
from crystalline.data.artifacts import TRACE_HEAD
from crystalline.engine.recording import (
    BETWEEN,
    FIRST_PHASE,
    HANDING_OVER,
    NO_CORE,
    NO_PERMIT,
    Recorded,
    kind_names,
    phase_kind,
    waiting_kind,
)
from crystalline.machine.cores import usable_cores
from crystalline.train.costs import Cost, pass_costs
from crystalline.train.spec import RunSpec

COMPUTE, REDUCE, UPDATE = "compute", "reduce", "update"


@dataclass(frozen=True)
class Profile:
    """What was recorded and counted in some steps."""

    spec: RunSpec
    phases: tuple[str, ...]  # by number, from 1 on
    first_step: int
    steps: int
    began_ns: int
    took_ns: int
    spheres: Mapping[int, Recorded]
    system: Counter[str]  # what the system counted of the spheres
    counted: Counter[str]  # and they themselves


@dataclass(frozen=True)
class Row:
    """A line of the table; None where a figure has no meaning."""

    name: str
    seconds: float
    share: float  # of the time of all spheres that had a permit
    times: int
    gflops: float | None = None  # 10⁹ operations a second of a sphere
    peak_share: float | None = None
    gigabytes: float | None = None  # 10⁹ bytes a second


def rows(profile: Profile) -> list[Row]:
    """Return the lines: phases, the passes within lanes, and why spheres waited."""
    names, count = kind_names(profile.phases), len(profile.phases)
    ns, times = [0] * len(names), [0] * len(names)
    for one in profile.spheres.values():
        for kind in range(len(names)):
            ns[kind] += int(one.sums[kind, 0])
            times[kind] += int(one.sums[kind, 1])
    whole = max(1, sum(ns[BETWEEN:]))
    costs, peak = _costs(profile), _peak(profile.spec)

    def row(name: str, kind: int, cost: Cost | None = None) -> Row:
        seconds = ns[kind] / 1e9
        if cost is None or not seconds:
            return Row(name, seconds, ns[kind] / whole, times[kind])
        gflops = cost.flops / seconds / 1e9
        return Row(
            name, seconds, ns[kind] / whole, times[kind],
            gflops or None, gflops * 1e9 / peak if gflops and peak else None,
            cost.moved_bytes / seconds / 1e9 or None,
        )  # fmt: skip

    found = []
    for number, phase in enumerate(profile.phases, 1):
        kind = phase_kind(number)
        if not times[kind]:
            continue
        found.append(row(phase, kind, costs.get(phase)))
        if phase == COMPUTE:
            found += [
                row(f"  {name}", kind, costs.get(name))
                for kind, name in enumerate(PASSES)
                if times[kind]
            ]
            rest = ns[kind] - sum(ns[: len(PASSES)])
            if sum(times[: len(PASSES)]):
                found.append(Row("  the rest", rest / 1e9, rest / whole, times[kind]))
    found.append(row("handing over", HANDING_OVER))
    for number, phase in enumerate(profile.phases, 1):
        if times[waiting_kind(number, count)]:
            found.append(row(f"waiting for the end of {phase}", waiting_kind(number, count)))
    found.append(row("waiting between phases", BETWEEN))
    if times[NO_CORE]:
        found.append(row("waiting for a core", NO_CORE))
    if times[NO_PERMIT]:
        found.append(row("(without a permit)", NO_PERMIT))
    return found


def table(profile: Profile) -> str:
    """Return the table, a few lines of what it is about, and what was counted."""
    spec, counted, system = profile.spec, profile.counted, profile.system
    last = profile.first_step + profile.steps - 1
    seconds = profile.took_ns / 1e9
    about = (
        f"profile of steps {profile.first_step:,} to {last:,}: {seconds:.2f} s, "
        f"{counted['tokens'] / seconds:,.0f} tokens/s, {len(profile.spheres)} spheres with "
        f"{spec.permits} permits"
    )
    lines = [
        about,
        f"{'':32}{'seconds':>10}{'share':>9}{'times':>10}{'GFLOP/s':>10}{'of peak':>9}{'GB/s':>8}",
    ]
    for row in rows(profile):
        lines.append(
            f"{row.name:32}{row.seconds:10.3f}{row.share:9.1%}{row.times:10,}"
            f"{_figure(row.gflops, '10.1f')}{_figure(row.peak_share, '9.1%')}"
            f"{_figure(row.gigabytes, '8.1f')}"
        )
    cores = min(usable_cores(), spec.permits or 1)
    lines.append(
        f"claims: {counted['lanes']:,} lanes, {counted['stolen']:,} of them stolen; "
        f"{counted['segments']:,} segments"
    )
    lines.append(
        f"memory: {system['minor faults']:,} page faults, {system['major faults']:,} from disk"
    )
    lines.append(
        f"cores: {system['run ns'] / profile.took_ns / cores:.0%} of {cores} used, "
        f"{system['runnable ns'] / 1e9:.2f} s waited for; {system['voluntary switches']:,} "
        f"switches by spheres themselves, {system['nonvoluntary switches']:,} forced, "
        f"{_migrations(system)}"
    )
    return "\n".join(lines)


def trace(profile: Profile) -> str:
    """Return the trace as JSON."""
    events = ",\n".join(json.dumps(e, separators=(",", ":")) for e in _events(profile))
    about = {
        "first_step": profile.first_step,
        "steps": profile.steps,
        "seconds": profile.took_ns / 1e9,
        "permits": profile.spec.permits,
        "precision": profile.spec.precision,
        "isa": profile.spec.isa,
        "counted": dict(profile.counted),
        "system": dict(profile.system),
        "rows": [{**vars(row), "name": row.name.strip()} for row in rows(profile)],
        "left_out": {
            str(sphere): one.written - len(one.marks)
            for sphere, one in profile.spheres.items()
            if one.written > len(one.marks)
        },
    }
    end = f'],"displayTimeUnit":"ms","otherData":{json.dumps(about)}}}\n'
    return f"{TRACE_HEAD.decode()}\n{events}\n{end}"


def _events(profile: Profile) -> Iterator[dict[str, Any]]:
    """Yield the events, of each thread by when they begin and the outer before the inner."""
    names = kind_names(profile.phases)
    yield _named("process_name", 0, f"{profile.spec.run_dir.name}: {profile.spec.precision}")
    for sphere, one in profile.spheres.items():
        yield _named("thread_name", sphere, f"sphere {sphere}")
        order = sorted(one.marks.tolist(), key=lambda mark: (mark[0], -mark[1]))
        for begin, end, word in order:
            kind = word & 0xFF
            event = {
                "name": names[kind],
                "cat": _category(kind, len(profile.phases)),
                "ph": "X",
                "ts": max(0, begin - profile.began_ns) / 1000,
                "dur": (end - max(begin, profile.began_ns)) / 1000,
                "pid": 0,
                "tid": sphere,
            }
            if kind < len(PASSES) or event["cat"] == "phase":
                event["args"] = {"unit": word >> 8}
            yield event


def _named(what: str, sphere: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 0, "tid": sphere, "args": {"name": name}}


def _category(kind: int, phases: int) -> str:
    if kind < len(PASSES):
        return "pass"
    return "phase" if FIRST_PHASE <= kind < FIRST_PHASE + phases else "waiting"


def _costs(profile: Profile) -> dict[str, Cost]:
    """Return what passes and phases cost in all the steps."""
    spec, tokens = profile.spec, profile.counted["tokens"]
    if spec.config.adapter is not None:  # whose passes are others
        return {}
    lane = pass_costs(spec.model, spec.precision, spec.isa)
    found = {
        name: Cost(tokens * c.flops, tokens * c.read_bytes, tokens * c.written_bytes)
        for name, c in lane.items()
    }
    found[COMPUTE] = Cost(tokens * spec.flops_per_token, 0.0, 0.0)
    # docs/passes.md: what a step does for each parameter, whatever the number of tokens.
    trained = spec.parameters * profile.steps
    lanes = min(spec.config.lanes, spec.config.sequences_per_step)
    packed = 8.0 if spec.precision == "float32" else 4.0
    found[REDUCE] = Cost(0.0, 4.0 * trained * lanes, 4.0 * trained)
    found[UPDATE] = Cost(0.0, 16.0 * trained, (12.0 + packed) * trained)
    return found


def _peak(spec: RunSpec) -> float | None:
    """Return the measured peak of one core, FLOP/s."""
    if spec.peak_flops is None:
        return None
    return spec.peak_flops / min(usable_cores(), spec.workers)


def _migrations(system: Counter[str]) -> str:
    if "migrations" not in system:
        return "migrations are not told here"
    return f"{system['migrations']:,} moves to another core"


def _figure(value: float | None, form: str) -> str:
    width = int(form.partition(".")[0])
    return f"{'-':>{width}}" if value is None else f"{value:{form}}"
