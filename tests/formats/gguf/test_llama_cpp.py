"""llama.cpp as the judge of what is written and the maker of what is read.

    python -m bench.peers.build_llama_cpp FOLDER
    LLAMA_CPP=FOLDER/build/bin python -m pytest tests/formats/gguf/test_llama_cpp.py

Without LLAMA_CPP all of it is skipped; what needs transformers too is, without that.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.errors import DataError
from crystalline.formats.gguf import read_gguf, write_gguf
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from tests.formats.gguf.models import FOREIGN, SHAPES, TEXT, config_of, tensors_of, trained
from tests.formats.test_tokenizer_config import NASTY
from tests.oracles import gpt2 as twin

PROGRAMS = os.environ.get("LLAMA_CPP", "")
pytestmark = pytest.mark.skipif(not PROGRAMS, reason="LLAMA_CPP names no folder of llama.cpp")
# Its matrix tiles (--no-repack leaves them out) do not survive matrices as small as these.
EXACT = ("-t", "1", "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--no-repack")
CONTEXT = 48


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(PROGRAMS, f"llama-{program}")), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", timeout=100
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def perplexity(model: Path, text: str) -> float:
    """Return the perplexity over the second half of each window of `CONTEXT` tokens."""
    file = model.with_suffix(".txt")
    file.write_text(text, "utf-8")
    for _ in range(5):  # its log is sometimes cut off where the program ends
        done = run("perplexity", "-m", model, "-f", file, "-c", CONTEXT, "-b", CONTEXT, *EXACT)
        found = re.search(r"PPL = ([\d.]+)", done.stdout + done.stderr)
        if found:
            return float(found[1])
    raise AssertionError(done.stderr[-2000:])


def expected_perplexity(ids: np.ndarray, logits_of: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the same of a model that gives float64[B, T, V] for ids[B, T]."""
    windows = ids[: len(ids) // CONTEXT * CONTEXT].reshape(-1, CONTEXT)
    first = CONTEXT // 2
    logits = logits_of(windows)[:, first:-1].astype(np.float64)
    targets = windows[:, first + 1 :]
    logits -= logits.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return math.exp((np.log(np.exp(logits).sum(axis=-1)) - chosen).mean())


# --- tokens ---------------------------------------------------------------------------------------


def nasty_texts() -> Iterable[str]:
    yield from NASTY
    draw = random.Random(7)
    for _ in range(300):
        yield "".join(draw.choices(TEXT, k=draw.randint(1, 40)))
    # Characters of every kind; of those that Unicode got later, tables know more or less.
    known = [
        chr(i) for i in range(0x20, 0x20000) if unicodedata.ucd_3_2_0.category(chr(i))[0] != "C"
    ]
    for _ in range(300):
        mixed = draw.choices(known, k=draw.randint(1, 12)) + draw.choices([" ", "'s", "9"], k=6)
        yield "".join(draw.sample(mixed, len(mixed)))


@pytest.mark.parametrize("kind", ["bpe", "byte", "char", "llama3", "qwen", *FOREIGN])
def test_ids_are_equal(tmp_path: Path, kind: str) -> None:
    path = trained(kind, tmp_path)
    tokenizer = Tokenizer.load(path)
    model = tmp_path / "model.gguf"
    config = config_of("gpt2", tokenizer.vocab_size)
    write_gguf(model, config, tensors_of(config).items(), tokenizer=path)
    texts = []
    for text in nasty_texts():
        if "qwen" in kind:  # llama.cpp composes no characters
            text = unicodedata.normalize("NFC", text)
        try:
            tokenizer.encode(text)
            texts.append(text)
        except DataError:  # a character that `char` does not know
            continue
    assert len(texts) > 300
    end = tokenizer.eot_id
    assert end is not None
    separator = tokenizer.inner.id_to_token(end)
    if kind == "metaspace":  # which puts no space behind special tokens, and llama.cpp does
        texts, separator = [text for text in texts if "<" not in text], "\n"
    joined = separator.join(texts)
    file = tmp_path / "text"
    file.write_bytes(joined.encode())
    done = run(
        "tokenize", "-m", model, "-f", file, "--ids", "--no-escape", "--log-disable", "--no-bos"
    )
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    ours = tokenizer.encode(joined).tolist()
    pieces = joined.split(separator)
    for text, one, other in zip(pieces, parts(ours, end), parts(theirs, end), strict=False):
        assert one == other, ascii(text)
    assert ours == theirs


def parts(ids: list[int], end: int | None) -> list[list[int]]:
    result: list[list[int]] = [[]]
    for id_ in ids:
        if id_ == end:
            result.append([])
        else:
            result[-1].append(id_)
    return result


# --- models ---------------------------------------------------------------------------------------


def sharpened(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return tensors of a size at which the layers, and their order, matter to the result."""
    return {
        name: tensor * (0.25 if tensor.ndim > 1 else 0.1) + (tensor.ndim == 1)
        for name, tensor in tensors.items()
    }


LONG_TEXT = TEXT * 30


@pytest.mark.parametrize("shape", [name for name in SHAPES if name.startswith("gpt2")])
def test_gpt2_computes_the_same(tmp_path: Path, shape: str) -> None:
    path = trained("byte", tmp_path)
    tokenizer = Tokenizer.load(path)
    config = ModelConfig(tokenizer.vocab_size, CONTEXT, 2, 4, config_of(shape).embed_dim)
    tensors = sharpened(tensors_of(config))
    model = tmp_path / "model.gguf"
    write_gguf(model, config, tensors.items(), tokenizer=path)
    params = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    expected = expected_perplexity(
        tokenizer.encode(LONG_TEXT), lambda ids: twin.forward(params, config, ids)
    )
    assert perplexity(model, LONG_TEXT) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("shape", [name for name in SHAPES if not name.startswith("gpt2")])
def test_rotary_models_compute_what_transformers_does(tmp_path: Path, shape: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="5")
    path = trained("byte", tmp_path)
    tokenizer = Tokenizer.load(path)
    config = config_of(shape, tokenizer.vocab_size)
    tensors = sharpened(tensors_of(config))
    model = tmp_path / "model.gguf"
    write_gguf(model, config, tensors.items(), tokenizer=path)
    theirs = transformer(transformers, torch, config, tensors)

    def logits_of(ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            found = theirs(torch.from_numpy(ids.astype(np.int64))).logits
        return np.asarray(found.double().numpy())

    expected = expected_perplexity(tokenizer.encode(LONG_TEXT), logits_of)
    assert perplexity(model, LONG_TEXT) == pytest.approx(expected, rel=1e-4)


def transformer(
    transformers: Any, torch: Any, config: ModelConfig, tensors: dict[str, np.ndarray]
) -> Any:
    """Return the model of transformers with these tensors."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.theta}
    scaling = config.rope_scaling
    if scaling is not None:
        rope |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling is not None and scaling.kind != "linear":
        rope["original_max_position_embeddings"] = scaling.original_seq_len
    if scaling is not None and scaling.kind == "llama3":
        rope |= {"low_freq_factor": scaling.low_freq_factor}
        rope |= {"high_freq_factor": scaling.high_freq_factor}
    if scaling is not None and scaling.kind == "yarn":
        rope |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor:
            rope["attention_factor"] = scaling.attention_factor
    name = {"llama": "Llama", "qwen3": "Qwen3"}[config.architecture]
    settings = getattr(transformers, f"{name}Config")(
        vocab_size=config.vocab_size,
        hidden_size=config.embed_dim,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.seq_len,
        rms_norm_eps=config.epsilon,
        rope_parameters=rope,
        tie_word_embeddings=config.is_tied,
        attention_bias=False,
    )
    made = getattr(transformers, f"{name}ForCausalLM")(settings).eval()
    state = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in tensors.items()}
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if config.is_tied else set())
    return made


# --- llama-quantize -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["gpt2", "gpt2, odd", "llama, untied", "qwen3"])
@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_formats_and_bits_are_those_of_llama_quantize(
    tmp_path: Path, shape: str, kind: Any
) -> None:
    path = trained("byte", tmp_path)
    config = config_of(shape, 257)
    tensors = tensors_of(config)
    whole, ours, theirs = (tmp_path / f"{name}.gguf" for name in ("f32", "ours", "theirs"))
    write_gguf(whole, config, tensors.items(), tokenizer=path)
    write_gguf(ours, config, tensors.items(), tokenizer=path, type=kind)
    run("quantize", whole, theirs, kind)
    one, other = read_gguf(ours), read_gguf(theirs)
    assert one.config == other.config
    assert one.vocabulary() == other.vocabulary()
    for name in one.names():
        assert one.kind(name) is other.kind(name), name
        assert np.array_equal(one.blocks(name).rows, other.blocks(name).rows), name


def test_heads_of_six_bits_are_read(tmp_path: Path) -> None:
    """llama-quantize gives them to q4_0 files whose rows have whole blocks of 256."""
    path = trained("byte", tmp_path)
    config = ModelConfig(257, 16, 1, 4, 256, architecture="llama", tie_embeddings=False)
    tensors = tensors_of(config)
    whole, quantized = tmp_path / "f32.gguf", tmp_path / "q4_0.gguf"
    write_gguf(whole, config, tensors.items(), tokenizer=path)
    run("quantize", whole, quantized, "q4_0")
    model = read_gguf(quantized)
    assert model.kind("lm_head.weight").name == "q6_K"
    assert model.kind("model.embed_tokens.weight").name == "q4_0"
    error = model.tensor("lm_head.weight") - tensors["lm_head.weight"]
    assert np.abs(error).max() < 0.1
    assert np.abs(error).mean() < 0.03


def test_types_that_are_not_read_are_named(tmp_path: Path) -> None:
    from crystalline.errors import CheckpointError

    path = trained("byte", tmp_path)
    config = ModelConfig(257, 16, 1, 4, 256, architecture="llama")
    whole, quantized = tmp_path / "f32.gguf", tmp_path / "q4_k.gguf"
    write_gguf(whole, config, tensors_of(config).items(), tokenizer=path)
    run("quantize", whole, quantized, "q4_K_M")
    with pytest.raises(CheckpointError, match=r"is of type q\d_K.*llama-quantize"):
        read_gguf(quantized)


# --- text -----------------------------------------------------------------------------------------


def test_greedy_text_is_ours(tmp_path: Path) -> None:
    from crystalline.model.decode import Decoder

    path = trained("bpe", tmp_path)
    tokenizer = Tokenizer.load(path)
    config = ModelConfig(tokenizer.vocab_size, CONTEXT, 2, 4, 64)
    table = parameter_table(config)
    flat = np.zeros(table.size, np.float32)
    tensors = sharpened(tensors_of(config))
    for name, view in table.file_views(flat).items():
        view[...] = tensors[name]
    model = tmp_path / "model.gguf"
    write_gguf(model, config, table.file_views(flat).items(), tokenizer=path)
    prompt, count = "it's the", 40
    done = run(
        "completion", "-m", model, "-p", prompt, "-n", count, "--temp", 0, "-no-cnv",
        "--simple-io", "--no-display-prompt", "--no-warmup", "--ignore-eos", *EXACT,
    )  # fmt: skip
    decoder = Decoder(config, flat, cache="float32")
    ids = tokenizer.encode(prompt).tolist()
    start = len(ids)
    while len(ids) < start + count:
        logits = decode(decoder, ids)
        logits[tokenizer.eot_id] = -np.inf
        ids.append(int(logits.argmax()))
    ours, theirs = tokenizer.decode(ids[start:]), done.stdout.rstrip("\n")
    assert len(theirs) > count // 2  # its end is sometimes cut off, as that of its log
    assert ours.startswith(theirs)


def decode(decoder: Any, ids: list[int]) -> np.ndarray:
    """Return the logits behind these tokens, computed anew."""
    decoder.truncate(0, 0)
    row: np.ndarray = decoder.extend([0], [ids])[0]
    return row
