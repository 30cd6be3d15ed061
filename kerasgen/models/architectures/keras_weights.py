"""The weights of a KerasHub model by their names in `kerasgen.decoder.weights`, there and back. Imports NumPy only.

Where a weight lies, the table of the architecture says; KerasHub's kernels keep heads apart, and these side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ModelArgumentError, ModelError
from kerasgen.models import architectures, quantized_base
from kerasgen.models.architectures.base import Architecture

# The last level of a weight's name, and what Keras's and KerasHub's layers call it.
_ATTRIBUTES = {
    "kernel": ("kernel", "reverse_embeddings"),
    "scale": ("gamma", "scale"),
    "bias": ("bias", "beta"),
    "tokens": ("embeddings",),
    "positions": ("position_embeddings",),
}


def architecture_of(causal_lm: Any) -> Architecture | None:
    """Return the architecture of a KerasHub causal model, or None if kerasgen doesn't compute it by itself."""
    architecture = architecture_of_backbone(causal_lm.backbone)
    return architecture if architecture is not None and has_its_layers(architecture, causal_lm.backbone) else None


def architecture_of_backbone(backbone: Any) -> Architecture | None:
    """Return the architecture of a KerasHub backbone by its class and settings, whatever was changed in its layers."""
    of_class = architectures.of_backbone(type(backbone).__name__)
    try:
        return None if of_class is None else architectures.named(describe(of_class, backbone).architecture)
    except ModelArgumentError:
        return None


def decoder_of(causal_lm: Any) -> tuple[DecoderConfig, Weights]:
    """Return the description of a KerasHub causal model of a known architecture, and its weights as `read` does."""
    architecture = architecture_of(causal_lm)
    assert architecture is not None
    return describe(architecture, causal_lm.backbone), read(architecture, causal_lm.backbone)


def describe(architecture: Architecture, backbone: Any) -> DecoderConfig:
    """Return the description of a KerasHub backbone of this architecture.

    Raises:
        ModelArgumentError: its settings say what no description can.
    """
    settings = {
        "tie_word_embeddings": bool(getattr(backbone, "tie_word_embeddings", backbone.token_embedding.tie_weights)),
        # Which `get_config` of the Qwen with a shared expert leaves out.
        "router_aux_loss_coefficient": getattr(backbone.transformer_layers[0], "router_aux_loss_coefficient", 0.0),
        **backbone.get_config(),
        "layer_norm_epsilon": float(_final_norm(architecture, backbone).epsilon),
    }
    return architecture.describe(settings)


def _final_norm(architecture: Architecture, backbone: Any) -> Any:
    return attrgetter(next(part.keras for part in architecture.parts if part.name == "final_norm"))(backbone)


def layer_parts(architecture: Architecture, layer: Any) -> dict[str, Any]:
    """Return the Keras layers of one of a backbone's `transformer_layers` by the names of the parts."""
    in_turn = architecture.keras_gate_in_turn
    dense = {part.name: _held(part.keras, layer, in_turn) for part in architecture.dense_parts}
    by_name = {part.name: _held(part.keras, layer, in_turn) for part in architecture.layer_parts}
    by_name = {name: dense.get(name) if keras_layer is None else keras_layer for name, keras_layer in by_name.items()}
    return {name: keras_layer for name, keras_layer in by_name.items() if keras_layer is not None}


class ExpertKernels(NamedTuple):
    """The variables of one projection of all experts, in the place of a Keras layer.

    Args:
        kernel: `(experts, in, out)`.
        bias: `(experts, out)`, or None.
        in_turn: whether the columns of a gate and its other factor in one kernel stand in turn and not in halves.
    """

    kernel: Any
    bias: Any
    in_turn: bool


def _held(path: str, holder: Any, in_turn: bool = False) -> Any:
    """The Keras layer at a path, or None where a model has none, as norms that a description may lack."""
    *levels, last = path.split(".")
    for attribute in levels:
        holder = getattr(holder, attribute, None)
    layer_part = getattr(holder, last, None)
    is_kernels = (
        layer_part is not None and getattr(layer_part, "shape", None) is not None and len(layer_part.shape) == 3
    )
    return ExpertKernels(layer_part, getattr(holder, f"{last}_bias", None), in_turn) if is_kernels else layer_part


@dataclass(frozen=True, eq=False)
class Place:
    """A Keras variable, and the weights that it holds.

    Args:
        names: full, of the weights; several are queries, keys and values, head by head, or an expert's gate and its
            other factor.
        shapes: of the weights.
        variable: of Keras; of a kernel with an adapter, the sum of both, which is no variable; or a
            `quantized_base.Held`.
        heads_first: whether a kernel is `(heads, width, size)`.
        in_turn: whether the columns of several weights stand in turn.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    variable: Any
    heads_first: bool
    in_turn: bool = False

    def read(
        self, *, as_held: bool = False, copy: bool = True, numbers: npt.NDArray[Any] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the weights by their full names.

        Args:
            as_held: those that are held in bfloat16 in that type; everything else is float32.
            copy: whether they are copies; else they may be views of what the variable holds.
            numbers: of the variable, where they were read already.
        """
        is_held = as_held and isinstance(self.variable, quantized_base.Held)
        held, dtype = (self.variable.numbers(), None) if is_held else (self.variable, np.float32)
        held = held if numbers is None else numbers
        array = np.array(held, dtype) if copy else np.asarray(held, dtype)
        if len(self.names) > 1:
            count = len(self.names)
            parts = [array[..., n::count] for n in range(count)] if self.in_turn else np.split(array, count, axis=-1)
        else:
            parts = [np.ascontiguousarray(array.swapaxes(0, 1)) if self.heads_first else array]
        every = zip(self.names, self.shapes, parts, strict=True)
        return {name: part.reshape(shape) for name, shape, part in every}

    def joined(self, given: Mapping[str, Any]) -> npt.NDArray[Any]:
        """Return what the variable holds of weights by their full names; it may be a view."""
        shape = tuple(self.variable.shape)
        if len(self.names) > 1:
            part_shape = (*shape[:-1], shape[-1] // len(self.names))
            parts = [given[name].reshape(part_shape) for name in self.names]
            return np.stack(parts, axis=-1).reshape(shape) if self.in_turn else np.concatenate(parts, axis=-1)
        array: npt.NDArray[Any] = given[self.names[0]]
        if self.heads_first:
            heads, width, size = shape
            return array.reshape(width, heads, size).swapaxes(0, 1)
        return array.reshape(shape)


def places(architecture: Architecture, backbone: Any) -> Iterator[Place]:
    """Yield where a backbone holds the weights that its description implies."""
    config = describe(architecture, backbone)
    shapes = decoder_weights.shapes(config)
    together: dict[tuple[str, str, str], list[str]] = {}
    for name in shapes:
        *levels, leaf = name.split(".")
        in_layer = levels[0] == "layers"
        table = architecture.parts_of(config, int(levels[1])) if in_layer else architecture.parts
        known = {row.name: row.keras for row in table}
        part = (
            name.split(".")[2]
            if in_layer
            else next(each for each in (name, ".".join(levels), levels[0]) if each in known)
        )
        together.setdefault((levels[1] if in_layer else "", known[part], leaf), []).append(name)
    for (number, path, leaf), names in together.items():
        keras_layer = _held(path, backbone.transformer_layers[int(number)] if number else backbone)
        attributes = _ATTRIBUTES.get(leaf, ())  # of sinks none: they are a variable
        held = (quantized_base.attribute(keras_layer, each) for each in attributes)
        variable = next((found for found in held if found is not None), None)
        variable = keras_layer if variable is None else variable
        is_first = architecture.heads_first and leaf == "kernel" and names[0].split(".")[-2] in _HEADS
        in_turn = architecture.keras_gate_in_turn and len(names) > 1
        part_shapes = tuple(shapes[name] for name in names)
        yield Place(tuple(names), part_shapes, variable, heads_first=is_first, in_turn=in_turn)


_HEADS = ("query", "key", "value")

# What each part of a layer is in a product that several devices share: heads and feed-forward columns stay whole on a
# device, so that a block needs two sums over the devices (Shoeybi et al. 2019, arXiv 1909.08053).
_BY_COLUMNS = ("query", "key", "value", "gate", "up")
_BY_ROWS = ("output", "down")
_OF_EXPERTS = ("gate", "up", "down")


def sharded(architecture: Architecture, backbone: Any, axis: str) -> dict[str, tuple[str | None, ...]]:
    """Return how the axis of a mesh cuts a backbone's variables: by their paths, an axis or None for each dimension.

    Args:
        architecture: of the backbone.
        backbone: without adapters.
        axis: its name in the mesh.
    """
    named = [(place.names[0], place.variable, place.heads_first) for place in places(architecture, backbone)]
    return _cuts(named, axis)


def cuts(named: Iterable[tuple[str, Any]], axis: str) -> dict[str, tuple[str | None, ...]]:
    """Return how the axis of a mesh cuts variables that are given with their full names, by their paths."""
    return _cuts([(name, variable, False) for name, variable in named], axis)


def _cuts(held: Iterable[tuple[str, Any, bool]], axis: str) -> dict[str, tuple[str | None, ...]]:
    cuts_by_path: dict[str, tuple[str | None, ...]] = {}
    for name, variable, heads_first in held:
        rest: tuple[None, ...] = (None,) * (len(variable.shape) - 1)
        part, leaf = name.split(".")[-2:]
        if part in _OF_EXPERTS and len(variable.shape) == (3 if leaf == "kernel" else 2):
            cuts_by_path[variable.path] = (axis, *rest)  # an expert stays whole on a device
        elif part == "embedding" and leaf != "norm":
            cuts_by_path[variable.path] = (None, axis)
        elif part == "head" and leaf == "kernel":
            cuts_by_path[variable.path] = (axis, None)
        elif part in _BY_COLUMNS:
            is_second = leaf == "kernel" and not heads_first
            cuts_by_path[variable.path] = (None, axis, *rest[1:]) if is_second else (axis, *rest)
        elif part in _BY_ROWS and leaf == "kernel":
            cuts_by_path[variable.path] = (axis, *rest)
    return cuts_by_path


def read(architecture: Architecture, backbone: Any) -> Weights:
    """Return the weights of a KerasHub backbone as float32 NumPy arrays, adapters added in. They are copies.

    Raises:
        ModelError: the model is quantized.
    """
    if any(getattr(layer, "quantization_mode", None) is not None for layer in backbone._flatten_layers()):
        raise ModelError(
            "The model is quantized: its weights are codes, and kerasgen's own decoders compute with plain weights. Do "
            "this before causal_lm.quantize(…)."
        )
    found: dict[str, Any] = {}
    for place in places(architecture, backbone):
        found |= place.read()
    return decoder_weights.nested(
        {name: found[name] for name in decoder_weights.shapes(describe(architecture, backbone))}
    )


def assign(architecture: Architecture, backbone: Any, weights: Weights) -> None:
    """Give a KerasHub backbone these weights.

    Raises:
        ModelFormatError: they are not those that its description implies.
    """
    decoder_weights.check(weights, describe(architecture, backbone))
    given = decoder_weights.flat(weights)
    for place in places(architecture, backbone):
        place.variable.assign(place.joined(given))


def with_weights(architecture: Architecture, causal_lm: Any, weights: Weights) -> Any:
    """Return another KerasHub model of the same kind, float32, of these weights, which may be of its first ids."""
    config = describe(architecture, causal_lm.backbone)
    settings = causal_lm.backbone.get_config() | architecture.backbone_arguments(config)  # Llama's omits the tie
    settings |= {"vocabulary_size": len(weights["embedding"]["tokens"]), "dtype": "float32"}
    backbone = type(causal_lm.backbone).from_config(settings)
    assign(architecture, backbone, weights)
    return type(causal_lm)(backbone=backbone, preprocessor=None)


def has_its_layers(architecture: Architecture, backbone: Any) -> bool:
    """Return whether a KerasHub backbone's layers are of the class of its architecture, and have its activation.

    A person may change either.
    """
    config = describe(architecture, backbone)
    return all(_is_its_layer(architecture, config, layer) for layer in backbone.transformer_layers) and (
        _is_close(_final_norm(architecture, backbone).epsilon, config.norm.epsilon)
    )


def _is_its_layer(architecture: Architecture, config: DecoderConfig, layer: Any) -> bool:
    if type(layer).__name__ != architecture.layer:
        return False
    if architecture.activation:
        activation = attrgetter(architecture.activation)(layer)
        if getattr(activation, "__name__", None) != config.feedforward.activation:
            return False
    inner = config.attention.query_key_norm
    for name, keras_layer in layer_parts(architecture, layer).items():
        norm = inner if name in ("query_norm", "key_norm") else config.norm
        if name.endswith("_norm") and (norm is None or not _is_close(keras_layer.epsilon, norm.epsilon)):
            return False
    return True


def _is_close(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * other
