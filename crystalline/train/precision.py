"""Which precision is the fastest on this machine for a model: what `--precision auto` takes.

Every number format is tried on one layer of the model, forward and backward, for a fraction of a
second; what was found is kept in the cache, for this CPU, this level and this shape.  The choice
decides the bits of a run, so a run stores it and a resumed one does not ask again.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np

from crystalline._kernels import formats, isa
from crystalline.atomic import atomic_write
from crystalline.data.prepare import default_cache_dir
from crystalline.errors import DataError
from crystalline.log import get_logger
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.model.transformer import Transformer
from crystalline.train.config import Precision, TrainConfig
from crystalline.untrusted import BadContent, parse_json
from crystalline.untrusted.files import PRECISION

SECONDS = 0.2  # that trying takes, about
ROUNDS = 9  # at most, of all formats in turn
ROWS = 128  # of one try: a block of rows, as the layers' products take them
VOCABULARY = 64  # the head's share differs from model to model; layers are what is compared
USUAL = (256, 4)  # channels and heads, while the corpus has yet to choose them
MOST_CHANNELS = 512  # wider layers do not differ any more, and take long
MOST_TIMES = 1e6  # that one precision may be faster than another
WORTH_IT = 1.03  # float32 stays, unless another one is faster by more than this

_log = get_logger(__name__)


@dataclass(frozen=True)
class Choice:
    """A precision, and how fast it is here."""

    precision: Precision
    speeds: dict[str, float]  # of each precision that was tried, float32 = 1

    def __str__(self) -> str:
        """Return it as the summary shows it: "bf16 tiles, 5.1 times float32"."""
        others = {name: s for name, s in self.speeds.items() if name != self.precision}
        if not others:
            return label(self.precision)
        next_best = max(others, key=lambda name: others[name])
        ratio = self.speeds[self.precision] / others[next_best]
        return f"{label(self.precision)}, {ratio:.1f} times {label(next_best)}"


def label(precision: str) -> str:
    """Return a precision as users read it: bf16 in matrix tiles is something else than bf16.

    >>> label("float32")
    'float32'
    """
    return "bf16 tiles" if precision == "bf16" and isa.level() == "amx" else precision


def resolve_precision(config: TrainConfig, cache: Path | None = None) -> Precision:
    """Return what "auto" means for this model here, or the precision that was asked for.

    One that is slower than float32 on this machine is taken when asked for, and told of.
    """
    asked = config.precision
    if asked == "auto":
        return choose(config, cache).precision
    if asked != "float32":
        speed = choose(config, cache).speeds[asked]
        if speed < 1.0:
            _log.warning(
                "%s is %.1f times as fast as float32 on this machine. "
                "Leave --precision out to have the fastest taken.", label(asked), speed
            )  # fmt: skip
    return asked


def summary(precision: str, config: TrainConfig, cache: Path | None = None) -> str:
    """Return how a precision is told of: with its speed, where that was measured for this model."""
    speeds = _read(cache or _usual_cache()).get(_key(config))
    return (
        str(Choice(cast(Precision, precision), speeds))
        if speeds and precision in speeds
        else label(precision)
    )


def choose(config: TrainConfig, cache: Path | None = None) -> Choice:
    """Return the fastest precision for this model here, from the cache or from a measurement.

    `cache` is the folder that it is kept in (None: the usual one).
    """
    folder, key = cache or _usual_cache(), _key(config)
    known = _read(folder)
    if key not in known:
        known[key] = measure(_layer(config))
        _write(folder, known)
    speeds = known[key]
    fastest = max(speeds, key=lambda name: speeds[name])
    taken = fastest if speeds[fastest] > WORTH_IT else "float32"
    return Choice(cast(Precision, taken), speeds)


def measure(model: ModelConfig, *, seconds: float = SECONDS) -> dict[str, float]:
    """Return how fast a step of the model is in each precision, float32 = 1.

    Rounds over all of them in turn, the best round of each: what disturbs one disturbs the next.
    """
    names = [name for name in formats.names() if name in _KNOWN]
    size = parameter_table(model).size
    draw = np.random.default_rng(0)
    weights, grads = 0.04 * (draw.random(size, np.float32) - 0.5), np.zeros(size, np.float32)
    shape = (max(1, ROWS // model.seq_len), model.seq_len + 1)
    tokens = draw.integers(0, VOCABULARY, shape, np.int32)
    models = {name: Transformer.allocate(model, weights, precision=name) for name in names}
    best = dict.fromkeys(names, float("inf"))
    end = time.perf_counter() + seconds
    for number in range(1 + ROUNDS):
        for name, one in models.items():
            began = time.thread_time()  # of this thread alone, whoever else computes
            one.compute(tokens, grads, scale=1.0)
            if number:  # the first touches the memory
                best[name] = min(best[name], time.thread_time() - began)
        if number and time.perf_counter() > end:
            break
    return {name: best["float32"] / best[name] for name in names}


_KNOWN = frozenset(get_args(Precision))


def _layer(config: TrainConfig) -> ModelConfig:
    """Return one layer of the model that a run's settings ask for, or of a usual one."""
    channels, heads = config.embed_dim or USUAL[0], config.num_heads or USUAL[1]
    if channels > MOST_CHANNELS:
        heads = max(1, heads * MOST_CHANNELS // channels)
        channels = MOST_CHANNELS // heads * heads
    heads = math.gcd(channels, heads)  # where only one of the two was asked for
    positions = min(config.seq_len, ROWS)
    return ModelConfig(VOCABULARY, positions, num_layers=1, num_heads=heads, embed_dim=channels)


def _key(config: TrainConfig) -> str:
    layer = _layer(config)
    shape = f"C{layer.embed_dim} H{layer.num_heads} T{layer.seq_len}"
    return f"{_cpu_name()}, {isa.level()}, {shape}"


def _cpu_name() -> str:
    text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    fields = [r"vendor_id|CPU implementer", r"cpu family|CPU part", "model", "stepping|CPU variant"]
    found = (re.search(rf"^(?:{field})\s*: (.*)$", text, re.M) for field in fields)
    return " ".join(match[1] for match in found if match)


def _usual_cache() -> Path | None:
    try:
        return default_cache_dir()
    except DataError:  # no home folder: it is measured every time
        return None


def _read(folder: Path | None) -> dict[str, dict[str, float]]:
    """Return what is known, nothing of it when the file is not there or not ours."""
    if folder is None:
        return {}
    try:
        found = parse_json(PRECISION.read_bytes(folder / PRECISION.name))
    except (OSError, BadContent):
        return {}
    known = {}
    for key, speeds in found.items() if isinstance(found, dict) else ():
        if (
            isinstance(speeds, dict)
            and {"float32"} <= speeds.keys() <= _KNOWN
            and all(isinstance(v, int | float) and 0 < v < MOST_TIMES for v in speeds.values())
        ):
            known[key] = {name: float(v) for name, v in speeds.items()}
    return known


def _write(folder: Path | None, known: dict[str, dict[str, float]]) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / PRECISION.name) as file:
            file.write(json.dumps(known, indent=1).encode())
    except OSError as error:  # it is measured again next time
        _log.info("%s cannot be written (%s)", folder / PRECISION.name, error.strerror)
