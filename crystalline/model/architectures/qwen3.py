"""Qwen3 (Qwen team 2025): Llama with an RMSNorm on every head's queries and keys (QK-norm)."""

from dataclasses import replace

from crystalline.model.architectures.llama import LLAMA, TENSORS
from crystalline.model.architectures.table import Role, Tensor

QWEN3 = replace(
    LLAMA,
    name="qwen3",
    about="Llama with normalized queries and keys",
    tensors={
        **TENSORS,
        Role.Q_NORM: Tensor("model.layers.{layer}.self_attn.q_norm.weight"),
        Role.K_NORM: Tensor("model.layers.{layer}.self_attn.k_norm.weight"),
    },
    huggingface=replace(
        LLAMA.huggingface,
        model_type="qwen3",
        model_class="Qwen3ForCausalLM",
        fixed={
            "hidden_act": ("silu",),
            "attention_bias": (False,),
            "use_sliding_window": (False,),
        },
    ),
    norm_epsilon=1e-6,
    rope_theta=1e6,
)
