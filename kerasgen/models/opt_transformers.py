"""A transformers-format OPT becomes KerasHub's OPT, weight for weight.

Source: Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models"; the names are transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.models.families.opt import POSITION_OFFSET
from kerasgen.models.transformers_format import Tensors

# `OPTForCausalLM` writes the first, `OPTModel` the second.
PREFIXES = ("model.decoder.", "decoder.")


def convert(preset: str, config: Mapping[str, Any]) -> Any:
    """Return the `keras_hub.models.OPTCausalLM` whose logits are those of a transformers-format OPT.

    Args:
        preset: a directory or hub address that holds safetensors.
        config: the content of its `config.json`; `transformers_format.check_config` has accepted it.

    Raises:
        ModelFormatError: a tensor is missing or has another shape than `config` says, or the head is not tied to the
            embeddings.
    """
    import keras_hub

    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    inner, positions = int(config["ffn_dim"]), int(config["max_position_embeddings"])
    vocabulary_size = int(config["vocab_size"])
    if hidden % heads:
        raise ModelFormatError(
            f"The opt model {preset!r} has hidden_size={hidden}, which num_attention_heads={heads} does not divide."
        )
    backbone = keras_hub.models.OPTBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=int(config["num_hidden_layers"]),
        num_heads=heads,
        hidden_dim=hidden,
        intermediate_dim=inner,
        dropout=float(config.get("dropout", 0.1)),
        max_sequence_length=positions,
        dtype="float32",
    )
    with Tensors(preset, prefixes=PREFIXES) as tensors:
        embeddings = tensors.take("embed_tokens.weight", (vocabulary_size, hidden))
        _check_tied(preset, tensors, embeddings)
        backbone.token_embedding.embeddings.assign(embeddings)
        rows = tensors.take("embed_positions.weight", (positions + POSITION_OFFSET, hidden))
        backbone.embeddings.position_embedding.position_embeddings.assign(rows[POSITION_OFFSET:])
        for index, layer in enumerate(backbone.transformer_layers):
            _convert_layer(tensors, f"layers.{index}.", layer, hidden=hidden, heads=heads, inner=inner)
        _convert_norm(tensors, "final_layer_norm", backbone.layer_norm, hidden)
    return keras_hub.models.OPTCausalLM(backbone=backbone, preprocessor=None)


def _convert_layer(tensors: Tensors, prefix: str, layer: Any, *, hidden: int, heads: int, inner: int) -> None:
    attention = layer._self_attention_layer
    split = (hidden, heads, hidden // heads)
    for name, dense in (
        ("q_proj", attention.query_dense),
        ("k_proj", attention.key_dense),
        ("v_proj", attention.value_dense),
    ):
        # torch keeps (out, in); KerasHub keeps (in, heads, head width).
        kernel = tensors.take(f"{prefix}self_attn.{name}.weight", (hidden, hidden))
        dense.kernel.assign(kernel.T.reshape(split))
        dense.bias.assign(tensors.take(f"{prefix}self_attn.{name}.bias", (hidden,)).reshape(split[1:]))
    kernel = tensors.take(f"{prefix}self_attn.out_proj.weight", (hidden, hidden))
    attention.output_dense.kernel.assign(kernel.T.reshape(heads, hidden // heads, hidden))
    attention.output_dense.bias.assign(tensors.take(f"{prefix}self_attn.out_proj.bias", (hidden,)))
    _convert_norm(tensors, f"{prefix}self_attn_layer_norm", layer._self_attention_layer_norm, hidden)

    widen, narrow = layer._feedforward_intermediate_dense, layer._feedforward_output_dense
    widen.kernel.assign(tensors.take(f"{prefix}fc1.weight", (inner, hidden)).T)
    widen.bias.assign(tensors.take(f"{prefix}fc1.bias", (inner,)))
    narrow.kernel.assign(tensors.take(f"{prefix}fc2.weight", (hidden, inner)).T)
    narrow.bias.assign(tensors.take(f"{prefix}fc2.bias", (hidden,)))
    _convert_norm(tensors, f"{prefix}final_layer_norm", layer._feedforward_layer_norm, hidden)


def _convert_norm(tensors: Tensors, name: str, norm: Any, hidden: int) -> None:
    norm.gamma.assign(tensors.take(f"{name}.weight", (hidden,)))
    norm.beta.assign(tensors.take(f"{name}.bias", (hidden,)))


def _check_tied(preset: str, tensors: Tensors, embeddings: Any) -> None:
    if "lm_head.weight" not in tensors:
        return
    import numpy as np

    if not np.array_equal(tensors.take("lm_head.weight", embeddings.shape), embeddings):
        raise ModelFormatError(
            f"The opt model {preset!r} has an output head of its own; KerasHub's OPT predicts with the embeddings."
        )
