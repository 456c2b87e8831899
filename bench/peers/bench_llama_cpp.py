"""Prompts and decoding against llama.cpp, in pairs, on the same weights and the same cores.

    python -m bench.peers.build_llama_cpp FOLDER
    LLAMA_CPP=FOLDER/build/bin python -m bench.peers.bench_llama_cpp [--types f32,q4_0] [--rounds 3]

Two shapes with random weights, GPT-2's 124 M and a Llama of 110 M, are written as GGUF files.  In
every round llama-bench and this program's decoder take turns on each file: a prompt of 512 tokens,
64 tokens one by one and, of ours, 16 texts at a time.  Printed are medians, their ratio, the share
of the memory's read speed that decoding reaches (weights read for a token over what `move` reads in
the same round), and the memory that a loaded model adds.  That both compute the same is tested
elsewhere (tests/formats/gguf/test_llama_cpp.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crystalline._kernels import isa
from crystalline._kernels.memory import aligned_empty, move
from crystalline.data.tokenizer import Tokenizer
from crystalline.formats.gguf import GgufType, write_gguf
from crystalline.machine.cores import usable_cores
from crystalline.model.architectures.table import Role
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table

SHAPES = {
    "gpt2": ModelConfig(50257, 1024, 12, 12, 768),
    "llama": ModelConfig(
        32000, 1024, 12, 12, 768, architecture="llama", num_kv_heads=4, mlp_dim=2048,
        tie_embeddings=False,
    ),
}  # fmt: skip
TYPES: dict[GgufType, tuple[str, float]] = {  # our number format, bytes of a weight
    "f32": ("float32", 4.0),
    "bf16": ("bf16", 2.0),
    "q8_0": ("int8g32", 34 / 32),
    "q4_0": ("int4", 18 / 32),
}
PROMPT, TOKENS, TEXTS = 512, 64, 16
READ_FLOATS = 64 * 1024 * 1024


@dataclass
class Figures:
    """Tokens per second of one file, a number a round."""

    theirs_prompt: list[float] = field(default_factory=list)
    theirs_decode: list[float] = field(default_factory=list)
    prompt: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    together: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)  # bytes a second
    added_bytes: int = 0


def tensors(config: ModelConfig) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Yield random weights by their names in files."""
    generator = np.random.default_rng(1)
    for parameter, part in parameter_table(config).file_parts():
        shape = parameter.part_shape(part)
        values = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
        yield part.name, values if parameter.decays else values + np.float32(1)


def tokenizer_of(folder: Path) -> Path:
    """Write a tokenizer that the files can hold; what it says does not matter."""
    path = folder / "tokenizer.json"
    Tokenizer.train("byte", [], 257).save(path)
    return path


def read_speed(threads: int) -> float:
    """Return the bytes a second that `threads` threads read from memory together."""
    parts = [aligned_empty((READ_FLOATS // threads // 64 * 64,)) for _ in range(threads)]
    for part in parts:
        part[:] = 1.0
    best = 0.0
    for _ in range(3):
        workers = [threading.Thread(target=move, args=("read", part, part, 2)) for part in parts]
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        moved = 2 * sum(part.nbytes for part in parts)
        best = max(best, moved / (time.perf_counter() - started))
    return best


def llama_bench(programs: Path, file: Path, threads: int) -> tuple[float, float]:
    """Return llama-bench's tokens per second: of the prompt, of decoding."""
    command = [
        str(programs / "llama-bench"), "-m", str(file), "-t", str(threads), "-p", str(PROMPT),
        "-n", str(TOKENS), "-r", "2", "-o", "json",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if ran.returncode < 0:  # its buffers for matrix tiles break off on some machines
        print(f"{file.name}: llama-bench ended by signal {-ran.returncode}; again, --repack 0")
        command += ["--repack", "0"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    ran.check_returncode()
    rows = json.loads(ran.stdout)
    prompt = next(row["avg_ts"] for row in rows if row["n_prompt"])
    decode = next(row["avg_ts"] for row in rows if row["n_gen"])
    return float(prompt), float(decode)


def ours(file: Path, precision: str, threads: int) -> dict[str, float]:
    """Measure this program in a process of its own (`--one`)."""
    command = [sys.executable, "-m", "bench.peers.bench_llama_cpp", "--one", str(file),
               "--precision", precision, "--threads", str(threads)]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if ran.returncode:
        raise SystemExit(ran.stderr)
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def measure_one(file: Path, precision: str, threads: int) -> dict[str, float]:
    """Return tokens per second of one file, and the bytes that its model added."""
    import psutil

    from crystalline.formats.gguf import read_gguf
    from crystalline.formats.sources import open_source
    from crystalline.machine.memory import give_back
    from crystalline.model.decode import Decoder

    config = read_gguf(file).config
    source = open_source(file)
    before = psutil.Process().memory_full_info().uss
    with source.weights() as read:
        decoder = Decoder(config, read, slots=TEXTS, precision=precision, threads=threads)
    del source, read  # and with them the file's pages
    give_back()  # as the commands do after loading
    added = psutil.Process().memory_full_info().uss - before
    generator = np.random.default_rng(2)
    ids = generator.integers(0, config.vocab_size, PROMPT).astype(np.int32)
    found = {"added_bytes": float(added)}
    seconds = []
    for _ in range(4):
        decoder.truncate(0, 0)
        started = time.perf_counter()
        decoder.extend([0], [ids])
        seconds.append(time.perf_counter() - started)
    found["prompt"] = PROMPT / statistics.median(seconds[1:])
    decoder.truncate(0, 0)
    for _ in range(2):
        started = time.perf_counter()
        for token in ids[:TOKENS]:
            decoder.extend([0], [[token]])
        found["decode"] = TOKENS / (time.perf_counter() - started)
    decoder.truncate(0, 0)
    slots = range(TEXTS)
    for _ in range(2):
        started = time.perf_counter()
        for token in ids[: TOKENS // 2]:
            decoder.extend(slots, [[token]] * TEXTS)
        found["together"] = TEXTS * (TOKENS // 2) / (time.perf_counter() - started)
    decoder.close()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.one:
        print(json.dumps(measure_one(Path(settings.one), settings.precision, settings.threads)))
        return
    if "LLAMA_CPP" not in os.environ:
        raise SystemExit("LLAMA_CPP names no folder; see bench/peers/build_llama_cpp.py")
    programs = Path(os.environ["LLAMA_CPP"])
    print(f"level {isa.level()}, {settings.threads} threads, medians of {settings.rounds} rounds")
    print(f"{'':12}{'prompt of 512, tokens/s':>34}{'decode, tokens/s':>30}"
          f"{'share':>7}{'16 texts':>16}{'memory':>9}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for shape in settings.shapes.split(","):
            for kind in settings.types.split(","):
                row(programs, folder, shape, kind, settings.rounds, settings.threads)


def row(
    programs: Path, folder: Path, shape: str, kind: GgufType, rounds: int, threads: int
) -> None:
    """Measure and print one file."""
    config = SHAPES[shape]
    precision, width = TYPES[kind]
    file = folder / f"{shape}-{kind}.gguf"
    write_gguf(file, config, tensors(config), type=kind, tokenizer=tokenizer_of(folder))
    table = parameter_table(config)
    looked_up = [table.find(Role.POSITIONS)] + ([] if config.is_tied else [table.find(Role.TOKENS)])
    read_weights = table.count - sum(one.size for one in looked_up if one)
    figures = Figures()
    for _ in range(rounds):
        prompt, decode = llama_bench(programs, file, threads)
        figures.theirs_prompt.append(prompt)
        figures.theirs_decode.append(decode)
        found = ours(file, precision, threads)
        figures.prompt.append(found["prompt"])
        figures.decode.append(found["decode"])
        figures.together.append(found["together"])
        figures.added_bytes = int(found["added_bytes"])
        figures.read.append(read_speed(threads))
    middle = statistics.median
    prompt, decode = middle(figures.prompt), middle(figures.decode)
    prompt_ratio = middle(a / b for a, b in zip(figures.prompt, figures.theirs_prompt, strict=True))
    decode_ratio = middle(a / b for a, b in zip(figures.decode, figures.theirs_decode, strict=True))
    share = middle(
        a * read_weights * width / b for a, b in zip(figures.decode, figures.read, strict=True)
    )
    together = middle(figures.together)
    print(
        f"{shape + ' ' + kind:12}"
        f"{prompt:10,.0f} over {middle(figures.theirs_prompt):8,.0f} {prompt_ratio:6.2f}x"
        f"{decode:9.1f} over {middle(figures.theirs_decode):7.1f} {decode_ratio:5.2f}x"
        f"{share:7.2f}{together:8,.0f} {together / decode:5.1f}x"
        f"{figures.added_bytes / (table.count * width):8.2f}x",
        flush=True,
    )
    file.unlink()


if __name__ == "__main__":
    main()
