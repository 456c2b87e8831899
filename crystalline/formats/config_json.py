"""config.json as transformers has it, both ways, from the architecture's row.

What the file says is taken as transformers takes it: the same defaults for keys that are not
there, `rope_scaling` before `rope_parameters`.  A key that would make a model compute something
else than its architecture here is refused with its name; a key that nobody here knows is told in
a warning, since it may be such a one.  The rotary positions are written in the layout of
transformers 4 (`rope_theta`, `rope_scaling`), which version 5, llama.cpp and vLLM read as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from crystalline.errors import CheckpointError, UsageError
from crystalline.formats.catalog import damage
from crystalline.formats.documents import read_document
from crystalline.formats.files import CONFIG
from crystalline.log import get_logger
from crystalline.model.architectures import ARCHITECTURES
from crystalline.model.architectures.table import Architecture, HuggingFace
from crystalline.model.config import ModelConfig, RopeKind, RopeScaling
from crystalline.untrusted import BadContent, shown
from crystalline.untrusted.files import MODEL_CONFIG, ROPE

CRYSTALLINE = "crystalline-"  # before the model_type of a model with crystalline attention

_ROPE_KINDS: dict[str, RopeKind] = {"linear": "linear", "llama3": "llama3", "yarn": "yarn"}
_ROPE_KEYS = {
    "linear": ("factor",),
    "llama3": (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    ),
    "yarn": (
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor",
        "mscale", "mscale_all_dim", "truncate",
    ),
}  # fmt: skip
_ROPE_COMMON = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_ROPE_FIELDS = {  # of RopeScaling, as they are called in files
    "original_seq_len": "original_max_position_embeddings",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "attention_factor": "attention_factor",
}
_WINDOW_KEYS = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")

# What relatives of our architectures compute otherwise.  These must be absent, null, false, 0 or
# empty:
_MUST_BE_OFF = frozenset(
    {
        "quantization_config", "compression_config", "qkv_bias", "attn_bias", "use_bias", "bias",
        "use_qkv_bias", "attention_bias", "attention_out_bias", "add_qkv_bias", "mlp_bias",
        "lm_head_bias", "head_bias", "attn_logit_softcapping", "final_logit_softcapping",
        "logits_soft_cap", "query_pre_attn_scalar", "attention_multiplier", "attn_scale",
        "clip_qkv", "scale_depth", "dim_model_base", "qk_layernorm", "use_qk_norm",
        "use_qk_layernorm", "qk_norm", "alibi", "use_alibi", "parallel_attn",
        "use_parallel_residual", "num_experts", "num_local_experts", "n_routed_experts",
        "moe_intermediate_size", "no_rope_layers", "no_rope_layer_interval", "rope_interleaved",
        "use_mrope", "mrope_section", "rope_local_base_freq", "attention_chunk_size",
        "kv_lora_rank", "q_lora_rank", "num_kv_shared_layers", "block_types", "vision_config",
        "text_config", "audio_config", "is_encoder_decoder", "add_cross_attention",
        "cross_attention_layers", "pruned_heads", "per_layer_config", "embedding_layernorm",
        "use_post_norm",
    }
)  # fmt: skip
# and these 1, or null:
_MUST_BE_ONE = frozenset(
    {
        "partial_rotary_factor", "rotary_pct", "embedding_multiplier", "residual_multiplier",
        "logits_scaling", "logit_scale", "lm_head_multiplier", "scale_emb",
    }
)  # fmt: skip
# What changes nothing that is computed here.
_KNOWN = frozenset(
    {
        "_name_or_path", "name_or_path", "architectures", "model_type", "transformers_version",
        "torch_dtype", "dtype", "use_cache", "initializer_range", "bos_token_id", "eos_token_id",
        "pad_token_id", "sep_token_id", "cls_token_id", "decoder_start_token_id", "pretraining_tp",
        "attention", "attention_dropout", "hidden_dropout", "residual_dropout", "embd_dropout",
        "dropout", "n_ctx", "embd_pdrop", "attn_pdrop", "summary_type", "summary_use_proj",
        "summary_activation", "summary_proj_to_logits", "summary_first_dropout",
        "task_specific_params", "gradient_checkpointing", "output_attentions",
        "output_hidden_states", "output_past", "return_dict", "return_dict_in_generate",
        "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "finetuning_task",
        "is_decoder", "tokenizer_class", "tf_legacy_loss", "use_bfloat16", "torchscript",
        "reorder_and_upcast_attn", "_attn_implementation", "attn_implementation",
        "_attn_implementation_autoset", "max_length", "do_sample", "rope_theta", "rope_scaling",
        "rope_parameters", "original_max_position_embeddings", "tie_word_embeddings",
        "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "use_flash_attn",
        "unsloth_version", "unsloth_fixed",
    }
)  # fmt: skip
_MOST_NAMED = 5  # of unknown keys in one warning

_log = get_logger("formats")


# --- writing ----------------------------------------------------------------------------------


def config_document(
    config: ModelConfig, ends: Sequence[int] = (), begin: int | None = None, dtype: str = "float32"
) -> dict[str, Any]:
    """Return config.json.

    `ends` are the numbers of the tokens at which a text ends, the separator of documents first;
    `begin` is the token before a text, by default that separator; `dtype` that of the tensors.
    """
    how = _description(config)
    kind: dict[str, Any] = {"architectures": [how.model_class], "model_type": how.model_type}
    if config.attention == "crystalline":
        # Not the plain architecture: programs that knew no λ would pass over it and compute
        # something else.
        kind = {
            "architectures": ["Crystalline" + how.model_class],
            "model_type": CRYSTALLINE + how.model_type,
            "attention": "crystalline",
        }
    values = {key: _value(config, name, key in how.unsaid) for name, key in how.keys.items()}
    values |= {key: _value(config, name, False) for key, name in how.also.items()}
    values |= {key: accepted[0] for key, accepted in how.fixed.items()}
    written = how.written or tuple(values)
    document = kind | {key: values[key] for key in written}
    if config.row.positions == "rotary":
        document |= {"rope_theta": config.theta, "rope_scaling": _rope_document(config)}
    end = ends[0] if ends else None
    return document | {
        "initializer_range": 0.02,
        "tie_word_embeddings": config.is_tied,
        "bos_token_id": end if begin is None else begin,
        "eos_token_id": list(ends) if len(ends) > 1 else end,
        "torch_dtype": dtype,
    }


def _description(config: ModelConfig) -> HuggingFace:
    how = config.row.huggingface
    return how.windowed if config.sliding_window and how.windowed is not None else how


def _value(config: ModelConfig, name: str, unsaid: bool) -> Any:
    """Return a field as other programs need it: the number itself where ours says "the rule"."""
    if unsaid and not getattr(canonical(config), name):
        return None
    return {
        "num_kv_heads": config.kv_heads,
        "head_size": config.head_dim,
        "mlp_dim": config.mlp_width,
        "norm_epsilon": config.epsilon,
        "tie_embeddings": config.is_tied,
    }.get(name, getattr(config, name))


def _rope_document(config: ModelConfig) -> dict[str, Any] | None:
    scaling = config.rope_scaling
    if scaling is None:
        return None
    document: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    for name, key in _ROPE_FIELDS.items():
        value = getattr(scaling, name)
        if key in _ROPE_KEYS[scaling.kind] and (value or name != "attention_factor"):
            document[key] = value
    return document


def canonical(config: ModelConfig) -> ModelConfig:
    """Return the same model with 0 or None wherever a field says what the rule would give.

    >>> canonical(ModelConfig(65, 64, 4, 4, 128, num_kv_heads=4, mlp_dim=512)).to_dict()["seq_len"]
    64
    >>> canonical(ModelConfig(65, 64, 4, 4, 128, num_kv_heads=4)) == ModelConfig(65, 64, 4, 4, 128)
    True
    """
    bare = replace(config, mlp_dim=0)
    scaling = config.rope_scaling
    if scaling is not None:
        kept = {
            name: getattr(scaling, name)
            for name, key in _ROPE_FIELDS.items()
            if key in _ROPE_KEYS[scaling.kind]
        }
        scaling = RopeScaling(scaling.kind, scaling.factor, **kept)
    return replace(
        config,
        num_kv_heads=0 if config.kv_heads == config.num_heads else config.num_kv_heads,
        head_size=0 if config.head_dim * config.num_heads == config.embed_dim else config.head_size,
        mlp_dim=0 if config.mlp_dim == bare.mlp_width else config.mlp_dim,
        norm_epsilon=0.0 if config.epsilon == config.row.norm_epsilon else config.norm_epsilon,
        rope_theta=0.0 if config.theta == config.row.rope_theta else config.rope_theta,
        rope_scaling=scaling,
        tie_embeddings=None
        if config.is_tied == config.row.ties_embeddings
        else config.tie_embeddings,
    )


# --- reading ----------------------------------------------------------------------------------


def read_config(path: Path) -> ModelConfig:
    """Return the shape that config.json of the folder `path` describes, in canonical form.

    Raises `CheckpointError` where it is no model that is computed here.
    """
    return config_of(read_document(path, MODEL_CONFIG), path)


def config_of(document: Mapping[str, Any], path: Path) -> ModelConfig:
    """Return the shape that the checked content of config.json describes; see `read_config`."""
    return _Reader(document, path).config()


class _Reader:
    """One config.json: every key is looked at once, and refused or taken."""

    def __init__(self, document: Mapping[str, Any], path: Path) -> None:
        self.document = document
        self.path = path
        self.file = path / CONFIG
        self.unknown: list[str] = []

    def config(self) -> ModelConfig:
        row, how, crystalline = self._architecture()
        window = self._window(how)
        if window and how.windowed is not None:
            how = how.windowed
        for key, accepted in {**how.fixed, "attention": ("standard",)}.items():
            if key in _WINDOW_KEYS:
                continue
            if key == "attention" and crystalline:
                accepted = ("crystalline",)
            self._require(key, accepted)
        self._refuse_relatives(how)
        values = {name: self._field(name, key, how) for name, key in how.keys.items()}
        values["sliding_window"] = window
        if row.positions == "rotary":
            values["rope_theta"], values["rope_scaling"] = self._rope(how)
        if self.unknown:
            _log.warning(
                "%s says what this program does not know: %s; passed over.",
                self.file, shown(", ".join(self.unknown[:_MOST_NAMED])),
            )  # fmt: skip
        try:
            return canonical(
                ModelConfig(
                    architecture=row.name,
                    attention="crystalline" if crystalline else "standard",
                    **values,
                )
            )
        except UsageError as error:
            raise damage(
                self.path, f"{self.file} describes an impossible model: {error.message}"
            ) from None

    def _architecture(self) -> tuple[Architecture, HuggingFace, bool]:
        """Return the row that model_type names, its description, and whether λ are meant."""
        told = self.document.get("model_type", "gpt2")
        for crystalline in (False, True):
            for row in ARCHITECTURES.values():
                for how in (row.huggingface, row.huggingface.windowed):
                    if how and told == CRYSTALLINE * crystalline + how.model_type:
                        return row, how, crystalline
        types = [row.huggingface.model_type for row in ARCHITECTURES.values()]
        types += [
            row.huggingface.windowed.model_type
            for row in ARCHITECTURES.values()
            if row.huggingface.windowed and row.huggingface.windowed.model_type not in types
        ]
        raise self._unsupported("model_type", told, types)

    def _require(self, key: str, accepted: Sequence[Any]) -> None:
        value = self.document.get(key, accepted[0])
        if value not in accepted:
            raise self._unsupported(key, value, accepted)

    def _unsupported(self, key: str, value: Any, accepted: Sequence[Any]) -> CheckpointError:
        return CheckpointError(
            f"{self.file} has {key} = {shown(str(value), 60)}, which is not supported",
            advice=f"It must be {' or '.join(map(str, accepted))}.",
        )

    def _refuse_relatives(self, how: HuggingFace) -> None:
        """Refuse what would be computed otherwise; remember what nobody knows."""
        ours = {*how.keys.values(), *how.also, *how.fixed, *_WINDOW_KEYS}
        for key, value in self.document.items():
            if key in ours or key in _KNOWN:
                continue
            if key in _MUST_BE_ONE:
                if value is not None and value != 1:
                    raise self._unsupported(key, value, (1,))
            elif value is None or value is False or value in (0, "", [], {}):
                continue
            elif key in _MUST_BE_OFF:
                raise CheckpointError(
                    f"{self.file} has {shown(key)} = {shown(str(value), 60)}, which is not"
                    " supported",
                    advice="Use a model without it; quantized weights can be saved unquantized."
                    if key in ("quantization_config", "compression_config")
                    else "Use a model without it.",
                )
            else:
                self.unknown.append(key)

    def _field(self, name: str, key: str, how: HuggingFace) -> Any:
        """Return a field's value; a null means the rule, and of a switch that it is off."""
        if key not in self.document and key not in how.defaults:
            raise damage(self.path, f"{self.file} cannot be used: it has no '{key}'")
        value = self.document.get(key, how.defaults.get(key))
        if value is None:
            return False if name == "tie_embeddings" else 0
        return float(value) if name in ("norm_epsilon", "dropout") else value

    def _window(self, how: HuggingFace) -> int:
        """Return the sliding window of all layers, 0 for none.

        Raises `CheckpointError` where layers differ, or the model's type has none.
        """
        has_switch = "use_sliding_window" in how.fixed  # of Qwen's
        default = (how.windowed if has_switch and how.windowed else how).defaults.get(
            "sliding_window"
        )
        window = self.document.get("sliding_window", default)
        layers = self.document.get(how.keys["num_layers"], 0)
        kinds = self.document.get("layer_types")
        if kinds is not None:
            told = {str(kind) for kind in kinds}
            if told <= {"full_attention"}:
                return 0
            is_windowed = told == {"sliding_attention"}
            mixed = not is_windowed
        elif has_switch:
            first = self.document.get("max_window_layers", 28)
            is_windowed = bool(self.document.get("use_sliding_window")) and first < layers
            mixed = is_windowed and first > 0 and window is not None
        else:
            is_windowed, mixed = True, False
        if mixed:
            raise CheckpointError(
                f"{self.file} gives a sliding window to some of its layers only, which is not"
                " supported",
                advice="Use a model whose layers are all alike.",
            )
        if not is_windowed or not window:
            return 0
        if how.windowed is not None and not has_switch:
            raise CheckpointError(
                f"{self.file} has sliding_window = {window}, which models of type"
                f" {how.model_type} have not",
                advice=f'Set "model_type" to "{how.windowed.model_type}" where the window is meant,'
                " and leave it out where it is not.",
            )
        return cast(int, window)

    # --- rotary positions ---

    def _rope(self, how: HuggingFace) -> tuple[float, RopeScaling | None]:
        name = "rope_scaling" if self.document.get("rope_scaling") else "rope_parameters"
        told = self.document.get(name) or {}
        if {"full_attention", "sliding_attention"} & set(told):
            raise CheckpointError(
                f"{self.file} gives rotary positions of their own to some layers, which is not"
                " supported",
                advice="Use a model whose layers are all alike.",
            )
        try:
            rope = ROPE.check(told)
        except BadContent as error:
            raise damage(self.path, f"{self.file} cannot be used: in {name}, {error}") from None
        theta = rope.get("rope_theta", self.document.get("rope_theta"))
        theta = how.defaults["rope_theta"] if theta is None else theta
        if rope.get("partial_rotary_factor") not in (None, 1):
            raise self._unsupported("partial_rotary_factor", rope["partial_rotary_factor"], (1,))
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind == "default":
            return float(theta), None
        if kind not in _ROPE_KINDS:
            raise self._unsupported(f"{name}.rope_type", kind, ("default", *_ROPE_KINDS))
        keys = _ROPE_KEYS[kind]
        self.unknown += [
            f"{name}.{key}"
            for key, value in rope.items()
            if value is not None and key not in keys and key not in _ROPE_COMMON
        ]
        return float(theta), self._scaling(name, _ROPE_KINDS[kind], rope, how)

    def _scaling(
        self, name: str, kind: RopeKind, rope: dict[str, Any], how: HuggingFace
    ) -> RopeScaling:
        original: Any = 0
        if kind != "linear":
            longest = self.document.get(how.keys["seq_len"])
            original = self.document.get("original_max_position_embeddings") or rope.get(
                "original_max_position_embeddings", longest
            )
        found: dict[str, Any] = {"original_seq_len": original}
        factor = rope.get("factor")
        if factor is None and kind == "yarn" and original:
            factor = self.document[how.keys["seq_len"]] / original
        if kind == "llama3":
            found |= {key: rope.get(key) for key in ("low_freq_factor", "high_freq_factor")}
        if kind == "yarn":
            for key in ("beta_fast", "beta_slow"):
                if rope.get(key):
                    found[key] = float(rope[key])
            found["attention_factor"] = _attention_factor(factor, rope)
            if rope.get("truncate") is False:
                raise self._unsupported(f"{name}.truncate", False, (True,))
        for key, value in {"factor": factor, **found}.items():
            if value is None:
                raise damage(self.path, f"{self.file} cannot be used: {name} has no '{key}'")
        for low, high in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
            if low in found and high in found and not found[low] < found[high]:
                raise damage(
                    self.path, f"{self.file} cannot be used: {name}.{low} is not below {high}"
                )
        try:
            return RopeScaling(kind, float(factor), **found)  # type: ignore[arg-type]
        except UsageError as error:
            raise damage(
                self.path, f"{self.file} describes an impossible model: {error.message}"
            ) from None


def _attention_factor(factor: float | None, rope: Mapping[str, Any]) -> float:
    """Return what yarn multiplies by; 0 where it is the rule, 0.1 ln(factor) + 1."""
    told = rope.get("attention_factor")
    if told is not None:
        return float(told)
    over, under = rope.get("mscale"), rope.get("mscale_all_dim")
    if not over or not under or factor is None or factor <= 1:
        return 0.0
    logarithm = 0.1 * math.log(factor)
    return float((over * logarithm + 1.0) / (under * logarithm + 1.0))
