"""Llama (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, grouped queries, no biases.

Names are those of transformers, whose linear layers are [outputs, inputs].  Its Llama knows no
sliding window; Mistral there is Llama with one, and has the same names.
"""

from dataclasses import replace

from crystalline.model.architectures.table import Architecture, HuggingFace, Role, Tensor

_LAYER = "model.layers.{layer}."
_ATTENTION = _LAYER + "self_attn."
_MLP = _LAYER + "mlp."

# What Llama's descendants share.
TENSORS = {
    Role.TOKENS: Tensor("model.embed_tokens.weight"),
    Role.HEAD: Tensor("lm_head.weight"),
    Role.QKV: Tensor(
        _ATTENTION + "qkv_proj.weight",
        tuple(f"{_ATTENTION}{one}_proj.weight" for one in "qkv"),
        transposed=True,
    ),
    Role.OUT: Tensor(_ATTENTION + "o_proj.weight", transposed=True),
    Role.UP: Tensor(
        _MLP + "gate_up_proj.weight",
        (_MLP + "gate_proj.weight", _MLP + "up_proj.weight"),
        transposed=True,
    ),
    Role.DOWN: Tensor(_MLP + "down_proj.weight", transposed=True),
    Role.NORM1: Tensor(_LAYER + "input_layernorm.weight"),
    Role.NORM2: Tensor(_LAYER + "post_attention_layernorm.weight"),
    Role.FINAL_NORM: Tensor("model.norm.weight"),
    Role.LAMBDA: Tensor(_ATTENTION + "crystal_lambda"),
}
KEYS = {
    "vocab_size": "vocab_size",
    "seq_len": "max_position_embeddings",
    "embed_dim": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "mlp_dim": "intermediate_size",
    "norm_epsilon": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "dropout": "attention_dropout",
}
DEFAULTS = {
    "num_key_value_heads": None,
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_dropout": 0.0,
    "rope_theta": 10000.0,
}

_HUGGINGFACE = HuggingFace(
    model_type="llama",
    model_class="LlamaForCausalLM",
    keys=KEYS,
    fixed={
        "hidden_act": ("silu",),
        "attention_bias": (False,),
        "mlp_bias": (False,),
    },
    defaults=DEFAULTS,
    prefix="model.",
    buffers=r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
)
_WINDOWED = replace(
    _HUGGINGFACE,
    model_type="mistral",
    model_class="MistralForCausalLM",
    keys=KEYS | {"sliding_window": "sliding_window"},
    fixed={"hidden_act": ("silu",)},
    defaults=DEFAULTS | {"num_key_value_heads": 8, "sliding_window": 4096},
)

LLAMA = Architecture(
    name="llama",
    positions="rotary",
    mlp="swiglu",
    tensors=TENSORS,
    huggingface=replace(_HUGGINGFACE, windowed=_WINDOWED),
    ties_embeddings=True,
    mlp_ratio=8 / 3,
    mlp_multiple=32,
    norm_epsilon=1e-5,
)
