"""A GPT-2 or OPT of KerasHub becomes a decoder's weights, once for each state of its variables. Imports JAX."""

from __future__ import annotations

import weakref
from typing import Any

import jax.numpy as jnp
import numpy as np

from kerasgen.generation.jax_decoder import Layer, Shape, Weights
from kerasgen.generation.jax_engine import JaxEngine, keep_compiled
from kerasgen.models.base import LanguageModel

_BACKBONES = {"GPT2Backbone": "gelu_approximate", "OPTBackbone": "relu"}


def is_known(model: LanguageModel) -> bool:
    """Return whether the model is a GPT-2 or OPT as KerasHub builds it, in float32 and not quantized."""
    backbone, causal_lm = model.backbone, model.causal_lm
    activation = _BACKBONES.get(type(backbone).__name__)
    kinds = (type(backbone), type(causal_lm))
    if activation is None or not all(kind.__module__.startswith("keras_hub.") for kind in kinds):
        return False
    return all(
        type(layer).__name__ == "TransformerDecoder"
        and layer.normalize_first
        and layer._cross_attention_layer is None
        and layer.compute_dtype == "float32"
        and getattr(layer._feedforward_intermediate_dense.activation, "__name__", "") == activation
        and getattr(layer._feedforward_output_dense, "quantization_mode", None) is None
        for layer in backbone.transformer_layers
    ) and (backbone.layer_norm.compute_dtype == "float32")


def shape_of(model: LanguageModel) -> Shape:
    """Return what is fixed when a graph is traced."""
    backbone = model.backbone
    return Shape(
        heads=int(backbone.num_heads),
        epsilon=float(backbone.layer_norm.epsilon),
        relu=type(backbone).__name__ == "OPTBackbone",
        vocabulary_size=model.tokenizer.vocabulary_size,
    )


class _Kept:
    """An engine, and the state of the variables that its weights were prepared from."""

    def __init__(self, engine: JaxEngine, state: tuple[Any, ...]) -> None:
        self.engine = engine
        self.state = state


# What is compiled and prepared lives as long as the model.
_KEPT: weakref.WeakKeyDictionary[Any, dict[str, _Kept]] = weakref.WeakKeyDictionary()


def engine_of(model: LanguageModel) -> JaxEngine:
    """Return the engine of a known model with its present weights."""
    keep_compiled()
    state, kept = state_of(model), _KEPT.setdefault(model.causal_lm, {})
    key = model.tokenizer.digest()
    if key not in kept:
        kept[key] = _Kept(JaxEngine(model.tokenizer, shape_of(model), prepare(model)), state)
    elif not is_same(kept[key].state, state):
        kept[key].engine.replace(prepare(model))
        kept[key].state = state
    return kept[key].engine


def state_of(model: LanguageModel) -> tuple[Any, ...]:
    """Return what is another if a weight is another: on JAX the arrays themselves, elsewhere sums over their bits."""
    import keras

    variables = model.causal_lm.variables
    if keras.config.backend() == "jax":
        return tuple(variable.value for variable in variables)
    found: list[Any] = []
    for variable in variables:
        words = np.ascontiguousarray(keras.ops.convert_to_numpy(variable.value)).reshape(-1).view(np.uint8)
        words = words[: len(words) // 4 * 4].view(np.uint32)
        found.append((int(words.sum(dtype=np.uint64)), int(np.bitwise_xor.reduce(words)) if len(words) else 0))
    return tuple(found)


def is_same(one: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    """Return whether two answers of `state_of` are of the same weights."""
    if one is None or len(one) != len(other):
        return False
    return all(a is b or (isinstance(a, tuple) and a == b) for a, b in zip(one, other, strict=True))


def prepare(model: LanguageModel) -> Weights:
    """Return the weights, adapters merged: kernels turned, queries, keys and values in one."""
    backbone = model.backbone
    # OPT keeps both embeddings in one layer.
    tokens = backbone.token_embedding.embeddings
    holder = backbone.embeddings if hasattr(backbone, "embeddings") else backbone
    position = holder.position_embedding
    layers = []
    for layer in backbone.transformer_layers:
        attention = layer._self_attention_layer
        parts = (attention._query_dense, attention._key_dense, attention._value_dense)
        dim = int(attention._query_dense.kernel.shape[0])
        layers.append(
            Layer(
                _column(layer._self_attention_layer_norm.gamma),
                _column(layer._self_attention_layer_norm.beta),
                jnp.asarray(np.concatenate([_array(part.kernel).reshape(dim, -1).T for part in parts])),
                jnp.asarray(np.concatenate([_array(part.bias).reshape(-1, 1) for part in parts])),
                _turned(_array(attention._output_dense.kernel).reshape(-1, dim)),
                _column(attention._output_dense.bias),
                _column(layer._feedforward_layer_norm.gamma),
                _column(layer._feedforward_layer_norm.beta),
                _turned(_array(layer._feedforward_intermediate_dense.kernel)),
                _column(layer._feedforward_intermediate_dense.bias),
                _turned(_array(layer._feedforward_output_dense.kernel)),
                _column(layer._feedforward_output_dense.bias),
            )
        )
    return Weights(
        jnp.asarray(_array(tokens)),
        jnp.asarray(_array(position.position_embeddings)),
        tuple(layers),
        _column(backbone.layer_norm.gamma),
        _column(backbone.layer_norm.beta),
    )


def _array(variable: Any) -> Any:
    import keras

    return np.asarray(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(variable)), dtype=np.float32)


def _turned(matrix: Any) -> Any:
    return jnp.asarray(np.ascontiguousarray(matrix.T))


def _column(variable: Any) -> Any:
    return jnp.asarray(_array(variable).reshape(-1, 1))
