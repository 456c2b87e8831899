"""A small world to do harm in: a run with its cache, and a folder outside that must not change.

`Origin` is made once; `World` is a copy of it for one case.  `signed` writes the checksums of a
checkpoint anew, as a forger would, so that what lies behind them is reached.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from crystalline.cli import train as cli
from crystalline.data.tokenfile import DATA_OFFSET
from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import CrystallineError
from crystalline.exact import PrimeCache
from crystalline.formats.checkpoint import save_checkpoint, save_model_folder
from crystalline.formats.gguf import write_gguf
from crystalline.model.adapters import AdapterConfig, adapter_table
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from crystalline.train import precision
from crystalline.train.config import TrainConfig
from crystalline.untrusted import message
from tests.untrusted.hostile import listing, remove

EXIT_CODES = {0, 1, 2, 3, 4}  # documented in `crystalline.errors`; 5 and more are of training
MOST_S = 5.0
TEXT = "act actor actors react reactor walk walks walked walking talk talks talked. " * 80
_SETTINGS = """--tokenizer word --vocab-size 60 --num-layers 1 --num-heads 2 --embed-dim 12
    --seq-len 8 --batch-size 12 --attention crystalline --crystalline-epsilon 0.1 --crystalline-k 3
    --max-steps 4 --eval-interval 2 --save-interval 2 --log-interval 1 --workers 1 --precision
    float32 --plain --quiet"""
SETTINGS = _SETTINGS.split()
STEP = "step-00000004"

_PREFIX = struct.Struct("<8sII32s")


class World:
    """Places of one case; everything below `root` may be harmed but `outside`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = root / "runs" / "run"
        self.checkpoint = self.run / "checkpoints" / STEP
        self.model = root / "model"  # as from elsewhere: shards, a chat template, token ids
        self.cache = root / "cache"
        self.outside = root / "outside"
        self.text = root / "text.txt"  # of the run
        self.other_text = root / "other.txt"
        self.primes = root / "primes"
        self.gguf = root / "model.gguf"
        self.talks = root / "talks"  # the files of inference
        self.tuned = root / "tuned"  # a run that trains adapters, of one checkpoint
        self.tuned_checkpoint = self.tuned / "checkpoints" / "step-00000001"

    @property
    def entry(self) -> Path:
        """The cached corpus."""
        return next(path for path in (self.cache / "corpora").iterdir() if len(path.name) == 32)


class Origin(World):
    """A world whose run was really trained; copies of it are made and unmade."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "world")
        self.root.mkdir()
        self.kept = root / "kept"
        self.other_text.write_text(TEXT[:200])
        PrimeCache(1000).save(self.primes)
        self.gguf.write_bytes(gguf_file(root))
        self.text.write_text(TEXT)
        past_s = time.time() - 3600  # changed long ago, so that the cache remembers it
        os.utime(self.text, (past_s, past_s))
        write_talks(self.talks)
        tune(self.tuned)
        (self.outside / "folder" / ".step-00000009.old.tmp").mkdir(parents=True)
        (self.outside / "folder" / "inner").write_text("inner")
        (self.outside / "file").write_text("precious")
        for path in (self.run, self.cache):
            path.parent.mkdir(exist_ok=True)
        time.sleep(0.15)
        code = cli.main([str(self.text), *SETTINGS, "--checkpoint-dir", str(self.run)])
        assert code == 0
        self._make_model()
        precision._write(self.cache, {"a shape": {"float32": 1.0, "bf16": 2.5}})
        shutil.copytree(self.root, self.kept, symlinks=True)
        self.untouched = listing(self.outside)

    def _make_model(self) -> None:
        self.model.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "crystal.json"):
            shutil.copy(self.checkpoint / name, self.model / name)
        (self.model / "generation_config.json").write_text('{"eos_token_id": [1, 0]}')
        (self.model / "chat_template.jinja").write_text("{% for m in messages %}…{% endfor %}")
        tensors = sorted(load_file(self.checkpoint / "model.safetensors").items())
        places = {}
        for number, part in enumerate((tensors[:5], tensors[5:])):
            name = f"model-0000{number + 1}-of-00002.safetensors"
            save_file(dict(part), self.model / name)
            places |= {tensor: name for tensor, _ in part}
        index = {"metadata": {"total_size": 1}, "weight_map": places}
        (self.model / "model.safetensors.index.json").write_text(json.dumps(index))

    def restore(self, *names: str) -> None:
        """Put the named parts back as they were: "runs", "cache", "other.txt"."""
        for name in names:
            path = self.root / name
            remove(path)
            if (self.kept / name).is_dir():
                shutil.copytree(self.kept / name, path, symlinks=True)
            else:
                shutil.copy2(self.kept / name, path)


def write_talks(folder: Path) -> None:
    """Write prompts, the result of one, a conversation and a suite."""
    folder.mkdir()
    prompt = {"prompt": "act", "max_tokens": 5, "temperature": 0.5, "top_k": 3, "top_p": 0.9}
    prompt |= {"min_p": 0.1, "repeat_penalty": 1.1, "seed": 7}
    result = {"index": 0, "id": 0, "model": "m", "prompt": "act", "seed": 7, "text": "or"}
    talk = [{"role": role, "content": "act"} for role in ("system", "user", "assistant")]
    question = {"group": "code", "prompt": "act", "answer": "x = 1"}
    for name, content in (
        ("prompts.jsonl", prompt),
        ("results.jsonl", result | {"finish_reason": "length"}),
        ("talk.json", {"messages": talk}),
        ("suite.jsonl", question),
    ):
        (folder / name).write_text(json.dumps(content) + "\n")


def tune(run: Path) -> None:
    """Write a run that trains adapters, without training."""
    tokenizer, adapter = run.parent / "byte.json", AdapterConfig(2, 3.0)
    Tokenizer.train("byte", [], 0).save(tokenizer)
    config = ModelConfig(260, 8, 1, 2, 8, architecture="llama", mlp_dim=12)
    weights = np.full(parameter_table(config).size, 0.5, np.float32)
    views = parameter_table(config).file_views(weights)
    save_model_folder(run / "base", config, views, tokenizer.read_bytes(), signed=True)
    learned = np.full(adapter_table(config, adapter).size, 0.25, np.float32)
    settings = TrainConfig(
        init_from="/a/model", lora_rank=2, lora_alpha=3.0, seq_len=8, embed_dim=8, num_heads=2,
        num_layers=1, architecture="llama", mlp_dim=12, tokenizer="byte", max_steps=2,
    )  # fmt: skip
    progress = {"step": 1, "tokens": 9, "seconds": 1.0, "evaluated_step": -1, "dropped_steps": 0}
    progress |= dict.fromkeys(("loss", "val_loss", "val_bits_per_byte", "best_val_loss"))
    save_checkpoint(
        run, step=1, model_config=config, train_config=settings, weights=learned,
        moments=(learned, learned), tokenizer_path=tokenizer, adapter=adapter,
        state=progress | {"recently_dropped": []},
    )  # fmt: skip
    tokenizer.unlink()


def signed(checkpoint: Path) -> None:
    """Write the size and checksum of each file of a checkpoint into its manifest."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name in manifest["files"]:
        if (checkpoint / name).is_file() and (checkpoint / name).stat().st_size < 1 << 30:
            data = (checkpoint / name).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            manifest["files"][name] = {"size_bytes": len(data), "sha256": digest}
    path.write_text(json.dumps(manifest))


def token_file(header: dict[str, Any], body: bytes, *, version: int = 2) -> bytes:
    """Return a token file whose checksums are right, whatever its header says."""
    text = json.dumps(header | {"payload_sha256": hashlib.sha256(body).hexdigest()}).encode()
    return raw_token_file(text, body, version=version)


def raw_token_file(text: bytes, body: bytes, *, version: int = 2) -> bytes:
    """Return a token file around any header."""
    head = _PREFIX.pack(b"CLLMTOK\0", version, len(text), hashlib.sha256(text).digest()) + text
    return head[:DATA_OFFSET].ljust(DATA_OFFSET, b"\0") + body


def parts_of(tokens: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the tokens of a token file."""
    _, _, length, _ = _PREFIX.unpack_from(tokens)
    return json.loads(tokens[_PREFIX.size :][:length]), tokens[DATA_OFFSET:]


def gguf_file(folder: Path) -> bytes:
    """Return a small GGUF file with all that such files have."""
    tokenizer, path = folder / "byte.json", folder / "made.gguf"
    Tokenizer.train("byte", [], 0).save(tokenizer)
    config = ModelConfig(260, 8, 1, 2, 32, architecture="llama", mlp_dim=32, rope_theta=100.0)
    table = parameter_table(config)
    flat = np.linspace(-1, 1, table.size, dtype=np.float32)
    write_gguf(
        path, config, table.file_views(flat).items(), type="q8_0", tokenizer=tokenizer,
        chat_template="{{ messages }}",
    )  # fmt: skip
    data = path.read_bytes()
    path.unlink()
    tokenizer.unlink()
    return data


def safetensors(header: Any, body: bytes, *, length: int | None = None) -> bytes:
    """Return a safetensors file around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def outcome(label: str, act: Callable[[], object]) -> str:
    """Do what the program does; return its words, "" for success.

    Anything but success and one bounded, safe sentence within `MOST_S` is an AssertionError.
    """
    began_s = time.monotonic()
    words, code = "", 0
    try:
        act()
    except CrystallineError as error:
        words = str(error)
        code = error.exit_code
    except Exception as error:
        raise AssertionError(f"{label}: {type(error).__name__}: {str(error)[:300]}") from error
    assert code in EXIT_CODES, f"{label}: exit code {code}"
    assert time.monotonic() - began_s < MOST_S, f"{label}: took too long"
    if words:
        require_sentence(label, words)
    return words


def require_sentence(label: str, words: str) -> None:
    """Raise unless `words` are one sentence that a command can print."""
    assert len(words) < 3000, f"{label}: a message of {len(words):,} characters"
    assert message(words).isprintable(), f"{label}: {words[:300]!r}"
    assert words.endswith((".", "?", "'", '"')), f"{label}: {words[-300:]!r}"
    assert "Traceback" not in words
