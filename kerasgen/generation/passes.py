"""Token ids become logits: a model's forward passes, compiled once for each shape and kept as long as the model lives.

The weights are arguments of the compiled functions, never constants in them: fine-tuning changes them. Imports Keras.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops, tree

from kerasgen.errors import GenerationError
from kerasgen.models.base import LanguageModel

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


class Session:
    """The texts of one batch while they grow, and the model's state for them.

    Args:
        model: the model.
        token_ids: int32 `(rows, length)`, right-padded prompts; written to by the caller as the texts grow.

    Attributes:
        token_ids: the texts; `select` replaces the array.
        hidden: the last hidden state of the token that `logits` read last, float `(rows, hidden_dim)`; cached models
            only.
    """

    def __init__(self, model: LanguageModel, token_ids: npt.NDArray[np.int32]) -> None:
        self.token_ids = token_ids
        self.hidden: Any = None
        self._causal_lm = model.causal_lm
        self._vocabulary_size = model.tokenizer.vocabulary_size
        self._state_of = signature(model.causal_lm)
        self._cached = keeps_cache(model.causal_lm)
        self._prompt_hidden: Any = None
        self._cache: Any = None
        if self._cached:
            self._prompt_hidden, self._cache = self._call(_prefill, ops.convert_to_tensor(token_ids))

    @property
    def is_cached(self) -> bool:
        """Whether the model decodes with a cache."""
        return self._cached

    @property
    def prompt_hidden(self) -> npt.NDArray[np.float32]:
        """Float `(rows, length, hidden_dim)`, the last hidden states of the prompts; cached models only."""
        return np.asarray(ops.convert_to_numpy(ops.cast(self._prompt_hidden, "float32")))

    def logits(self, index: int) -> npt.NDArray[np.float64]:
        """Return the logits of the token at `index`, from those before it.

        Every position before `index - 1` must have been read already or lie in the prompt.

        Args:
            index: at least 1.

        Returns:
            Float `(rows, vocabulary_size)`; ids that the tokenizer lacks are left out.

        Raises:
            GenerationError: the model gave NaN or +inf.
        """
        if self._cached:
            last = ops.convert_to_tensor(self.token_ids[:, index - 1 : index])
            at = ops.convert_to_tensor(index - 1, dtype="int32")
            logits, self.hidden, self._cache = self._call(_step, last, self._cache, at)
        else:
            at = ops.convert_to_tensor(index, dtype="int32")
            logits = self._call(_forward, ops.convert_to_tensor(self.token_ids), at)
        # Draws are summed over the whole vocabulary: in float64 the sums don't depend on how it is cut.
        found = np.asarray(ops.convert_to_numpy(logits), dtype=np.float64)[:, : self._vocabulary_size]
        if np.isnan(found).any() or np.isposinf(found).any():
            raise GenerationError(
                f"The model's logits are not finite for token {index}. Its weights may hold NaN, from a training that "
                "diverged, or overflow its precision; load earlier weights or use float32."
            )
        return found

    def select(self, rows: npt.NDArray[np.int64]) -> None:
        """Go on with these rows, in this order; a row may come several times or not at all."""
        if np.array_equal(rows, np.arange(len(self.token_ids))):
            return
        self.token_ids = self.token_ids[rows]
        if self._cached:
            self._cache = self._call(_select, self._cache, ops.convert_to_tensor(rows.astype(np.int32)))

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        shapes = tuple(tuple(array.shape) for array in tree.flatten(arguments))
        compiled = _COMPILED.setdefault(self._causal_lm, {})
        key = (function, self._state_of, shapes)
        if key not in compiled:
            compiled[key] = _compile(function, self._causal_lm)
        return compiled[key](*arguments)


def _prefill(causal_lm: Any, token_ids: Any) -> Any:
    return causal_lm._build_cache(token_ids)


def _step(causal_lm: Any, token_ids: Any, cache: Any, index: Any) -> Any:
    logits, hidden, cache = causal_lm.call_with_cache(token_ids, cache, index)
    return ops.cast(logits[:, 0], "float32"), ops.cast(hidden[:, 0], "float32"), cache


def _forward(causal_lm: Any, token_ids: Any, index: Any) -> Any:
    mask = ops.broadcast_to(ops.expand_dims(ops.arange(token_ids.shape[1]) < index, 0), token_ids.shape)
    logits = causal_lm({"token_ids": token_ids, "padding_mask": ops.cast(mask, "int32")}, training=False)
    return ops.cast(ops.squeeze(ops.take(logits, ops.reshape(index - 1, (1,)), axis=1), axis=1), "float32")


def _select(causal_lm: Any, cache: Any, rows: Any) -> Any:
    return tree.map_structure(lambda array: ops.take(array, rows, axis=0), cache)


def signature(causal_lm: Any) -> tuple[Any, ...]:
    """Return what a compiled function takes for granted of a model: its variables and the precision of its layers."""
    policies = tuple(getattr(layer.dtype_policy, "name", "") for layer in causal_lm._flatten_layers())
    return (policies, tuple(id(variable) for variable in causal_lm.variables))


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
