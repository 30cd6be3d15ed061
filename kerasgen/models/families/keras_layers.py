"""KerasHub's transformer decoder layers become arrays under common names; imports NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.errors import ModelError
from kerasgen.models.families.base import DecoderLayer, DecoderWeights


def read(backbone: Any, position_table: Any) -> DecoderWeights:
    """Return the weights of a backbone that is made of `keras_hub.layers.TransformerDecoder`, as float32.

    A layer's `kernel` has its adapter added in.
    """
    if any(getattr(layer, "quantization_mode", None) is not None for layer in backbone._flatten_layers()):
        raise ModelError(
            "The model is quantized: its weights are codes, and kerasgen's own decoders compute with plain weights. Do "
            "this before causal_lm.quantize(…)."
        )
    return DecoderWeights(
        token_embedding=_array(backbone.token_embedding.embeddings),
        position_embedding=_array(position_table),
        layers=tuple(_layer(layer) for layer in backbone.transformer_layers),
        final_gamma=_array(backbone.layer_norm.gamma),
        final_beta=_array(backbone.layer_norm.beta),
    )


def _layer(layer: Any) -> DecoderLayer:
    attention = layer._self_attention_layer
    parts = (attention.query_dense, attention.key_dense, attention.value_dense)
    first = _array(parts[0].kernel)
    width = first.shape[0]
    kernels = [first, *(_array(part.kernel) for part in parts[1:])]
    output = _array(attention.output_dense.kernel)
    return DecoderLayer(
        attention_gamma=_array(layer._self_attention_layer_norm.gamma),
        attention_beta=_array(layer._self_attention_layer_norm.beta),
        qkv_kernel=np.concatenate([kernel.reshape(width, -1) for kernel in kernels], axis=1),
        qkv_bias=np.concatenate([_array(part.bias).reshape(-1) for part in parts]),
        output_kernel=output.reshape(-1, output.shape[-1]),
        output_bias=_array(attention.output_dense.bias),
        feedforward_gamma=_array(layer._feedforward_layer_norm.gamma),
        feedforward_beta=_array(layer._feedforward_layer_norm.beta),
        up_kernel=_array(layer._feedforward_intermediate_dense.kernel),
        up_bias=_array(layer._feedforward_intermediate_dense.bias),
        down_kernel=_array(layer._feedforward_output_dense.kernel),
        down_bias=_array(layer._feedforward_output_dense.bias),
    )


def _array(variable: Any) -> npt.NDArray[np.float32]:
    return np.array(variable, dtype=np.float32)
