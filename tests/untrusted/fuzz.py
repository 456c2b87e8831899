"""Random damage to everything that is parsed; whatever is no refusal is a finding.

    python -m tests.untrusted.fuzz tokenizer --minutes 5
    python -m tests.untrusted.fuzz --list

With `atheris` (the extra `fuzz`) the damage follows what the readers' code has not done yet,
otherwise it is drawn at random.  Files that carry checksums are signed again, so that what lies
behind the checksum is reached.  A finding is printed once for each place in the code, with its
traceback, and its input is kept in the folder `fuzz-findings`; the exit code is 1 then.  What
was found becomes a plain test, here or beside the reader.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:  # the damage is drawn at random then
    atheris = None

SLOW_S = 5.0  # an input that takes longer is a finding
LONGEST_BYTES = 1 << 16  # of an input
FINDINGS = Path("fuzz-findings")


@dataclass(frozen=True)
class Target:
    """One parser: the inputs to begin with, and what takes one."""

    seeds: list[bytes]
    run: Callable[[bytes], object]


# --- the targets ------------------------------------------------------------------------------


def _json(_folder: Path) -> Target:
    from crystalline.untrusted import parse_json

    seeds = [b'{"a": [1, 2.5, null, true], "b": {"c": "\\u00e9\\ud800"}}', b"[" * 70 + b"]" * 70]
    return Target(seeds, parse_json)


def _toml(folder: Path) -> Target:
    from crystalline.formats.toml import read_toml, to_toml

    path = folder / "config.toml"
    values = {"seed": 5, "data": ["a b", "caf\udce9"], "rate": 1e-3, "on": True}

    def run(data: bytes) -> None:
        path.write_bytes(data)
        read_toml(path)

    more = b"[a.b]\nc = {d = [1, {e = 2020-01-01T00:00:00Z}]}\n\"\\u001b\" = 'x'\n"
    return Target([to_toml(values, comment="Hello").encode(), more], run)


def _settings(folder: Path) -> Target:
    from crystalline.cli.settings import environment_layer, parse_layered
    from crystalline.cli.train import TrainSettings
    from crystalline.runs.layers import Layers, toml_layer

    path = folder / "config.toml"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        layers = Layers()
        if data[:1] == b"#":
            layers.update(*toml_layer(TrainSettings, path))
        else:
            text = data.decode("utf-8", "surrogateescape").replace("\0", "")
            lines = [line.partition("=") for line in text.split("\n")]
            environ = {f"CLLM_{name.strip().upper()}": value for name, _, value in lines}
            layers.update(*environment_layer(TrainSettings, environ))
        if random.random() < 0.02:  # the parser of flags takes its time
            parse_layered(TrainSettings, [], layers, program="cllm-train", description="")

    toml = (
        b'# a\nseed = 5\ndata = ["a b"]\nlearning_rate = 1e-3\nprecision = "auto"\nplain = true\n'
    )
    variables = b"seed=5\nlearning_rate=1e-3\nprecision=auto\nplain=1\ntext_field=a\nworkers=2"
    return Target([toml, variables], run)


def _tokenizer(folder: Path) -> Target:
    from crystalline.data.tokenizer import Tokenizer

    path = folder / "tokenizer.json"
    texts = ["the cat sat on the mat, 12 times. The end of it"] * 3
    seeds = []
    for kind in ("char", "word", "byte", "bpe"):
        made = Tokenizer.train(kind, texts, 270 if kind == "bpe" else 20).to_json()
        seeds.append(json.dumps(json.loads(made)).encode())
    nested = json.loads(seeds[1])
    nested["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    seeds.append(json.dumps(nested).encode())

    def run(data: bytes) -> None:
        path.write_bytes(data)
        tokenizer = Tokenizer.load(path)
        ids = tokenizer.encode("The cat — 12 <unk> <|endoftext|> \x1b é\ud800"[:-1])
        tokenizer.decode(ids.tolist())
        assert tokenizer.vocab_size > 0

    return Target(seeds, run)


def _tokens(folder: Path) -> Target:
    import numpy as np

    from crystalline.data.tokenfile import DATA_OFFSET, Split, TokenFile, write_token_file

    path = folder / "tokens.bin"
    prefix = struct.Struct("<8sII32s")
    seeds = []
    for vocab_size in (100, 70_000):
        train, val = np.arange(90, dtype=np.int32), np.arange(10, dtype=np.int32)
        write_token_file(
            path, Split([train], lambda: 90), Split([val], lambda: 10),
            vocab_size=vocab_size, documents=1, tokenizer_sha256="a" * 64, entry="b" * 32,
        )  # fmt: skip
        seeds.append(path.read_bytes())

    def run(data: bytes) -> None:
        path.write_bytes(data)
        with _refusals():
            TokenFile.open(path, verify=True)
        if len(data) < prefix.size:
            return
        magic, version, length, _ = prefix.unpack_from(data)
        text = data[prefix.size : prefix.size + length]
        body = data[DATA_OFFSET:]
        with suppress(ValueError, TypeError, RecursionError):  # no header: as it is
            header = json.loads(text) | {"payload_sha256": hashlib.sha256(body).hexdigest()}
            text = json.dumps(header).encode()
        head = prefix.pack(magic, version, len(text), hashlib.sha256(text).digest()) + text
        path.write_bytes(head.ljust(DATA_OFFSET, b"\0") + body)
        file = TokenFile.open(path, verify=True)
        both = np.concatenate([file.train, file.val])
        assert both.max(initial=0) < file.vocab_size

    return Target(seeds, run)


def _crystal(_folder: Path) -> Target:
    import numpy as np

    from crystalline.data.crystal.features import token_features
    from crystalline.data.crystal.tokens import Crystal, build_crystal
    from crystalline.data.tokenizer import Tokenizer
    from crystalline.untrusted import parse_json

    text = "act actor actors react reactor walk walks walked walking talk talks talked " * 9
    tokenizer = Tokenizer.train("word", [text], 40)
    counts = np.bincount(tokenizer.encode(text), minlength=tokenizer.vocab_size)
    seed = build_crystal(tokenizer, counts.astype(np.int64)).to_json().encode()

    def run(data: bytes) -> None:
        with _refusals():
            Crystal.from_json(data.decode("utf-8", "replace"))
        document = parse_json(data)
        if not isinstance(document, dict):
            return
        with suppress(KeyError, TypeError, IndexError, OverflowError, ValueError):  # no crystal
            document["sha256"] = Crystal._read(document).sha256
        crystal = Crystal.from_json(json.dumps(document))
        token_features(crystal)
        for token in range(min(5, crystal.vocab_size)):
            crystal.factors(token)
            crystal.derived(token)
            crystal.family(token)

    return Target([seed], run)


def _checkpoint(folder: Path) -> Target:
    from crystalline.formats.checkpoint import inspect_checkpoint, load_model
    from crystalline.runs.stored import stored_config
    from crystalline.train.config import TrainConfig
    from tests.formats.checkpoints import CONFIG, save

    state = dict.fromkeys(("tokens", "seconds", "evaluated_step", "dropped_steps"), 0)
    state |= dict.fromkeys(("loss", "val_loss", "val_bits_per_byte", "best_val_loss"), 1.5)
    state |= {"step": 5, "recently_dropped": []}
    train = TrainConfig(seq_len=CONFIG.seq_len, dropout=CONFIG.dropout, max_steps=9)
    path = save(folder / "run", 5, state=state, train_config=train)
    stored_config(inspect_checkpoint(path))
    names = ("state.json", "config.json", "manifest.json", "tokenizer.json")
    whole = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    seeds = [bytes([number]) + whole[name] for number, name in enumerate(names)]

    def run(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        for other in names:
            (path / other).write_bytes(data[1:] if other == name else whole[other])
        if name != "manifest.json":
            sign(path)
        with _refusals():
            stored_config(inspect_checkpoint(path))
        load_model(path)

    return Target(seeds, run)


def _metrics(folder: Path) -> Target:
    from crystalline.train.metrics import MetricsLog, read_metrics

    path = folder / "metrics.jsonl"
    with MetricsLog(folder) as log:
        figures = dict.fromkeys(("loss", "learning_rate", "grad_norm", "tokens", "seconds"), 1.0)
        for step in range(1, 4):
            log.enter("step", {"step": step, "tokens_per_second": 1.0, **figures})
        log.enter(
            "evaluation", {"step": 3, "val_loss": 1.0, "val_bits_per_byte": 1.0, "val_tokens": 9}
        )
        log.event("resumed", 3)
    seed = path.read_bytes()

    def run(data: bytes) -> None:
        path.write_bytes(data)
        with _refusals():
            read_metrics(path)
        with MetricsLog(folder, 2) as log:
            log.event("x", 3)
        read_metrics(path)  # what is left of it is whole

    return Target([seed], run)


def _texts(folder: Path) -> Target:
    from crystalline.data.corpus import read_documents

    suffixes = (".txt", ".jsonl", ".json", ".html")
    paths = [folder / f"a{suffix}" for suffix in suffixes]
    page = b"<!DOCTYPE html><p class='a' b=c>x &amp; &#x41; &#0000065;<!-- c --><pre> y\n</pre>"
    page += b"<script>if (a < b) {}</script><![CDATA[z]]></p><br/><textarea>t</textarea>"
    seeds = [
        "Hello\r\nwörld \u2028 \ufeff".encode(),
        b'{"text": "a"}\n"b"\n[{"role": "user", "content": [{"type": "text", "text": "c"}]}]\n',
        b'[{"text": "a"}, {"messages": [{"from": "gpt", "value": "b"}]}]',
        page,
    ]

    def run(data: bytes) -> None:
        path = paths[data[0] % len(paths)] if data else paths[0]
        path.write_bytes(data[1:])
        for document in read_documents(path, None):
            document.encode()  # no half characters

    return Target([bytes([number]) + seed for number, seed in enumerate(seeds)], run)


def _safetensors(folder: Path) -> Target:
    import numpy as np

    from crystalline.formats.tensors import read_flat
    from tests.formats.checkpoints import CONFIG, save

    path = folder / "model.safetensors"
    seed = (save(folder / "run", 5) / "model.safetensors").read_bytes()
    length = int.from_bytes(seed[:8], "little")
    header = json.loads(seed[8 : 8 + length])
    narrow: dict[str, Any] = {}
    body = b""
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        count = int(np.prod(entry["shape"]))
        narrow[name] = entry | {"dtype": "BF16", "data_offsets": [len(body), len(body) + 2 * count]}
        body += bytes(2 * count)
    text = json.dumps(narrow).encode()

    def run(data: bytes) -> None:
        """Take the header from the input, and a body that is long enough."""
        head, _, rest = data[8:].rpartition(b"}")
        for length_bytes in (data[:8], (len(head) + 1).to_bytes(8, "little")):
            path.write_bytes((length_bytes + head + b"}" + rest).ljust(len(data), b"\0"))
            with _refusals():
                assert np.isfinite(read_flat(folder, CONFIG)).all()

    return Target([seed, len(text).to_bytes(8, "little") + text + body], run)


def _lock(folder: Path) -> Target:
    """Pointers, locks and cached requests: small files that name others."""
    from crystalline.data.prepare import _Cache
    from crystalline.formats.checkpoint import resolve
    from crystalline.formats.rundir import _owner
    from tests.formats.checkpoints import save

    run_dir = folder / "run"
    save(run_dir, 5)
    cache = _Cache(folder / "cache")
    cache.requests.mkdir(parents=True)
    request = cache.requests / ("a" * 32 + ".json")

    def run(data: bytes) -> None:
        for name in ("latest", "best"):
            (run_dir / name).unlink(missing_ok=True)
            (run_dir / name).write_bytes(data)
            resolve(run_dir, name)
        _owner(data)
        request.write_bytes(data)
        cache.recall("a" * 32, [])

    return Target([
        b"checkpoints/step-00000005\n",
        b'{"pid": 5, "host": "a"}\n',
        b'{"entry": "' + b"b" * 32 + b'", "sources": []}',
    ], run)  # fmt: skip


def _gguf(folder: Path) -> Target:
    import numpy as np

    from crystalline.formats.gguf import read_gguf
    from tests.untrusted.world import gguf_file

    path = folder / "model.gguf"
    seed = gguf_file(folder)

    def run(data: bytes) -> None:
        """Take the head from the input, and a body that is long enough."""
        for body in (b"", b"\0" * len(seed)):
            path.write_bytes(data + body)
            with _refusals():
                model = read_gguf(path)
                model.vocabulary()
                for _, tensor in model.tensors():
                    assert np.isfinite(tensor).all()

    return Target([seed[:LONGEST_BYTES]], run)


TARGETS: dict[str, Callable[[Path], Target]] = {
    "json": _json,
    "toml": _toml,
    "settings": _settings,
    "tokenizer": _tokenizer,
    "tokens": _tokens,
    "crystal": _crystal,
    "checkpoint": _checkpoint,
    "metrics": _metrics,
    "texts": _texts,
    "safetensors": _safetensors,
    "gguf": _gguf,
    "small": _lock,
}


def sign(checkpoint: Path) -> None:
    """Write the sizes and checksums of a checkpoint's files anew into its manifest."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        data = (checkpoint / name).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        manifest["files"][name] = {"size_bytes": len(data), "sha256": digest}
    path.write_text(json.dumps(manifest))


# --- damage -----------------------------------------------------------------------------------

_PIECES = (
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"null", b"1e999", b"-1", b"\0", b"\xff",
    b"99999999999999999999", b"\x1b[2J", b"\\ud800", b"NaN", b"<", b">", b"&#", b"\n", b"=", b"..",
)  # fmt: skip


def wrong_values() -> dict[str, Any]:
    """Return the values that no field has; imported late, so that atheris sees our modules."""
    from tests.untrusted.hostile import WRONG

    return WRONG


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Return an input with some damage: to its values where it is JSON, else to its bytes."""
    head = data[:1] if data[:1] < b" " else b""
    if draw.random() < 0.5:
        try:
            document = json.loads(data[len(head) :])
        except (ValueError, RecursionError):
            pass
        else:
            for _ in range(draw.choice((1, 1, 1, 2, 4))):
                document = _changed(document, draw)
            return head + json.dumps(document).encode()[:LONGEST_BYTES]
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(changed) + 1)
        kind = draw.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[at:at] = draw.choice(_PIECES)
        elif kind == 2:
            del changed[at : at + draw.choice((1, 1, 4, 64))]
        elif kind == 3:
            end = at + draw.randrange(64)
            changed[at:at] = changed[at:end] * draw.choice((1, 1, 20))
        else:
            changed[at : at + 1] = bytes([draw.randrange(256)])
    return bytes(changed[:LONGEST_BYTES])


def _changed(value: Any, draw: random.Random) -> Any:
    """Return a JSON value with one value somewhere in it changed."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.15:
        if isinstance(value, int) and draw.random() < 0.5:
            return value + draw.choice((-1, 1, 2**16, 2**31, -(2**40)))
        return draw.choice([wrong for name, wrong in wrong_values().items() if name != "long"])
    if isinstance(value, list):
        at = draw.randrange(len(value))
        kind = draw.random()
        if kind < 0.1:
            return value[:at] + value[at + 1 :]
        if kind < 0.2:
            return [*value, value[at]]
        return [*value[:at], _changed(value[at], draw), *value[at + 1 :]]
    name = draw.choice(list(value))
    kind = draw.random()
    if kind < 0.1:
        return {key: inner for key, inner in value.items() if key != name}
    if kind < 0.2:
        return value | {name: value[draw.choice(list(value))]}
    return value | {name: _changed(value[name], draw)}


# --- the loop ---------------------------------------------------------------------------------


@contextmanager
def _refusals() -> Iterator[None]:
    """Go on after the block where it was refused as it should be."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (whatever comes is judged)
        _require_refusal(error)


def _require_refusal(error: Exception) -> None:
    """Raise unless an error is one that every caller understands, in safe words."""
    from crystalline.errors import CrystallineError
    from crystalline.untrusted import BadContent, message

    if not isinstance(error, (CrystallineError, BadContent, OSError)):
        raise error
    text = str(error)
    if isinstance(error, CrystallineError) and len(message(text)) > 2000:
        raise AssertionError(f"a message of {len(text)} characters") from error
    if len(text) > 5000:
        raise AssertionError(f"a message of {len(text)} characters") from error


class Fuzzer:
    """Runs inputs and keeps what they find."""

    def __init__(self, name: str, target: Target) -> None:
        self.name = name
        self.target = target
        self.executions = 0
        self.refused = 0
        self.places: set[str] = set()

    def execute(self, data: bytes) -> None:
        """Run one input; a finding is told once for each place."""
        self.executions += 1
        began_s = time.monotonic()
        try:
            try:
                self.target.run(data)
            except (KeyboardInterrupt, SystemExit):
                raise
            except Exception as error:  # noqa: BLE001  (whatever comes is judged)
                self.refused += 1
                _require_refusal(error)
            took_s = time.monotonic() - began_s
            if took_s > SLOW_S:
                raise TimeoutError(f"took {took_s:.1f} s")
        except Exception as error:  # noqa: BLE001
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "/crystalline/" in frame.filename] or frames
            place = f"{type(error).__name__} at {own[-1].filename}:{own[-1].lineno}"
            if place not in self.places:
                self.places.add(place)
                FINDINGS.mkdir(exist_ok=True)
                path = FINDINGS / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.write_bytes(data)
                print(f"FINDING {place}, input kept in {path}", flush=True)
                traceback.print_exception(error)

    def report(self) -> None:
        """Say what was done."""
        print(
            f"{self.name}: {self.executions:,} executions, {self.refused:,} refused, "
            f"{len(self.places)} findings",
            flush=True,
        )


def fuzz(name: str, minutes: float, seed: int) -> int:
    """Fuzz one target; return the exit code."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(name, TARGETS[name](Path(folder)))
        ends_s = time.monotonic() + 60 * minutes
        if atheris is None:
            draw = random.Random(seed)
            kept = list(fuzzer.target.seeds)
            while time.monotonic() < ends_s:
                fuzzer.execute(mutate(draw.choice(kept), draw))
        else:
            _with_atheris(fuzzer, Path(folder), ends_s, seed)
        fuzzer.report()
    return 1 if fuzzer.places else 0


def _with_atheris(fuzzer: Fuzzer, folder: Path, ends_s: float, seed: int) -> None:
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(fuzzer.target.seeds):
        (corpus / str(number)).write_bytes(data)

    def one(data: bytes) -> None:
        fuzzer.execute(data)
        if time.monotonic() > ends_s:  # libFuzzer ends the process without a word to Python
            fuzzer.report()
            sys.stdout.flush()
            os._exit(1 if fuzzer.places else 0)

    def damage(data: bytes, most_bytes: int, seed: int) -> bytes:
        if seed % 3 == 0:
            return atheris.Mutate(data, most_bytes)
        return mutate(data, random.Random(seed))[:most_bytes]

    options = [f"-seed={seed}", f"-max_len={LONGEST_BYTES}", "-rss_limit_mb=3000", "-timeout=60"]
    options += ["-print_final_stats=1", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=damage)
    atheris.Fuzz()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=list(TARGETS))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="name the targets")
    options = parser.parse_args()
    if options.list or options.name is None:
        print("\n".join(TARGETS))
        return 0
    if atheris is not None:
        with atheris.instrument_imports(include=["crystalline"]):
            import crystalline.cli.train
            import crystalline.data.prepare
            import crystalline.formats.rundir
            import crystalline.train.metrics

            assert crystalline
    return fuzz(options.name, options.minutes, options.seed)


if __name__ == "__main__":
    sys.exit(main())
