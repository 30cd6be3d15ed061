"""The parts that Llama and its descendants share: RMS norms, gated feed-forward and rotary positions.

Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from kerasgen.decoder.config import (
    Activation,
    Attention,
    DecoderConfig,
    FeedForward,
    Norm,
    NormKind,
    RotaryPositions,
)
from kerasgen.decoder.rotary_scaling import LinearScaling
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures.base import Part
from kerasgen.models.architectures.config_rules import ROTARY as ROTARY
from kerasgen.models.architectures.config_rules import SIZES, ConfigRules

FULL: Final = "full_attention"
SLIDING: Final = "sliding_attention"

PARTS: Final = (
    Part("embedding.tokens", "token_embedding", "embed_tokens", "token_embd"),
    Part("final_norm", "layer_norm", "norm", "output_norm"),
    Part("head", "token_embedding", "lm_head", "output"),
)
LAYER_PARTS: Final = (
    Part("attention_norm", "_self_attention_layernorm", "input_layernorm", "attn_norm"),
    Part("query", "_self_attention_layer._query_dense", "self_attn.q_proj", "attn_q"),
    Part("key", "_self_attention_layer._key_dense", "self_attn.k_proj", "attn_k"),
    Part("value", "_self_attention_layer._value_dense", "self_attn.v_proj", "attn_v"),
    Part("query_norm", "_self_attention_layer._query_dense_layer_norm", "self_attn.q_norm", "attn_q_norm"),
    Part("key_norm", "_self_attention_layer._key_dense_layer_norm", "self_attn.k_norm", "attn_k_norm"),
    Part("output", "_self_attention_layer._output_dense", "self_attn.o_proj", "attn_output"),
    Part("feedforward_norm", "_feedforward_layernorm", "post_attention_layernorm", "ffn_norm"),
    Part("gate", "_feedforward_gate_dense", "mlp.gate_proj", "ffn_gate"),
    Part("up", "_feedforward_intermediate_dense", "mlp.up_proj", "ffn_up"),
    Part("down", "_feedforward_output_dense", "mlp.down_proj", "ffn_down"),
)
"""KerasHub calls the layers of Llama, Mistral, Qwen and Qwen 3 the same."""
IGNORED: Final = (r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",)
"""Computed by a formula, or kept for shape's sake, in older files."""

KEYS: Final = {
    "vocab_size": "vocabulary_size",
    "hidden_size": "hidden_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "attention.num_query_heads",
    "num_key_value_heads": "attention.num_key_value_heads",
    "head_dim": "attention.head_dim",
    "intermediate_size": "feedforward.intermediate_dim",
    "rms_norm_eps": "norm.epsilon",
    "tie_word_embeddings": "tied_head",
}
ARGUMENTS: Final = {
    "vocabulary_size": "vocabulary_size",
    "hidden_dim": "hidden_dim",
    "num_layers": "num_layers",
    "num_query_heads": "attention.num_query_heads",
    "num_key_value_heads": "attention.num_key_value_heads",
    "intermediate_dim": "feedforward.intermediate_dim",
    "layer_norm_epsilon": "norm.epsilon",
    "rope_max_wavelength": "positions.base",
}

ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_approximate",
    "gelu_pytorch_tanh": "gelu_approximate",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
    "swish": "silu",
}
FIXED: Final = {"hidden_act": tuple(ACTIVATIONS)}
_TRANSFORMERS_ACTIVATIONS: Final = {
    "gelu": "gelu",
    "gelu_approximate": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu_squared": "relu2",
    "silu": "silu",
}


def rules(name: str, **defaults: Any) -> ConfigRules:
    """Return which keys a `config.json` has of what transformers' classes that begin with this name derive from Llama.

    Args:
        name: what they begin with.
        **defaults: transformers' values for absent keys, besides or in the place of those that all have.
    """
    shared: dict[str, Any] = {"num_key_value_heads": None, "head_dim": None, "tie_word_embeddings": False}
    shared |= {"hidden_act": "silu", "max_position_embeddings": None}
    return ConfigRules(name, sizes=SIZES, defaults=shared | defaults, fixed=FIXED, rope_theta=10_000.0)


def read(
    name: str,
    settings: Mapping[str, Any],
    *,
    norm: NormKind = "rms",
    bias: bool | None = None,
    query_key_norm: Norm | None = None,
    query_key_norm_axis: Literal["head", "all_heads"] = "head",
    windows: tuple[int | None, ...] = (),
    scale: float | None = None,
    soft_cap: float | None = None,
    activation: str = "hidden_act",
    **further: Any,
) -> DecoderConfig:
    """Return the description of a decoder from transformers' settings, or from what `of_keras_hub` makes of others.

    Args:
        name: the name of the architecture.
        settings: checked, with its `rotary` positions.
        norm: the kind of all norms.
        bias: whether queries, keys and values have one, and the output has none; None for what `attention_bias` says
            of all four.
        query_key_norm: as in `Attention`.
        query_key_norm_axis: as in `Attention`.
        windows: as in `Attention`.
        scale: as in `Attention`.
        soft_cap: as in `Attention`.
        activation: the key that names it.
        **further: fields of the description.

    Raises:
        ModelArgumentError: heads don't divide the width, and have no size of their own.
    """
    heads, width = settings["num_attention_heads"], settings["hidden_size"]
    attention_bias, mlp_bias = bool(settings.get("attention_bias", False)), bool(settings.get("mlp_bias", False))
    qkv_bias = attention_bias if bias is None else bias
    attention = Attention(
        heads,
        settings["num_key_value_heads"],
        head_dim(settings),
        *(qkv_bias, qkv_bias, qkv_bias, attention_bias),
        query_key_norm=query_key_norm,
        query_key_norm_axis=query_key_norm_axis,
        windows=windows if any(windows) else (),
        scale=scale,
        soft_cap=soft_cap,
    )
    kind = ACTIVATIONS[settings.get(activation) or "silu"]
    described = {
        "architecture": name,
        "vocabulary_size": settings["vocab_size"],
        "num_layers": settings["num_hidden_layers"],
        "hidden_dim": width,
        "max_sequence_length": None,
        "attention": attention,
        "feedforward": FeedForward(settings["intermediate_size"], kind, True, up_bias=mlp_bias, down_bias=mlp_bias),
        "norm": Norm(norm, float(settings["rms_norm_eps"]), bias=False),
        "positions": settings[ROTARY].get("", RotaryPositions()),
        "tied_head": settings["tie_word_embeddings"],
    }
    return DecoderConfig(**described | further)


def head_dim(settings: Mapping[str, Any]) -> int:
    """Return the width of a head: its own, or its share of the model's.

    Raises:
        ModelArgumentError: heads don't divide the width, and have no size of their own.
    """
    heads, width = settings["num_attention_heads"], settings["hidden_size"]
    if not settings.get("head_dim") and width % heads:
        raise ModelArgumentError(f"hidden_size={width} is no multiple of num_attention_heads={heads}.")
    return int(settings.get("head_dim") or width // heads)


def of_keras_hub(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return KerasHub's settings of a backbone under transformers' names, for `read`."""
    factor = float(settings.get("rope_scaling_factor") or 1.0)
    base = float(settings.get("rope_max_wavelength", 10_000.0))
    rotary = RotaryPositions(base, scaling=None if factor == 1.0 else LinearScaling(factor))
    return {
        "vocab_size": settings["vocabulary_size"],
        "hidden_size": settings["hidden_dim"],
        "num_hidden_layers": settings["num_layers"],
        "num_attention_heads": settings["num_query_heads"],
        "num_key_value_heads": settings["num_key_value_heads"],
        "head_dim": settings.get("head_dim"),
        "intermediate_size": settings["intermediate_dim"],
        "rms_norm_eps": settings["layer_norm_epsilon"],
        "tie_word_embeddings": settings.get("tie_word_embeddings", False),
        ROTARY: {"": rotary},
    }


def common_window(config: DecoderConfig) -> int | None:
    """Return the window of every layer; None where a layer sees all."""
    windows = set(config.attention.windows)
    return windows.pop() if len(windows) == 1 else None


def windows_of(settings: Mapping[str, Any], kinds: list[str] | None = None) -> tuple[int | None, ...]:
    """Return each layer's window, as `layer_types` says, or those kinds where it says nothing."""
    kinds = settings.get("layer_types") or kinds or [FULL] * settings["num_hidden_layers"]
    window = settings.get("sliding_window")
    if SLIDING in kinds and not window:
        raise ModelArgumentError(f"layer_types with a {SLIDING!r} need a sliding_window. Received: {window!r}.")
    return tuple(window if kind == SLIDING else None for kind in kinds)


def activation(config: DecoderConfig) -> str:
    """Return transformers' name of the activation."""
    return _TRANSFORMERS_ACTIVATIONS[config.feedforward.activation]


def layer_types(config: DecoderConfig) -> dict[str, Any]:
    """Return the keys of windows that differ by layer.

    Raises:
        ModelArgumentError: layers have windows of several sizes.
    """
    windows = config.attention.windows
    sizes = {window for window in windows if window is not None}
    if len(sizes) > 1:
        raise ModelArgumentError(f"A 'config.json' has one size of windows. Received: {sorted(sizes)}.")
    window = next(iter(sizes), None)
    kinds = [SLIDING if config.window(layer) else FULL for layer in range(config.num_layers)]
    return {"sliding_window": window, "layer_types": kinds}
