"""GPT-2 (Radford et al. 2019): LayerNorm, learned positions, GELU in its tanh form, biases.

Names and shapes are those of transformers, whose GPT-2 keeps linear layers as [inputs, outputs]:
a checkpoint needs no renaming and no transposing.
"""

from crystalline.model.architectures.table import Architecture, HuggingFace, Role, Tensor

_LAYER = "transformer.h.{layer}."
_WRITTEN = (
    "vocab_size", "n_positions", "n_ctx", "n_embd", "n_layer", "n_head", "n_inner",
    "activation_function", "layer_norm_epsilon", "resid_pdrop", "embd_pdrop", "attn_pdrop",
)  # fmt: skip

GPT2 = Architecture(
    name="gpt2",
    positions="learned",
    mlp="gelu",
    tensors={
        Role.TOKENS: Tensor("transformer.wte.weight"),
        Role.POSITIONS: Tensor("transformer.wpe.weight"),
        Role.QKV: Tensor(_LAYER + "attn.c_attn.weight"),
        Role.OUT: Tensor(_LAYER + "attn.c_proj.weight"),
        Role.UP: Tensor(_LAYER + "mlp.c_fc.weight"),
        Role.DOWN: Tensor(_LAYER + "mlp.c_proj.weight"),
        Role.NORM1: Tensor(_LAYER + "ln_1.weight"),
        Role.NORM1_BIAS: Tensor(_LAYER + "ln_1.bias"),
        Role.QKV_BIAS: Tensor(_LAYER + "attn.c_attn.bias"),
        Role.OUT_BIAS: Tensor(_LAYER + "attn.c_proj.bias"),
        Role.NORM2: Tensor(_LAYER + "ln_2.weight"),
        Role.NORM2_BIAS: Tensor(_LAYER + "ln_2.bias"),
        Role.UP_BIAS: Tensor(_LAYER + "mlp.c_fc.bias"),
        Role.DOWN_BIAS: Tensor(_LAYER + "mlp.c_proj.bias"),
        Role.FINAL_NORM: Tensor("transformer.ln_f.weight"),
        Role.FINAL_NORM_BIAS: Tensor("transformer.ln_f.bias"),
        Role.LAMBDA: Tensor(_LAYER + "attn.crystal_lambda"),
    },
    huggingface=HuggingFace(
        model_type="gpt2",
        model_class="GPT2LMHeadModel",
        keys={
            "vocab_size": "vocab_size",
            "seq_len": "n_positions",
            "embed_dim": "n_embd",
            "num_layers": "n_layer",
            "num_heads": "n_head",
            "mlp_dim": "n_inner",
            "norm_epsilon": "layer_norm_epsilon",
            "dropout": "resid_pdrop",
        },
        also={"n_ctx": "seq_len", "embd_pdrop": "dropout", "attn_pdrop": "dropout"},
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "add_cross_attention": (False,),
        },
        defaults={"n_inner": None, "layer_norm_epsilon": 1e-5, "resid_pdrop": 0.0},
        unsaid=("n_inner",),
        written=_WRITTEN,
        prefix="transformer.",
        buffers=r"h\.\d+\.attn\.(masked_)?bias",  # attention masks of old files
    ),
    ties_embeddings=True,
    mlp_ratio=4.0,
)
