"""A transformers-format GPT-2 becomes KerasHub's GPT-2, weight for weight.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; the names are transformers'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.errors import ModelFormatError
from kerasgen.models.transformers_tensors import Tensors

# `GPT2LMHeadModel` writes the first, `GPT2Model` none.
PREFIXES = ("transformer.",)
# The causal mask, which older versions of transformers kept beside the weights.
_MASKS = (r"h\.\d+\.attn\.(masked_)?bias",)


def convert(preset: str, config: Mapping[str, Any]) -> Any:
    """Return the `keras_hub.models.GPT2CausalLM` whose logits are those of a transformers-format GPT-2.

    Args:
        preset: a directory or hub address that holds safetensors.
        config: as `transformers_settings.settings` returns it.

    Raises:
        ModelFormatError: a tensor is missing, unknown, or has another shape than `config` says, or the head is not
            tied to the embeddings.
    """
    import keras_hub

    hidden, heads, positions = config["n_embd"], config["n_head"], config["n_positions"]
    inner = 4 * hidden if config["n_inner"] is None else int(config["n_inner"])
    if hidden % heads:
        raise ModelFormatError(f"The gpt2 model {preset!r} has n_embd={hidden}, which n_head={heads} does not divide.")
    with Tensors(preset, prefixes=PREFIXES) as tensors:
        backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=config["vocab_size"],
            num_layers=config["n_layer"],
            num_heads=heads,
            hidden_dim=hidden,
            intermediate_dim=inner,
            dropout=float(config["resid_pdrop"]),
            max_sequence_length=positions,
            dtype="float32",
        )
        embeddings = tensors.take("wte.weight", (config["vocab_size"], hidden))
        tensors.check_tied("lm_head.weight", embeddings)
        backbone.token_embedding.embeddings.assign(embeddings)
        backbone.position_embedding.position_embeddings.assign(tensors.take("wpe.weight", (positions, hidden)))
        for index, layer in enumerate(backbone.transformer_layers):
            _convert_layer(tensors, f"h.{index}.", layer, hidden=hidden, heads=heads, inner=inner)
        _convert_norm(tensors, "ln_f", backbone.layer_norm, hidden)
        tensors.check_all_read(besides=_MASKS)
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def _convert_layer(tensors: Tensors, prefix: str, layer: Any, *, hidden: int, heads: int, inner: int) -> None:
    attention, split = layer._self_attention_layer, (hidden, heads, hidden // heads)
    kernel = tensors.take(f"{prefix}attn.c_attn.weight", (hidden, 3 * hidden))
    bias = tensors.take(f"{prefix}attn.c_attn.bias", (3 * hidden,))
    for n, dense in enumerate((attention.query_dense, attention.key_dense, attention.value_dense)):
        part = slice(n * hidden, (n + 1) * hidden)
        dense.kernel.assign(kernel[:, part].reshape(split))
        dense.bias.assign(bias[part].reshape(split[1:]))
    kernel = tensors.take(f"{prefix}attn.c_proj.weight", (hidden, hidden))
    attention.output_dense.kernel.assign(kernel.reshape(heads, hidden // heads, hidden))
    attention.output_dense.bias.assign(tensors.take(f"{prefix}attn.c_proj.bias", (hidden,)))
    _convert_norm(tensors, f"{prefix}ln_1", layer._self_attention_layer_norm, hidden)
    _convert_norm(tensors, f"{prefix}ln_2", layer._feedforward_layer_norm, hidden)
    widen, narrow = layer._feedforward_intermediate_dense, layer._feedforward_output_dense
    widen.kernel.assign(tensors.take(f"{prefix}mlp.c_fc.weight", (hidden, inner)))
    widen.bias.assign(tensors.take(f"{prefix}mlp.c_fc.bias", (inner,)))
    narrow.kernel.assign(tensors.take(f"{prefix}mlp.c_proj.weight", (inner, hidden)))
    narrow.bias.assign(tensors.take(f"{prefix}mlp.c_proj.bias", (hidden,)))


def _convert_norm(tensors: Tensors, name: str, norm: Any, hidden: int) -> None:
    norm.gamma.assign(tensors.take(f"{name}.weight", (hidden,)))
    norm.beta.assign(tensors.take(f"{name}.bias", (hidden,)))
