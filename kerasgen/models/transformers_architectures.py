"""The settings of each architecture in transformers format: which are handed over, fixed, or irrelevant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Training, bookkeeping, labels, and how texts are drawn: none of it changes the logits.
_BOOKKEEPING: Final = """
    architectures model_type transformers_version torch_dtype dtype _name_or_path _commit_hash name_or_path use_cache
    output_hidden_states output_attentions return_dict return_dict_in_generate output_scores torchscript use_bfloat16
    attn_implementation _attn_implementation _attn_implementation_autoset chunk_size_feed_forward initializer_range
    initializer_factor attention_dropout hidden_dropout gradient_checkpointing id2label label2id num_labels
    problem_type finetuning_task task_specific_params tokenizer_class prefix bos_token_id eos_token_id pad_token_id
    sep_token_id decoder_start_token_id tf_legacy_loss pretraining_tp router_aux_loss_coef output_router_logits
    cache_implementation is_decoder unsloth_fixed unsloth_version do_sample temperature top_k top_p typical_p max_length
    min_length num_beams num_beam_groups num_return_sequences diversity_penalty repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids early_stopping suppress_tokens
    begin_suppress_tokens forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty
"""
IRRELEVANT: Final = frozenset(_BOOKKEEPING.split())

# What a key of any architecture must say, where it is there at all.
FIXED: Final[Mapping[str, tuple[Any, ...]]] = {
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "auto_map": (None, {}),
}

_SMALL: Final = {"attention_bias": (False,), "mlp_bias": (False,), "hidden_act": ("silu",)}
FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"


@dataclass(frozen=True)
class Architecture:
    """What is known of the settings of one `model_type`.

    Args:
        name: what its classes in transformers begin with.
        sizes: whole numbers, handed over, that a configuration must hold.
        defaults: what is handed over, with transformers' value for a key that is absent.
        fixed: the values that KerasHub's layers compute.
        irrelevant: keys that change no logits, besides those of every architecture.
        aliases: other names of keys.
        rope_theta: transformers' base of the rotary positions; None if the positions are learned.
        rope_types: the kinds of scaling of rotary positions that are handed over.
        further: says what is wrong with a configuration, or None.
    """

    name: str
    sizes: tuple[str, ...] = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    irrelevant: tuple[str, ...] = ("max_position_embeddings",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    rope_theta: float | None = None
    rope_types: tuple[str, ...] = ("default",)
    further: Callable[[Mapping[str, Any]], str | None] = lambda config: None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes whose weights these are."""
        return tuple(self.name + ending for ending in ("LMHeadModel", "ForCausalLM", "DoubleHeadsModel", "Model"))


def _head_dim(config: Mapping[str, Any]) -> str | None:
    width, heads, head = config["hidden_size"], config["num_attention_heads"], config.get("head_dim")
    if head is None and width % heads:
        return f"hidden_size={width}, which num_attention_heads={heads} does not divide"
    if head not in (None, width // heads):
        return f"head_dim={head}, where KerasHub's layers have only hidden_size / num_attention_heads, {width // heads}"
    return None


def _all_full(config: Mapping[str, Any]) -> str | None:
    kinds = config.get("layer_types")
    if kinds is not None and set(kinds) != {FULL}:
        return f"layer_types={kinds!r}, where KerasHub's layers are all {FULL!r}"
    return None


def _gemma_scale(config: Mapping[str, Any]) -> str | None:
    scale, known = config["query_pre_attn_scalar"], config["head_dim"]
    return None if scale == known else f"query_pre_attn_scalar={scale}, where KerasHub's layers have only {known}"


def _gemma_layers(every: int) -> Callable[[Mapping[str, Any]], str | None]:
    """Whether every so many layers, the last one of them, sees all, and the others a window."""

    def further(config: Mapping[str, Any]) -> str | None:
        wanted = [FULL if n % every == every - 1 else _SLIDING for n in range(config["num_hidden_layers"])]
        kinds = config.get("layer_types")
        if kinds is not None and kinds != wanted:
            return f"layer_types={kinds!r}, where KerasHub's layers are {wanted!r}"
        return _gemma_scale(config)

    return further


def _both(*checks: Callable[[Mapping[str, Any]], str | None]) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda config: next((reason for check in checks if (reason := check(config))), None)


_EXPERTS: Final = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
_GEMMA_FIXED: Final = {
    "attention_bias": (False,),
    "hidden_activation": ("gelu_pytorch_tanh", None),
    "hidden_act": ("gelu_pytorch_tanh",),
    "use_bidirectional_attention": (None, False),
    "tie_word_embeddings": (True,),
    "rms_norm_eps": (1e-6,),  # not every norm of KerasHub's has another
}
_BASE: Final = (*Architecture.sizes, "num_attention_heads")

ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "gpt2": Architecture(
        "GPT2",
        sizes=("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"),
        defaults={"resid_pdrop": 0.1, "n_inner": None},
        fixed={
            "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
            "layer_norm_epsilon": (1e-5,),
            "scale_attn_weights": (True,),
            "scale_attn_by_inverse_layer_idx": (False,),
            "tie_word_embeddings": (True,),
        },
        # The last one computes the same in another order, for half precision.
        irrelevant=(
            *("n_ctx", "embd_pdrop", "attn_pdrop", "summary_type", "summary_use_proj", "summary_activation"),
            *("summary_proj_to_labels", "summary_first_dropout", "reorder_and_upcast_attn"),
        ),
        aliases={
            "hidden_size": "n_embd",
            "max_position_embeddings": "n_positions",
            "num_attention_heads": "n_head",
            "num_hidden_layers": "n_layer",
        },
    ),
    "opt": Architecture(
        "OPT",
        sizes=(
            *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim"),
            "max_position_embeddings",
        ),
        defaults={"dropout": 0.1, "word_embed_proj_dim": None},
        fixed={
            "activation_function": ("relu",),
            "do_layer_norm_before": (True,),
            "_remove_final_layer_norm": (False,),
            "enable_bias": (True,),
            "layer_norm_elementwise_affine": (True,),
            "tie_word_embeddings": (True,),
            "learned_embeddings": (True,),
            "scale_embeddings": (False,),
        },
        irrelevant=("activation_dropout", "layerdrop", "init_std"),
    ),
    "llama": Architecture(
        "Llama",
        sizes=_BASE,
        defaults={"num_key_value_heads": None, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
        fixed=_SMALL,
        rope_theta=10_000.0,
        rope_types=("default", "llama3"),
        further=_head_dim,
    ),
    "mistral": Architecture(
        "Mistral",
        sizes=_BASE,
        defaults={"num_key_value_heads": 8, "head_dim": None, "sliding_window": 4096, "rms_norm_eps": 1e-6},
        fixed=_SMALL | {"tie_word_embeddings": (False,)},
        rope_theta=10_000.0,
    ),
    "mixtral": Architecture(
        "Mixtral",
        sizes=(*_BASE, "num_local_experts", "num_experts_per_tok"),
        defaults={
            **{"num_key_value_heads": 8, "head_dim": None, "sliding_window": None, "rms_norm_eps": 1e-5},
            "output_router_logits": False,
        },
        fixed=_SMALL | {"tie_word_embeddings": (False,)},
        irrelevant=("max_position_embeddings", "router_jitter_noise"),
        aliases={"num_experts": "num_local_experts"},
        rope_theta=1_000_000.0,
        further=_head_dim,
    ),
    "qwen2": Architecture(
        "Qwen2",
        sizes=_BASE,
        defaults={
            **{"num_key_value_heads": 32, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"use_sliding_window": False, "sliding_window": None, "layer_types": None},
        },
        fixed={"hidden_act": ("silu",), "use_sliding_window": (False,)},
        irrelevant=("max_position_embeddings", "max_window_layers"),
        rope_theta=10_000.0,
        further=_both(_head_dim, _all_full),
    ),
    "qwen2_moe": Architecture(
        "Qwen2Moe",
        sizes=(*_BASE, *_EXPERTS, "shared_expert_intermediate_size"),
        defaults={
            **{"num_key_value_heads": 16, "head_dim": None, "rms_norm_eps": 1e-6, "norm_topk_prob": False},
            **{"use_sliding_window": False, "sliding_window": None, "layer_types": None, "decoder_sparse_step": 1},
            **{"output_router_logits": False, "router_aux_loss_coef": 0.001},
        },
        fixed={
            "hidden_act": ("silu",),
            "use_sliding_window": (False,),
            "decoder_sparse_step": (1,),
            "mlp_only_layers": ([], None),
            "qkv_bias": (True,),
            "tie_word_embeddings": (False,),
        },
        irrelevant=("max_position_embeddings", "max_window_layers"),
        rope_theta=10_000.0,
        further=_both(_head_dim, _all_full),
    ),
    "qwen3": Architecture(
        "Qwen3",
        sizes=_BASE,
        defaults={
            **{"num_key_value_heads": 32, "head_dim": 128, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"use_sliding_window": False, "sliding_window": None, "layer_types": None},
        },
        # KerasHub's norm of queries and keys has this epsilon, whatever the others have.
        fixed={**_SMALL, "use_sliding_window": (False,), "rms_norm_eps": (1e-6,)},
        irrelevant=("max_position_embeddings", "max_window_layers"),
        rope_theta=10_000.0,
        further=_all_full,
    ),
    "qwen3_moe": Architecture(
        "Qwen3Moe",
        sizes=(*_BASE, *_EXPERTS),
        defaults={
            **{"num_key_value_heads": 4, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"use_sliding_window": False, "sliding_window": None, "decoder_sparse_step": 1, "norm_topk_prob": False},
            "router_aux_loss_coef": 0.001,
        },
        fixed={
            **_SMALL,
            **{"use_sliding_window": (False,), "sliding_window": (None,), "rms_norm_eps": (1e-6,)},
            **{"decoder_sparse_step": (1,), "mlp_only_layers": ([], None)},
        },
        irrelevant=("max_position_embeddings", "max_window_layers"),
        aliases={"num_local_experts": "num_experts"},
        rope_theta=10_000.0,
    ),
    "gemma": Architecture(
        "Gemma",
        sizes=(*_BASE, "head_dim"),
        defaults={"num_key_value_heads": 16, "rms_norm_eps": 1e-6},
        fixed=_GEMMA_FIXED | {"rope_theta": (10_000.0,)},
        rope_theta=10_000.0,
    ),
    "gemma2": Architecture(
        "Gemma2",
        sizes=(*_BASE, "head_dim"),
        defaults={
            **{"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 4096},
            **{"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "layer_types": None},
        },
        fixed=_GEMMA_FIXED | {"rope_theta": (10_000.0,)},
        rope_theta=10_000.0,
        further=_gemma_layers(2),
    ),
    "gemma3_text": Architecture(
        "Gemma3",
        sizes=(*_BASE, "head_dim", "sliding_window"),
        defaults={
            **{"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "layer_types": None},
            "final_logit_softcapping": None,
        },
        fixed={
            **_GEMMA_FIXED,
            "attn_logit_softcapping": (None,),  # transformers keeps this one and computes without it
            **{"sliding_window_pattern": (6,), "_sliding_window_pattern": (6,)},
            **{"rope_theta": (1_000_000.0,), "rope_local_base_freq": (10_000.0,), "rope_scaling": (None,)},
            "rope_parameters": (
                None,
                {
                    FULL: {"rope_theta": 1_000_000.0, "rope_type": "default"},
                    _SLIDING: {"rope_theta": 10_000.0, "rope_type": "default"},
                },
            ),
        },
        further=_gemma_layers(6),
    ),
    "smollm3": Architecture(
        "SmolLM3",
        sizes=(*_BASE, "max_position_embeddings"),
        defaults={
            **{"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "no_rope_layers": None, "no_rope_layer_interval": 4},
            **{"layer_types": None, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False},
            "sliding_window": None,
        },
        fixed=_SMALL | {"use_sliding_window": (False,), "tie_word_embeddings": (True,), "head_dim": (None,)},
        irrelevant=("max_window_layers",),
        rope_theta=2_000_000.0,
        further=_all_full,
    ),
}
"""By `model_type`; the values that are absent, fixed or handed over were held against transformers 5.24's logits."""
