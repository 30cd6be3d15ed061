"""The rules of `config.json` of every `model_type` that is read: those of kerasgen's own architectures, and of others.

The others are those that KerasHub's converters read and its layers compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from kerasgen.models import architectures
from kerasgen.models.architectures.config_rules import SILU_WITHOUT_BIASES, SIZES, ConfigRules, heads_divide_the_width

FULL: Final = "full_attention"


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


def _both(*checks: Callable[[Mapping[str, Any]], str | None]) -> Callable[[Mapping[str, Any]], str | None]:
    return lambda config: next((reason for check in checks if (reason := check(config))), None)


_EXPERTS: Final = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")

_OTHERS: Final[Mapping[str, ConfigRules]] = {
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
        rope_types=("default",),
        rope_theta=1_000_000.0,
        further=heads_divide_the_width,
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
        rope_types=("default",),
        rope_theta=10_000.0,
        further=_both(heads_divide_the_width, _all_full),
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
        rope_types=("default",),
        rope_theta=10_000.0,
    ),
}
"""By `model_type`; the values that are absent, fixed or handed over were held against transformers 5.24's logits."""
