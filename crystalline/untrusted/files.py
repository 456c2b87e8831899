"""Every file that is read or written: who may have made it, how long it may be, what it must say.

One row a kind of file.  Readers take limit and fields from here, SECURITY.md shows the table
(`python3 tools/dev.py files`), and the tests make the hostile variants of every row from it.

    document = STATE.read(path)     # a JSON or TOML file, bounded, parsed and checked
    data = CRYSTAL.read_bytes(path)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Literal

from crystalline.untrusted.opening import open_regular, read_bytes, read_stream
from crystalline.untrusted.parsing import parse_json, parse_toml
from crystalline.untrusted.records import Field, Record

MOST_STEPS = 10**12
MOST_TOKENS = 2**62
SHA256 = "[0-9a-f]{64}"
_KEY = "[0-9a-f]{32}"
_NATS = 1e9  # a loss beyond this is no loss of a model
_MEGABYTE = 10**6

Maker = Literal["us", "anybody"]
Writing = Literal["renamed", "appended", "locked", "removed", "never"]


@dataclass(frozen=True)
class FileKind:
    """One kind of file.

    `limit_bytes` None: of any size, read in blocks or mapped.  `maker` says whether only this
    program makes such files (they may still come from somebody else's copy of it) or other
    programs too.  `writing` is how we write it: "renamed" (a temporary name beside it, forced to
    disk, then renamed), "appended" or "locked" (opened without following a link), "removed"
    (where it is what we leave behind, and nothing else), or "never".  Some are written for others
    and never read here: `is_read`.
    """

    name: str
    place: str
    limit_bytes: int | None
    maker: Maker
    writing: Writing
    parse: Callable[[bytes], Any] | None = None
    record: Record | None = None
    checks: str = ""
    is_read: bool = True

    def open(self, path: str | os.PathLike[str]) -> BinaryIO:
        """Open one to read.  Raises `OSError` for what is no regular file of that size."""
        return open_regular(path, limit_bytes=self.limit_bytes)

    def read_bytes(self, path: str | os.PathLike[str]) -> bytes:
        """Return the content.  Raises `OSError` for what is no regular file of that size."""
        assert self.limit_bytes is not None
        return read_bytes(path, self.limit_bytes)

    def read_stream(self, stream: BinaryIO, name: str) -> bytes:
        """Return all of a stream, which is no file.  Raises `OSError` where it is longer."""
        assert self.limit_bytes is not None
        return read_stream(stream, name, self.limit_bytes)

    def read(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Return the checked fields.  Raises `OSError` and `BadContent`."""
        return self.of(self.read_bytes(path))

    def of(self, data: bytes) -> dict[str, Any]:
        """Return the checked fields of a content.  Raises `BadContent`."""
        assert self.parse is not None
        assert self.record is not None
        return self.record.check(self.parse(data))


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_STEPS


def _is_fingerprint(value: Any) -> bool:
    return FINGERPRINT.accepts(value)


def _is_source(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and isinstance(value[0], str)
        and all(isinstance(number, int) for number in value[1:])
    )


FINGERPRINT = Record(Field("size_bytes", int, 0, 2**50), Field("sha256", str, 64, 64, SHA256))

MANIFEST = FileKind(
    "manifest.json",
    "RUN/checkpoints/STEP/, RUN/base/",
    _MEGABYTE,
    "us",
    "renamed",
    parse_json,
    Record(
        Field("format", int, 1, 1000),
        Field("step", int, 0, MOST_STEPS),
        Field("saved_at", float, 0, 1e12, optional=True),
        Field("files", dict, 1, 100, items=_is_fingerprint),
    ),
    "every file's size and SHA-256",
)
STATE = FileKind(
    "state.json",
    "RUN/checkpoints/STEP/",
    16 * _MEGABYTE,
    "us",
    "renamed",
    parse_json,
    Record(
        Field("format", int, 1, 1000),
        Field("step", int, 0, MOST_STEPS),
        Field("model", dict, 0, 100),
        Field("train", dict, 0, 200),
        Field("state", dict, 0, 200),
        # Of a run that trains adapters:
        Field("adapter", dict, 0, 10, optional=True),
        Field("base_sha256", str, 64, 64, SHA256, optional=True),
    ),
    "the model is that of config.json, the step that of the manifest, the adapters those of "
    "adapter_config.json, the hash that of RUN/base/model.safetensors",
)
PROGRESS = Record(  # STATE's field "state", of a training run
    Field("step", int, 0, MOST_STEPS),
    Field("tokens", int, 0, MOST_TOKENS),
    Field("seconds", float, 0, 1e10),
    Field("loss", float, -_NATS, _NATS, nullable=True),
    Field("val_loss", float, -_NATS, _NATS, nullable=True),
    Field("val_bits_per_byte", float, -_NATS, _NATS, nullable=True),
    Field("val_tokens", int, 0, MOST_TOKENS, optional=True, nullable=True),
    Field("evaluated_step", int, -1, MOST_STEPS),
    Field("best_val_loss", float, -_NATS, _NATS, nullable=True),
    Field("evaluations_since_best", int, 0, MOST_STEPS, optional=True),
    Field("epoch_nats", float, -1e300, 1e300, optional=True, nullable=True),
    Field("epoch_tokens", int, 0, MOST_TOKENS, optional=True),
    Field("lr_factor", float, 1e-4, 1e4, optional=True),
    Field("recently_dropped", list, 0, 1000, items=_is_step),
    Field("dropped_steps", int, 0, MOST_STEPS),
    Field("tokens_sha256", str, 64, 64, SHA256, optional=True),
    # Of a run that was given so much time:
    Field("seconds_left", float, -1e10, 1e10, optional=True),
    Field("most_steps", int, 0, MOST_STEPS, optional=True, nullable=True),
)
_TOKEN = 2**31 - 1


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _TOKEN


ROPE = Record(  # MODEL_CONFIG's fields "rope_scaling" and "rope_parameters"
    Field("rope_type", str, 1, 40, optional=True),
    Field("type", str, 1, 40, optional=True),
    Field("rope_theta", float, 1, 1e12, optional=True, nullable=True),
    Field("factor", float, 1, 1e6, optional=True, nullable=True),
    Field("original_max_position_embeddings", int, 1, 2**30, optional=True),
    Field("low_freq_factor", float, 1e-3, 1e6, optional=True),
    Field("high_freq_factor", float, 1e-3, 1e6, optional=True),
    Field("beta_fast", float, 0, 1e6, optional=True, nullable=True),
    Field("beta_slow", float, 0, 1e6, optional=True, nullable=True),
    Field("attention_factor", float, 1e-6, 1e6, optional=True, nullable=True),
    Field("mscale", float, 0, 1e6, optional=True, nullable=True),
    Field("mscale_all_dim", float, 0, 1e6, optional=True, nullable=True),
    Field("truncate", bool, optional=True, nullable=True),
    Field("partial_rotary_factor", float, 0, 1, optional=True, nullable=True),
)
MODEL_CONFIG = FileKind(
    "config.json",
    "RUN/checkpoints/STEP/, RUN/base/, MODEL/",
    _MEGABYTE,
    "anybody",
    "renamed",
    parse_json,
    Record(  # which of them must be there is the architecture's to say
        Field("model_type", str, 1, 100, optional=True),
        Field("vocab_size", int, 1, 2**24),
        Field("n_positions", int, 1, 2**22, optional=True),
        Field("n_layer", int, 1, 1024, optional=True),
        Field("n_head", int, 1, 4096, optional=True),
        Field("n_embd", int, 1, 2**18, optional=True),
        Field("n_inner", int, 1, 2**22, optional=True, nullable=True),
        Field("layer_norm_epsilon", float, 1e-30, 1, optional=True),
        Field("resid_pdrop", float, 0, 0.999, optional=True, nullable=True),
        Field("max_position_embeddings", int, 1, 2**24, optional=True),
        Field("num_hidden_layers", int, 1, 1024, optional=True),
        Field("num_attention_heads", int, 1, 4096, optional=True),
        Field("num_key_value_heads", int, 1, 4096, optional=True, nullable=True),
        Field("hidden_size", int, 1, 2**18, optional=True),
        Field("head_dim", int, 1, 2**16, optional=True, nullable=True),
        Field("intermediate_size", int, 1, 2**22, optional=True),
        Field("rms_norm_eps", float, 1e-30, 1, optional=True),
        Field("attention_dropout", float, 0, 0.999, optional=True, nullable=True),
        Field("tie_word_embeddings", bool, optional=True, nullable=True),
        Field("sliding_window", int, 1, 2**30, optional=True, nullable=True),
        Field("use_sliding_window", bool, optional=True, nullable=True),
        Field("max_window_layers", int, 0, 2**20, optional=True),
        Field("layer_types", list, 0, 1024, optional=True, nullable=True),
        Field("rope_theta", float, 1, 1e12, optional=True, nullable=True),
        Field("rope_scaling", dict, 0, 100, optional=True, nullable=True),
        Field("rope_parameters", dict, 0, 100, optional=True, nullable=True),
        Field("original_max_position_embeddings", int, 1, 2**30, optional=True, nullable=True),
    ),
    "an architecture computed here, and nothing that would change it; rotary positions: type and "
    "range; the tensors must be in the file before memory is taken",
)


def _is_module(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200


ADAPTER_CONFIG = FileKind(
    "adapter_config.json",
    "RUN/checkpoints/STEP/",
    _MEGABYTE,
    "anybody",
    "renamed",
    parse_json,
    Record(
        Field("peft_type", str, 1, 100),
        Field("r", int, 1, 2**18),
        Field("lora_alpha", float, 1e-9, 1e9),
        Field("lora_dropout", float, 0, 1, optional=True, nullable=True),
        Field("bias", str, 1, 100, optional=True),
        Field("fan_in_fan_out", bool, optional=True),
        Field("target_modules", list, 1, 1000, items=_is_module),
    ),
    "adapters of every matrix of every layer, no rank above its sides, and nothing that would "
    "change what they compute; where it says that its base lies is not looked at; the tensors must "
    "be in the file before memory is taken",
)
TOKENIZER = FileKind(
    "tokenizer.json",
    "RUN/, RUN/checkpoints/STEP/, RUN/base/, MODEL/, CACHE/corpora/KEY/",
    64 * _MEGABYTE,  # the largest of well-known models has 34 MB
    "anybody",
    "renamed",
    parse_json,
    None,
    "part by part; only what was checked reaches the tokenizers library",
)


def _is_template(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("name", "template")
    )


TOKENIZER_CONFIG = FileKind(
    "tokenizer_config.json",
    "RUN/checkpoints/STEP/, RUN/base/, MODEL/",
    16 * _MEGABYTE,  # it may list every added token
    "anybody",
    "renamed",
    partial(parse_json, max_digits=40),  # transformers writes 10^30 for "of any length"
    Record(),
    "names of special tokens, as far as the vocabulary has them; the chat template is kept as text",
)
TEMPLATES = Field("chat_template", list, 0, 100, items=_is_template)  # where it is no text
GENERATION_CONFIG = FileKind(
    "generation_config.json",
    "MODEL/",
    _MEGABYTE,
    "anybody",
    "never",
    parse_json,
    Record(),
    "the numbers of the tokens that end a text, as far as the vocabulary has them",
)
CHAT_TEMPLATE = FileKind(
    "chat_template.jinja",
    "MODEL/",
    _MEGABYTE,
    "anybody",
    "never",
    checks="UTF-8; rendered in a process of its own, in Jinja2's sandbox, within bounds of memory "
    "and time",
)
WEIGHTS = FileKind(
    "*.safetensors",
    "RUN/checkpoints/STEP/, RUN/base/, MODEL/",
    None,
    "anybody",
    "renamed",
    checks="names, shapes and types of config.json's model, or of its adapters, whose copies must "
    "be equal; finite numbers",
)
_SHARD = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}\.safetensors")


def _is_shard(value: Any) -> bool:
    return isinstance(value, str) and _SHARD.fullmatch(value) is not None


WEIGHTS_INDEX = FileKind(
    "model.safetensors.index.json",
    "MODEL/",
    64 * _MEGABYTE,
    "anybody",
    "never",
    parse_json,
    Record(Field("weight_map", dict, 1, 2**20, items=_is_shard)),
    "plain names of files beside it",
)
GGUF = FileKind(
    "*.gguf",
    "MODEL",
    None,
    "anybody",
    "renamed",
    record=Record(  # the values of its architecture
        Field("context_length", int, 1, 2**22),
        Field("embedding_length", int, 1, 2**18),
        Field("block_count", int, 1, 1024),
        Field("feed_forward_length", int, 1, 2**20),
        Field("attention.head_count", int, 1, 4096),
        Field("attention.head_count_kv", int, 1, 4096, optional=True),
        Field("attention.key_length", int, 1, 2**16, optional=True),
        Field("attention.value_length", int, 1, 2**16, optional=True),
        Field("attention.layer_norm_epsilon", float, 1e-30, 1, optional=True),
        Field("attention.layer_norm_rms_epsilon", float, 1e-30, 1, optional=True),
        Field("attention.sliding_window", int, 0, 2**32, optional=True),
        Field("rope.dimension_count", int, 0, 2**16, optional=True),
        Field("rope.freq_base", float, 1, 1e30, optional=True),
        Field("rope.scale_linear", float, 0, 1e6, optional=True),
        Field("rope.scaling.type", str, 0, 40, optional=True),
        Field("rope.scaling.factor", float, 0, 1e6, optional=True),
        Field("rope.scaling.original_context_length", int, 1, 2**31, optional=True),
        Field("rope.scaling.attn_factor", float, 1e-6, 1e6, optional=True),
        Field("rope.scaling.yarn_beta_fast", float, 1e-6, 1e6, optional=True),
        Field("rope.scaling.yarn_beta_slow", float, 1e-6, 1e6, optional=True),
    ),
    checks="every count, length and offset against the size of the file; tensors one behind the "
    "other, names, shapes and types of the model that is described, finite numbers; the tokenizer "
    "as tokenizer.json",
)
CRYSTAL = FileKind(
    "crystal.json",
    "RUN/, RUN/checkpoints/STEP/, CACHE/corpora/KEY/",
    256 * _MEGABYTE,
    "us",
    "renamed",
    parse_json,
    None,
    "the numbers follow from the table of derivations",
)
RUN_CONFIG = FileKind(
    "config.toml",
    "RUN/, --config",
    16 * _MEGABYTE,
    "anybody",
    "renamed",
    parse_toml,
    None,
    "known keys with values of their type",
)
METRICS = FileKind(
    "metrics.jsonl",
    "RUN/",
    1000 * _MEGABYTE,
    "us",
    "appended",
    parse_json,
    Record(
        Field("step", int, 0, MOST_STEPS),
        Field("loss", float, -_NATS, _NATS, optional=True, nullable=True),
        Field("val_loss", float, -_NATS, _NATS, optional=True, nullable=True),
        Field("val_bits_per_byte", float, -_NATS, _NATS, optional=True, nullable=True),
        Field("val_tokens", int, 0, MOST_TOKENS, optional=True, nullable=True),
    ),
    "line by line; what follows a damaged line is dropped on resume",
)
STATUS = FileKind(
    "status.json",
    "RUN/",
    4 * _MEGABYTE,  # of a tree of 1,884 spheres
    "us",
    "renamed",
    parse_json,
    Record(
        Field("over", bool),
        Field("state", str, 1, 100),
        Field("step", int, 0, MOST_STEPS),
        Field("how", str, 0, 4000, optional=True, nullable=True),
    ),
    "written for scripts; read for a message, and by type for the picture of the tree",
)
RUN_LOCK = FileKind(
    "run.lock",
    "RUN/",
    4096,
    "us",
    "locked",
    parse_json,
    Record(Field("pid", int, 1, 2**31 - 1), Field("host", str, 0, 255)),
    "read for a message only",
)
POINTER = FileKind(
    "latest, best, NAME",
    "RUN/, RUN/checkpoints/",
    4096,
    "us",
    "renamed",
    checks="a link, a folder or a line that names a checkpoint of the same run",
)
TOKENS = FileKind(
    "tokens.bin",
    "CACHE/corpora/KEY/",
    None,
    "us",
    "renamed",
    parse_json,
    Record(
        Field("dtype", str, 1, 16, "uint16|uint32"),
        Field("vocab_size", int, 1, 2**24),
        Field("train_tokens", int, 0, 2**48),
        Field("val_tokens", int, 0, 2**48),
        Field("train_bytes", int, 0, 2**50),
        Field("val_bytes", int, 0, 2**50),
        Field("documents", int, 0, 2**40),
        Field("tokenizer_sha256", str, 64, 64, SHA256),
        Field("payload_sha256", str, 64, 64, SHA256),
        Field("entry", str, 0, 32, f"({_KEY})?"),
        Field("marked", bool, optional=True),
    ),
    "the header's and the tokens' SHA-256, every id in the vocabulary, the entry it belongs to",
)
REQUEST = FileKind(
    "KEY.json",
    "CACHE/requests/",
    256 * _MEGABYTE,
    "us",
    "renamed",
    parse_json,
    Record(
        Field("entry", str, 32, 32, _KEY),
        Field("sources", list, 0, 10**7, items=_is_source),
    ),
    "the entry is a name in CACHE/corpora/",
)
NEIGHBORS = FileKind(
    "neighbors-KEY.bin",
    "CACHE/corpora/KEY/",
    2**34,
    "us",
    "renamed",
    checks="the size that its settings give, a SHA-256, every id in the vocabulary",
)
PRECISION = FileKind(
    "precision.json",
    "CACHE/",
    _MEGABYTE,
    "us",
    "renamed",
    parse_json,
    None,
    "speeds of known formats, greater than 0; it is measured again where it is anything else",
)
TEXT = FileKind(
    "text, JSON lines, HTML",
    "DATA, --perplexity",
    None,
    "anybody",
    "never",
    checks="UTF-8 without NUL bytes; read in blocks; records of bounded depth",
)
PROMPT = FileKind(
    "standard input",
    "prompt, chat, --perplexity -",
    1000 * _MEGABYTE,
    "anybody",
    "never",
    checks="UTF-8",
)

PROMPTS = FileKind(
    "prompts, one a line or JSON lines",
    "--prompts",
    1000 * _MEGABYTE,
    "anybody",
    "never",
    parse_json,
    Record(
        Field("prompt", str, 0, 2**30),
        Field("max_tokens", int, optional=True, nullable=True),
        Field("temperature", float, optional=True, nullable=True),
        Field("top_k", int, optional=True, nullable=True),
        Field("top_p", float, optional=True, nullable=True),
        Field("min_p", float, optional=True, nullable=True),
        Field("repeat_penalty", float, optional=True, nullable=True),
        Field("seed", int, optional=True, nullable=True),
    ),
    "the ranges of the command's own flags; no other fields but `id` and `stop`",
)
RESULTS = FileKind(
    "texts of a batch, JSON lines",
    "--out",
    None,
    "us",
    "appended",
    parse_json,
    Record(
        Field("index", int, 0, 2**40),
        Field("model", str, 0, 2**16),
        Field("prompt", str, 0, 2**30),
        Field("seed", int, 0, 2**64 - 1),
        Field("text", str, 0, 2**30),
        Field("finish_reason", str, 3, 6, "length|stop|eot"),
    ),
    "every line, before one is added; a torn last one is cut off, another file left as it is",
)
CONVERSATION = FileKind(
    "a conversation",
    "/save and /load of a chat",
    16 * _MEGABYTE,
    "anybody",
    "renamed",
    parse_json,
    Record(Field("messages", list, 0, 10**5)),
    "roles that take turns, text as content; another file is not replaced",
)
SUITE = FileKind(
    "prompts with answers, JSON lines",
    "cllm-eval --suite",
    64 * _MEGABYTE,
    "anybody",
    "never",
    parse_json,
    Record(
        Field("prompt", str, 0, 2**24),
        Field("group", str, 1, 40),
        Field("answer", str, 1, 2**24, optional=True, nullable=True),
    ),
    "UTF-8; no other fields but `id`",
)

PRIMES = FileKind(
    "a cache of primes",
    "a path that the caller gives to `crystalline.exact.PrimeCache`",
    None,
    "us",
    "renamed",
    checks="header and checksum, the size that the header gives; mapped read-only",
)
SHARED_MEMORY = FileKind(
    "cllm-ID-PID-START",
    "/dev/shm/, RUN/",
    None,
    "us",
    "removed",
    checks="a regular file of this user whose process is gone; memory in use has no name",
    is_read=False,
)
CACHE_TAG = FileKind(
    "CACHEDIR.TAG",
    "CACHE/, CACHE/corpora/, CACHE/requests/",
    None,
    "anybody",
    "renamed",
    checks="its first 4,096 bytes, as those of any file that may tell that a folder holds no text",
)

KINDS = (
    TEXT,
    PROMPT,
    PROMPTS,
    RESULTS,
    CONVERSATION,
    SUITE,
    RUN_CONFIG,
    RUN_LOCK,
    STATUS,
    METRICS,
    POINTER,
    MANIFEST,
    STATE,
    MODEL_CONFIG,
    ADAPTER_CONFIG,
    TOKENIZER,
    TOKENIZER_CONFIG,
    GENERATION_CONFIG,
    CHAT_TEMPLATE,
    WEIGHTS,
    WEIGHTS_INDEX,
    GGUF,
    CRYSTAL,
    TOKENS,
    REQUEST,
    NEIGHBORS,
    PRECISION,
    CACHE_TAG,
    PRIMES,
    SHARED_MEMORY,
)


def table() -> str:
    """Return the rows as a table of Markdown, as SECURITY.md shows it."""
    head = "| file | where | made by | read up to | what is checked | written |\n"
    lines = [head, "|---|---|---|---|---|---|\n"]
    for kind in KINDS:
        limit = "any size" if kind.limit_bytes is None else _size(kind.limit_bytes)
        limit = limit if kind.is_read else "is not read"
        checks = kind.checks
        if kind.record is not None and kind.record.fields:
            checks = f"{_fields(kind.record)}; {checks}"
        if kind is STATE:
            checks += f"; the settings of training: type and range; {_fields(PROGRESS)}, no step "
            checks += "beyond that of the checkpoint"
        cells = (f"`{kind.name}`", kind.place, kind.maker, limit, checks, kind.writing)
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def _fields(record: Record) -> str:
    names = ", ".join(f"`{name}`" for name in record.fields)
    return f"{names}: type and range"


def _size(size_bytes: int) -> str:
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size_bytes >= unit:
            return f"{size_bytes / unit:.0f} {name}"
    return f"{size_bytes} bytes"
