"""Qwen3 (Qwen team 2025): Llama with an RMSNorm on every head's queries and keys (QK-norm)."""

from dataclasses import replace

from crystalline.model.architectures.llama import DEFAULTS, KEYS, LLAMA, TENSORS
from crystalline.model.architectures.table import Role, Tensor

_HUGGINGFACE = replace(
    LLAMA.huggingface,
    model_type="qwen3",
    model_class="Qwen3ForCausalLM",
    fixed={
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "use_sliding_window": (False,),
        "use_qk_norm": (True,),
    },
    defaults=DEFAULTS | {"num_key_value_heads": 32, "head_dim": 128},
    written=(*KEYS.values(), "hidden_act", "attention_bias", "use_sliding_window"),
    windowed=None,
)
_WINDOWED = replace(
    _HUGGINGFACE,
    keys=KEYS | {"sliding_window": "sliding_window"},
    fixed={**_HUGGINGFACE.fixed, "use_sliding_window": (True,), "max_window_layers": (0,)},
    defaults={**_HUGGINGFACE.defaults, "sliding_window": 4096},
    written=(*_HUGGINGFACE.written, "sliding_window", "max_window_layers"),
)

QWEN3 = replace(
    LLAMA,
    name="qwen3",
    tensors={
        **TENSORS,
        Role.Q_NORM: Tensor("model.layers.{layer}.self_attn.q_norm.weight"),
        Role.K_NORM: Tensor("model.layers.{layer}.self_attn.k_norm.weight"),
    },
    huggingface=replace(_HUGGINGFACE, windowed=_WINDOWED),
    norm_epsilon=1e-6,
    rope_theta=1e6,
)
