"""Traces the blocks of a decoder that compute the same once, as one function of TensorFlow's, and calls it for each.

To trace a block and its gradient takes a fifth of a second, which each layer would take anew. Imports Keras.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

Weights: TypeAlias = dict[str, dict[str, Any]]
Block: TypeAlias = Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]

_VARIABLES = ("_kernel", "bias", "gamma", "scale", "beta")


def in_a_graph() -> bool:
    """Return whether what is computed now becomes a graph of TensorFlow's, rather than numbers at once."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


class _StandIn:
    """A layer with tensors in the place of its variables.

    Args:
        layer: a plain one.
        tensors: by the names of its variables.
    """

    lora_enabled = False

    def __init__(self, layer: Any, tensors: Mapping[str, Any]) -> None:
        self.equation = getattr(layer, "equation", "")
        for name in _VARIABLES:
            setattr(self, name, tensors.get(name))


class SharedBlocks:
    """Functions by what distinguishes the blocks of a graph; they live as long as it is traced."""

    def __init__(self) -> None:
        self._functions: dict[Any, Any] = {}

    def __call__(self, key: Any, block: Block, flat: Any, seeds: tuple[Any, ...], layer: Mapping[str, Any]) -> Any:
        """Return `block(flat, seeds, layer)`.

        Args:
            key: what the block depends on but for its arguments and what all blocks share.
            block: a function of hidden states, of seeds and of Keras's layers by their roles.
            flat: float `(rows, width)`.
            seeds: of dropouts, or None each.
            layer: the layers, or what stands for them.
        """
        weights = _weights_of(layer)
        if weights is None:
            return block(flat, seeds, layer)
        first: dict[int, str] = {}  # a role may share another's layer
        for role, part in layer.items():
            first.setdefault(id(part), role)
        same = {role: first[id(part)] for role, part in layer.items()}
        equations = {role: getattr(part, "equation", "") for role, part in layer.items()}
        key = (key, tuple(same.items()), tuple(equations.items()), tuple(seed is None for seed in seeds))
        if key not in self._functions:
            import tensorflow as tf

            def traced(flat: Any, seeds: tuple[Any, ...], weights: Weights) -> Any:
                parts = {role: _StandIn(layer[role], tensors) for role, tensors in weights.items()}
                return block(flat, seeds, {role: parts[other] for role, other in same.items()})

            self._functions[key] = tf.function(traced, autograph=False, reduce_retracing=False)
        return self._functions[key](flat, seeds, {role: weights[role] for role in set(same.values())})


def _weights_of(layer: Mapping[str, Any]) -> Weights | None:
    """Return the variables of a block's layers as tensors, or None where a layer has others than plain ones have."""
    import tensorflow as tf

    found: Weights = {}
    for role, part in layer.items():
        if not isinstance(part, keras.layers.Layer) or getattr(part, "lora_enabled", False):
            return None
        named: dict[str, Any] = {name: getattr(part, name, None) for name in _VARIABLES}
        variables = {name: value for name, value in named.items() if isinstance(value, keras.Variable)}
        if {id(variable) for variable in variables.values()} != {id(variable) for variable in part.variables}:
            return None
        found[role] = {name: tf.convert_to_tensor(variable.value) for name, variable in variables.items()}
    return found
