"""A transformers-format OPT becomes KerasHub's OPT, weight for weight.

Source: Zhang et al. 2022, "OPT: Open Pre-trained Transformer Language Models"; the names are transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.models.families.opt import POSITION_OFFSET
from kerasgen.models.transformers_tensors import Tensors

# `OPTForCausalLM` writes the first, `OPTModel` the second.
PREFIXES = ("model.decoder.", "decoder.")


def convert(preset: str, config: Mapping[str, Any]) -> Any:
    """Return the `keras_hub.models.OPTCausalLM` whose logits are those of a transformers-format OPT.

    Args:
        preset: a directory or hub address that holds safetensors.
        config: as `transformers_settings.settings` returns it.

    Raises:
        ModelFormatError: a tensor is missing, unknown, or has another shape than `config` says, or the head is not
            tied to the embeddings.
    """
    import keras_hub

    hidden, heads, inner = config["hidden_size"], config["num_attention_heads"], config["ffn_dim"]
    positions, vocabulary_size = config["max_position_embeddings"], config["vocab_size"]
    if hidden % heads:
        raise ModelFormatError(
            f"The opt model {preset!r} has hidden_size={hidden}, which num_attention_heads={heads} does not divide."
        )
    backbone = keras_hub.models.OPTBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        hidden_dim=hidden,
        intermediate_dim=inner,
        dropout=float(config["dropout"]),
        max_sequence_length=positions,
        dtype="float32",
    )
    with Tensors(preset, prefixes=PREFIXES) as tensors:
        embeddings = tensors.take("embed_tokens.weight", (vocabulary_size, hidden))
        tensors.check_tied("lm_head.weight", embeddings)
        backbone.token_embedding.embeddings.assign(embeddings)
        rows = tensors.take("embed_positions.weight", (positions + POSITION_OFFSET, hidden))
        backbone.embeddings.position_embedding.position_embeddings.assign(rows[POSITION_OFFSET:])
        for index, layer in enumerate(backbone.transformer_layers):
            _convert_layer(tensors, f"layers.{index}.", layer, hidden=hidden, heads=heads, inner=inner)
        _convert_norm(tensors, "final_layer_norm", backbone.layer_norm, hidden)
        tensors.check_all_read(besides=("version",))  # a number that fairseq's conversion left
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
