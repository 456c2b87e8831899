"""Adapters made here, opened by PEFT beside their base: the same logits.

PEFT is the oracle; without it (the extra `compat`) nothing of this is tested.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crystalline.data.tokenizer import Tokenizer
from crystalline.formats.checkpoint import save_checkpoint, save_model_folder
from crystalline.formats.sources import open_source
from crystalline.infer.loading import open_model
from crystalline.model.adapters import AdapterConfig
from crystalline.model.config import ModelConfig
from crystalline.model.params import parameter_table
from tests.formats.adapted import TRAIN, learned
from tests.formats.checkpoints import flats

pytestmark = pytest.mark.filterwarnings("ignore")  # what PEFT and transformers tell each other

ADAPTER = AdapterConfig(rank=5, alpha=8.0)
LLAMA = ModelConfig(257, 64, 2, 4, 24, architecture="llama", num_kv_heads=2, mlp_dim=40)
CONFIGS = {
    "gpt2": ModelConfig(257, 64, 2, 4, 24),
    "llama": LLAMA,
    "llama untied": replace(LLAMA, tie_embeddings=False, num_kv_heads=0),
    "llama window": replace(LLAMA, sliding_window=3),  # Mistral's
    "qwen3": replace(LLAMA, architecture="qwen3", head_size=16),
}


@pytest.fixture(scope="module")
def peft(hub: Any) -> Any:  # noqa: ARG001 - what it sets up
    """PEFT, beside its transformers."""
    return pytest.importorskip("peft", minversion="0.15")


def make_run(run: Path, config: ModelConfig) -> Path:
    """Write a run that trains adapters, and return its checkpoint."""
    run.mkdir()
    tokenizer = Tokenizer.train("byte", [], 0).to_json().encode()
    views = parameter_table(config).file_views(0.3 * flats(3, config)[0])
    save_model_folder(run / "base", config, views, tokenizer, signed=True)
    (run / "tokenizer.json").write_bytes(tokenizer)
    weights, m, v = learned(config, 4, ADAPTER)
    return save_checkpoint(
        run, step=1, model_config=config, train_config=TRAIN, weights=0.1 * weights,
        moments=(m, v), tokenizer_path=run / "tokenizer.json", state={}, adapter=ADAPTER,
    )  # fmt: skip


def logits_of(model: Any, ids: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model.double()(torch.tensor(ids[None])).logits[0].numpy()


def require_same(place: Path, ids: np.ndarray, expected: np.ndarray) -> None:
    """Raise unless the model at `place` computes these logits."""
    decoder = open_model(place, precision="float32", cache="float32").decoder
    largest = np.abs(expected).max()
    for end in (1, 2, 7, 40):
        decoder.truncate(0, 0)
        found = decoder.extend([0], [ids[:end].astype(np.int32)])[0]
        assert np.abs(found - expected[end - 1]).max() <= 1e-4 * largest, end


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_peft(
    peft: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    run = tmp_path / "run"
    path = make_run(run, CONFIGS[name])
    ids = np.random.default_rng(5).integers(0, 257, 40)
    base = AutoModelForCausalLM.from_pretrained(run / "base")
    without = logits_of(base, ids)
    model = peft.PeftModel.from_pretrained(base.float(), path)
    count = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    stored = peft.PeftConfig.from_pretrained(path)
    assert (stored.r, stored.lora_alpha, stored.peft_type) == (5, 8, "LORA")
    expected = logits_of(model, ids)
    assert np.abs(expected - without).max() > 0.01 * np.abs(expected).max()
    assert count == sum(p.size * len(p.parts) if ".lora_A" in p.name else p.size
                        for p in _table(CONFIGS[name]).parameters)  # fmt: skip
    require_same(run, ids, expected)
    # By itself: it names its base, from any working directory.
    monkeypatch.chdir(tmp_path)
    alone = peft.AutoPeftModelForCausalLM.from_pretrained(os.path.relpath(path))
    np.testing.assert_array_equal(logits_of(alone, ids), expected)
    # And transformers takes it for what it is, too.
    model_there = AutoModelForCausalLM.from_pretrained(path)
    np.testing.assert_allclose(logits_of(model_there, ids), expected, rtol=1e-5, atol=1e-7)
    # Merged there, it is what is merged here.
    merged = model.float().merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    (tmp_path / "merged" / "tokenizer.json").write_bytes((path / "tokenizer.json").read_bytes())
    theirs, ours = open_source(tmp_path / "merged").flat(), open_source(run).flat()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_peft_saves_of_it_is_ours_again(peft: Any, tmp_path: Path) -> None:
    """Its file of settings has every field that it knows."""
    from transformers import AutoModelForCausalLM

    run = tmp_path / "run"
    path = make_run(run, LLAMA)
    base = AutoModelForCausalLM.from_pretrained(run / "base")
    model = peft.PeftModel.from_pretrained(base, path)
    model.save_pretrained(tmp_path / "saved")
    wanted = open_source(run).flat()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (path / name).write_bytes((tmp_path / "saved" / name).read_bytes())
    (path / "manifest.json").unlink()  # which knows the files as they were
    assert json.loads((path / "adapter_config.json").read_text())["use_dora"] is False
    np.testing.assert_array_equal(open_source(path).flat(), wanted)


def _table(config: ModelConfig) -> Any:
    from crystalline.model.adapters import adapter_table

    return adapter_table(config, ADAPTER)
