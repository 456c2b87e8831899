"""What programs keep beside text, told apart from text: runs, model folders and caches.

The one place that names the files of which a run, a checkpoint and the cache consist;
`formats` writes them under these names, `finding` passes them over.  A folder is
recognized by what its files hold and never by its own name: a folder `runs` of stories
is text, a copy of a run under another name is not, and notes with a config.json of
their own are notes.

    run directory   a lock that names its process; or checkpoints; or two of config.toml,
                    metrics.jsonl and tokenizer.json; or one of them and nothing foreign
    model folder    a config.json and weights or a tokenizer, ours or Hugging Face's
    cache           CACHEDIR.TAG (https://bford.info/cachedir), or what `prepare` keeps
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from crystalline.data.crystal import CRYSTAL
from crystalline.data.tokenfile import MAGIC as TOKENS_MAGIC
from crystalline.logfile import LOG_LINE, OLDER_FILES, older
from crystalline.untrusted import open_regular, read_bytes

# A run directory.
SETTINGS, METRICS, LOCK = "config.toml", "metrics.jsonl", "run.lock"
SUITE_RESULTS = "suite.jsonl"  # what a run's best checkpoints came to in `cllm-train --eval-suite`
CONTROL, STATUS = "control.sock", "status.json"  # the first while somebody trains there
PROFILE = "profile.json"  # what `cllm control RUN profile` has recorded
LOG = "train.log"  # and what has been rotated out of it; see `crystalline.logfile`
CHECKPOINTS, LATEST, BEST = "checkpoints", "latest", "best"
STEP_NAME = re.compile(r"step-(\d{8,})")
# A checkpoint.
CONFIG, TOKENIZER, STATE, MANIFEST = "config.json", "tokenizer.json", "state.json", "manifest.json"
MODEL, OPTIMIZER = "model.safetensors", "optimizer.safetensors"
# A run that trains adapters, and a checkpoint of one: PEFT's names.
BASE = "base"
ADAPTER_CONFIG, ADAPTER_MODEL = "adapter_config.json", "adapter_model.safetensors"
TRACE_HEAD = b'{"traceEvents":['  # of a profile; see `train.profile_report`
# The cache.
CORPORA, REQUESTS, TOKENS = "corpora", "requests", "tokens.bin"
CACHE_TAG = "CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"

RUN_DIRECTORY, MODEL_FOLDER, CACHE = "run directory", "model folder", "cache"


def log_files(name: str) -> tuple[str, ...]:
    """Return the names of a log file and of what is rotated out of it."""
    return (name, *(older(Path(name), number).name for number in range(1, OLDER_FILES + 1)))


_OF_A_RUN = frozenset({
    SETTINGS, METRICS, LOCK, CHECKPOINTS, LATEST, BEST, TOKENIZER, CRYSTAL, CONTROL, STATUS,
    SUITE_RESULTS, PROFILE, *log_files(LOG),
})  # fmt: skip
_KEY = re.compile(r"[0-9a-f]{32}")  # names an entry of the cache
_HEAD_BYTES = 4096
_LARGEST_CONFIG_BYTES = 1 << 20
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".ckpt")
_BESIDE_A_MODEL = frozenset({
    TOKENIZER, STATE, MANIFEST, "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
    "merges.txt", "vocab.txt", "generation_config.json", "preprocessor_config.json",
    "model.safetensors.index.json", "pytorch_model.bin.index.json",
})  # fmt: skip
_OTHER_CONFIGS = (ADAPTER_CONFIG, "model_index.json")  # of adapters and of pipelines
_SETTING = re.compile(rb"^(seq_len|learning_rate|lanes|tokenizer|embed_dim) = ", re.MULTILINE)
_REQUEST_HEAD = re.compile(rb'\s*\{\s*"entry"\s*:\s*"[0-9a-f]{32}"\s*,\s*"sources"\s*:')
_TOKENIZER_HEAD = re.compile(rb'\s*\{\s*"version"\s*:\s*"[^"]*"\s*,\s*"truncation"\s*:')


def recognize(folder: Path, names: Collection[str]) -> str | None:
    """Return what a folder of the files `names` is, or None where it may hold text.

    That is `RUN_DIRECTORY`, `MODEL_FOLDER` or `CACHE`.  A file that cannot be read tells nothing.
    """
    found = frozenset(names)
    if _is_cache(folder, found):
        return CACHE
    if _is_run(folder, found):
        return RUN_DIRECTORY
    if _is_model(folder, found):
        return MODEL_FOLDER
    return None


# --- caches -----------------------------------------------------------------------------------


def _is_cache(folder: Path, names: frozenset[str]) -> bool:
    if CACHE_TAG in names and _head(folder / CACHE_TAG).startswith(CACHE_SIGNATURE):
        return True
    if TOKENS in names and _head(folder / TOKENS).startswith(TOKENS_MAGIC):
        return True
    if _is_requests(folder, names) or _is_corpora(folder, names):
        return True
    if not names or not names <= {CORPORA, REQUESTS, CACHE_TAG}:
        return False
    requests, corpora = folder / REQUESTS, folder / CORPORA
    return _is_requests(requests, _names(requests)) or _is_corpora(corpora, _names(corpora))


def _is_requests(folder: Path, names: frozenset[str]) -> bool:
    if not names or not all(_KEY.fullmatch(name.removesuffix(".json")) for name in names):
        return False
    return any(_REQUEST_HEAD.match(_head(folder / name)) for name in names)


def _is_corpora(folder: Path, names: frozenset[str]) -> bool:
    return (
        bool(names)
        and all(map(_KEY.fullmatch, names))
        and any(_head(folder / name / TOKENS).startswith(TOKENS_MAGIC) for name in names)
    )


# --- runs and models --------------------------------------------------------------------------


def _is_run(folder: Path, names: frozenset[str]) -> bool:
    if not names & _OF_A_RUN:
        return False
    lock = _head(folder / LOCK) if LOCK in names else None
    owner = _parse(lock) if lock else None
    if isinstance(owner, dict) and {"pid", "host"} <= owner.keys():
        return True
    if CHECKPOINTS in names and _holds_checkpoints(folder / CHECKPOINTS):
        return True
    signs = (
        (SETTINGS in names and _is_settings(folder / SETTINGS))
        + (METRICS in names and _is_metrics(folder / METRICS))
        + (TOKENIZER in names and _is_tokenizer(folder / TOKENIZER))
    )
    signs += lock == b""  # between two system calls of its maker
    return signs >= 2 or (signs == 1 and _is_of_a_run(folder, names))


def _is_of_a_run(folder: Path, names: frozenset[str]) -> bool:
    """Return whether a run has all of these names: a folder `base` of text is none of them."""
    if BASE in names and not _is_model(folder / BASE, _names(folder / BASE)):
        return False
    return names <= _OF_A_RUN | {BASE}


def _holds_checkpoints(folder: Path) -> bool:
    return any(
        STEP_NAME.fullmatch(name) and _names(folder / name) & {CONFIG, STATE, MANIFEST}
        for name in _names(folder)
    )


def _is_settings(path: Path) -> bool:
    head = _head(path)
    return head.startswith(b"# Resolved by cllm-train") or len(set(_SETTING.findall(head))) >= 4


def _is_metrics(path: Path) -> bool:
    line = _parse(_head(path).partition(b"\n")[0])
    return isinstance(line, dict) and "step" in line and bool({"loss", "event"} & line.keys())


def _is_model(folder: Path, names: frozenset[str]) -> bool:
    weights = any(name.lower().endswith(_WEIGHTS) for name in names)
    if CONFIG in names and (weights or names & _BESIDE_A_MODEL):
        config = _json_object(folder / CONFIG)
        if config is not None:
            if {"model_type", "architectures"} & config.keys():
                return True
            if any(_is_safetensors(folder / n) for n in names if n.endswith(".safetensors")):
                return True
            if TOKENIZER in names and _is_tokenizer(folder / TOKENIZER):
                return True
    if any(name in names and _json_object(folder / name) for name in _OTHER_CONFIGS):
        return weights or "model_index.json" in names
    if TOKENIZER in names and (weights or "tokenizer_config.json" in names):
        return _is_tokenizer(folder / TOKENIZER)
    return False


def _is_tokenizer(path: Path) -> bool:
    """The library writes these keys first."""
    return _TOKENIZER_HEAD.match(_head(path)) is not None


def _is_safetensors(path: Path) -> bool:
    """Eight bytes of length, then a JSON object (https://github.com/huggingface/safetensors)."""
    head = _head(path)
    return len(head) > 9 and head[8:9] == b"{" and head[5:8] == bytes(3)


# --- logs and profiles ------------------------------------------------------------------------


def is_log(path: Path) -> bool:
    """Return whether a file is a log of this package's, such as --log-file writes."""
    return path.suffix == ".log" and LOG_LINE.match(_head(path)) is not None


def is_trace(path: Path) -> bool:
    """Return whether a file is a profile of this package's, such as --profile writes."""
    return path.suffix == ".json" and _head(path).startswith(TRACE_HEAD)


# --- reading ----------------------------------------------------------------------------------


def _head(path: Path) -> bytes:
    """Return the first bytes of a regular file; none of one that cannot be read."""
    try:
        with open_regular(path) as file:  # a pipe would be waited for
            return file.read(_HEAD_BYTES)
    except OSError:
        pass
    return b""


def _names(folder: Path) -> frozenset[str]:
    """Return the names in a folder but for hidden ones; none of one that cannot be listed."""
    try:
        return frozenset(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return frozenset()


def _json_object(path: Path) -> dict[str, Any] | None:
    try:
        value = _parse(read_bytes(path, _LARGEST_CONFIG_BYTES))
    except OSError:
        return None
    return value if isinstance(value, dict) else None


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content, parse_int=float)
    except (ValueError, RecursionError):
        return None
