"""The rules of `config.json` of every `model_type` that is read: those of kerasgen's own architectures, and of others.

The others are those that KerasHub's converters read and its layers compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kerasgen.models import architectures
from kerasgen.models.architectures.config_rules import SILU_WITHOUT_BIASES, SIZES, ConfigRules, heads_divide_the_width

FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"


def rules_of(model_type: str) -> ConfigRules | None:
    """Return the rules of a model type, or None of one that is not read."""
    known = architectures.named(model_type)
    return _OTHERS.get(model_type) if known is None else known.config_rules


def model_types() -> list[str]:
    """Return the model types that are read."""
    return [*architectures.names(), *_OTHERS]


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

_OTHERS: Final[Mapping[str, ConfigRules]] = {
    "mistral": ConfigRules(
        "Mistral",
        sizes=SIZES,
        defaults={"num_key_value_heads": 8, "head_dim": None, "sliding_window": 4096, "rms_norm_eps": 1e-6},
        fixed=SILU_WITHOUT_BIASES | {"tie_word_embeddings": (False,)},
        rope_theta=10_000.0,
    ),
    "mixtral": ConfigRules(
        "Mixtral",
        sizes=(*SIZES, "num_local_experts", "num_experts_per_tok"),
        defaults={
            **{"num_key_value_heads": 8, "head_dim": None, "sliding_window": None, "rms_norm_eps": 1e-5},
            "output_router_logits": False,
        },
        fixed=SILU_WITHOUT_BIASES | {"tie_word_embeddings": (False,)},
        irrelevant=("max_position_embeddings", "router_jitter_noise"),
        aliases={"num_experts": "num_local_experts"},
        rope_theta=1_000_000.0,
        further=heads_divide_the_width,
    ),
    "qwen2": ConfigRules(
        "Qwen2",
        sizes=SIZES,
        defaults={
            **{"num_key_value_heads": 32, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"use_sliding_window": False, "sliding_window": None, "layer_types": None},
        },
        fixed={"hidden_act": ("silu",), "use_sliding_window": (False,)},
        irrelevant=("max_position_embeddings", "max_window_layers"),
        rope_theta=10_000.0,
        further=_both(heads_divide_the_width, _all_full),
    ),
    "qwen2_moe": ConfigRules(
        "Qwen2Moe",
        sizes=(*SIZES, *_EXPERTS, "shared_expert_intermediate_size"),
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
        further=_both(heads_divide_the_width, _all_full),
    ),
    "qwen3": ConfigRules(
        "Qwen3",
        sizes=SIZES,
        defaults={
            **{"num_key_value_heads": 32, "head_dim": 128, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"use_sliding_window": False, "sliding_window": None, "layer_types": None},
        },
        # KerasHub's norm of queries and keys has this epsilon, whatever the others have.
        fixed={**SILU_WITHOUT_BIASES, "use_sliding_window": (False,), "rms_norm_eps": (1e-6,)},
        irrelevant=("max_position_embeddings", "max_window_layers"),
        rope_theta=10_000.0,
        further=_all_full,
    ),
    "qwen3_moe": ConfigRules(
        "Qwen3Moe",
        sizes=(*SIZES, *_EXPERTS),
        defaults={
            **{"num_key_value_heads": 4, "head_dim": None, "tie_word_embeddings": False, "rms_norm_eps": 1e-6},
            **{"use_sliding_window": False, "sliding_window": None, "decoder_sparse_step": 1, "norm_topk_prob": False},
            "router_aux_loss_coef": 0.001,
        },
        fixed={
            **SILU_WITHOUT_BIASES,
            **{"use_sliding_window": (False,), "sliding_window": (None,), "rms_norm_eps": (1e-6,)},
            **{"decoder_sparse_step": (1,), "mlp_only_layers": ([], None)},
        },
        irrelevant=("max_position_embeddings", "max_window_layers"),
        aliases={"num_local_experts": "num_experts"},
        rope_theta=10_000.0,
    ),
    "gemma": ConfigRules(
        "Gemma",
        sizes=(*SIZES, "head_dim"),
        defaults={"num_key_value_heads": 16, "rms_norm_eps": 1e-6},
        fixed=_GEMMA_FIXED | {"rope_theta": (10_000.0,)},
        rope_theta=10_000.0,
    ),
    "gemma2": ConfigRules(
        "Gemma2",
        sizes=(*SIZES, "head_dim"),
        defaults={
            **{"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 4096},
            **{"final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "layer_types": None},
        },
        fixed=_GEMMA_FIXED | {"rope_theta": (10_000.0,)},
        rope_theta=10_000.0,
        further=_gemma_layers(2),
    ),
    "gemma3_text": ConfigRules(
        "Gemma3",
        sizes=(*SIZES, "head_dim", "sliding_window"),
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
    "smollm3": ConfigRules(
        "SmolLM3",
        sizes=(*SIZES, "max_position_embeddings"),
        defaults={
            **{"num_key_value_heads": 4, "rms_norm_eps": 1e-6, "no_rope_layers": None, "no_rope_layer_interval": 4},
            **{"layer_types": None, "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False},
            "sliding_window": None,
        },
        fixed=SILU_WITHOUT_BIASES
        | {"use_sliding_window": (False,), "tie_word_embeddings": (True,), "head_dim": (None,)},
        irrelevant=("max_window_layers",),
        rope_theta=2_000_000.0,
        further=_all_full,
    ),
}
"""By `model_type`; the values that are absent, fixed or handed over were held against transformers 5.24's logits."""
