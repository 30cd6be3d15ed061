"""Runs a model's forward passes, compiled once for each shape and cached as long as the model lives.

The weights are arguments of the compiled functions, never constants in them: fine-tuning changes them. Imports Keras.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree

from kerasgen.models.base import computing_layers

_SMALLEST_LENGTH = 32

_COMPILED: weakref.WeakKeyDictionary[Any, dict[tuple[Any, ...], Callable[..., Any]]] = weakref.WeakKeyDictionary()


def cache_length(length: int, longest: int | None) -> int:
    """Return the length to compile for: `length` rounded up to a power of two, at most the model's positions.

    Texts of other lengths then share the compiled function; padded positions are masked, and change nothing.
    """
    rounded = _SMALLEST_LENGTH
    while rounded < length:
        rounded *= 2
    return rounded if longest is None else min(rounded, longest)


def keeps_cache(causal_lm: Any) -> bool:
    """Return whether the model decodes with a cache in which each position has its place.

    Models that also need images, padding masks or a recurrent state don't; they run the full forward pass each step.
    """
    wanted = {"_build_cache": ["token_ids"], "call_with_cache": ["token_ids", "cache", "cache_update_index"]}
    for name, arguments in wanted.items():
        method = getattr(causal_lm, name, None)
        if method is None:
            return False
        needed = [
            parameter.name
            for parameter in inspect.signature(method).parameters.values()
            if parameter.default is parameter.empty
        ]
        if needed != arguments:
            return False
    return True


def prefill(causal_lm: Any, token_ids: Any) -> Any:
    """Return the hidden states `(rows, length, dim)` of right-padded prompts, and the cache filled with them."""
    hidden, cache = causal_lm._build_cache(token_ids)
    return ops.cast(hidden, "float32"), cache


def step(causal_lm: Any, token_ids: Any, cache: Any, index: Any) -> Any:
    """Return logits `(rows, vocabulary_size)`, hidden states `(rows, dim)` and the cache after one more token.

    Args:
        causal_lm: the model.
        token_ids: int32 `(rows, 1)`, the texts' last tokens.
        cache: the cache.
        index: int32 scalar, where they stand.
    """
    logits, hidden, cache = causal_lm.call_with_cache(token_ids, cache, index)
    return ops.cast(logits[:, 0], "float32"), ops.cast(hidden[:, 0], "float32"), cache


def step_each(causal_lm: Any, token_ids: Any, cache: Any, index: Any) -> Any:
    """Do what `step` does where each row stands at its own index, int32 `(rows,)`; on JAX."""
    import jax

    def one(token_ids: Any, cache: Any, index: Any) -> Any:
        cache = tree.map_structure(lambda array: ops.expand_dims(array, 0), cache)
        logits, hidden, cache = step(causal_lm, ops.expand_dims(token_ids, 0), cache, index)
        return logits[0], hidden[0], tree.map_structure(lambda array: array[0], cache)

    return jax.vmap(one)(token_ids, cache, index)


def forward(causal_lm: Any, token_ids: Any, lengths: Any) -> Any:
    """Return the logits after the last of each row's `lengths` tokens, by the full pass over right-padded ids."""
    mask = ops.expand_dims(ops.arange(token_ids.shape[1]), 0) < ops.expand_dims(lengths, 1)
    logits = causal_lm({"token_ids": token_ids, "padding_mask": ops.cast(mask, "int32")}, training=False)
    last = ops.reshape(lengths - 1, (-1, 1, 1))
    return ops.cast(ops.squeeze(ops.take_along_axis(logits, last, axis=1), axis=1), "float32")


def select(causal_lm: Any, cache: Any, rows: Any) -> Any:
    """Return the cache of these rows."""
    return tree.map_structure(lambda array: ops.take(array, rows, axis=0), cache)


def signature(causal_lm: Any) -> tuple[Any, ...]:
    """Return the signature on which a compiled function depends: a model's variables and its layers' precision."""
    policies = tuple(getattr(layer.dtype_policy, "name", "") for layer in computing_layers(causal_lm))
    return (policies, tuple(id(variable) for variable in causal_lm.variables))


def call(function: Callable[..., Any], causal_lm: Any, *arguments: Any) -> Any:
    """Return `function(causal_lm, *arguments)`, compiled once for each shape and state of the model."""
    shapes = tuple(tuple(array.shape) for array in tree.flatten(arguments))
    compiled = _COMPILED.setdefault(causal_lm, {})
    key = (function, signature(causal_lm), shapes)
    if key not in compiled:
        compiled[key] = _compile(function, causal_lm)
    return compiled[key](*arguments)


def _variables(causal_lm: Any) -> list[Any]:
    return [*causal_lm.trainable_variables, *causal_lm.non_trainable_variables]


def _compile(function: Callable[..., Any], causal_lm: Any) -> Callable[..., Any]:
    """Return `function(causal_lm, *arguments)` compiled, as a function of the arguments.

    What is returned holds the model weakly, for the model's entry in `_COMPILED` holds it.
    """
    model = weakref.ref(causal_lm)
    if keras.config.backend() == "jax":
        import jax

        def stateless(values: list[Any], *arguments: Any) -> Any:
            with keras.StatelessScope(state_mapping=zip(_variables(model()), values, strict=True)):
                return function(model(), *arguments)

        jitted = jax.jit(stateless)
        return lambda *arguments: jitted([variable.value for variable in _variables(model())], *arguments)
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        compiled: Callable[..., Any] = tf.function(lambda *arguments: function(model(), *arguments), autograph=False)
        return compiled

    import torch

    def eager(*arguments: Any) -> Any:
        with torch.no_grad():
            return function(model(), *arguments)

    return eager
