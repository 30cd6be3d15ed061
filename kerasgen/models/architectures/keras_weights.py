"""The weights of a KerasHub model by their names in `kerasgen.decoder.weights`, there and back. Imports NumPy only.

Where a weight lies, the table of the architecture says; KerasHub's kernels keep heads apart, and these side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ModelError
from kerasgen.models import architectures
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
    found = architectures.of_backbone(type(causal_lm.backbone).__name__)
    return found if found is not None and has_its_layers(found, causal_lm.backbone) else None


def decoder_of(causal_lm: Any) -> tuple[DecoderConfig, Weights]:
    """Return the description of a KerasHub causal model of a known architecture, and its weights as `read` does."""
    architecture = architecture_of(causal_lm)
    assert architecture is not None
    return describe(architecture, causal_lm.backbone), read(architecture, causal_lm.backbone)


def describe(architecture: Architecture, backbone: Any) -> DecoderConfig:
    """Return the description of a KerasHub backbone of this architecture."""
    settings = {
        "tie_word_embeddings": bool(getattr(backbone, "tie_word_embeddings", True)),
        **backbone.get_config(),
        "layer_norm_epsilon": float(backbone.layer_norm.epsilon),
    }
    return architecture.describe(settings)


def layer_parts(architecture: Architecture, layer: Any) -> dict[str, Any]:
    """Return the Keras layers of one of a backbone's `transformer_layers` by the names of the parts."""
    return {part.name: attrgetter(part.keras)(layer) for part in architecture.layer_parts}


def variables(architecture: Architecture, backbone: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the Keras variable of each weight that the description of a backbone implies.

    Of a kernel with an adapter, it is the sum of both, which is no variable.
    """
    for name in decoder_weights.shapes(describe(architecture, backbone)):
        *levels, leaf = name.split(".")
        if levels[0] == "layers":
            holder, table, part = backbone.transformer_layers[int(levels[1])], architecture.layer_parts, levels[2]
        else:
            holder, table, part = backbone, architecture.parts, name if levels[0] == "embedding" else levels[0]
        path = next(row.keras for row in table if row.name == part)
        keras_layer = attrgetter(path)(holder)
        attribute = next(known for known in _ATTRIBUTES[leaf] if getattr(keras_layer, known, None) is not None)
        yield name, getattr(keras_layer, attribute)


# What each part of a layer is in a product that several devices share: heads and feed-forward columns stay whole on a
# device, so that a block needs two sums over the devices (Shoeybi et al. 2019, arXiv 1909.08053).
_BY_COLUMNS = ("query", "key", "value", "gate", "up")
_BY_ROWS = ("output", "down")


def sharded(architecture: Architecture, backbone: Any, axis: str) -> dict[str, tuple[str | None, ...]]:
    """Return how the axis of a mesh cuts a backbone's variables: by their paths, an axis or None for each dimension.

    Args:
        architecture: of the backbone.
        backbone: without adapters.
        axis: its name in the mesh.
    """
    return cuts(variables(architecture, backbone), axis)


def cuts(named: Iterable[tuple[str, Any]], axis: str) -> dict[str, tuple[str | None, ...]]:
    """Return how the axis of a mesh cuts variables that are given with their full names, by their paths."""
    found: dict[str, tuple[str | None, ...]] = {}
    for name, variable in named:
        rest: tuple[None, ...] = (None,) * (len(variable.shape) - 1)
        part, leaf = name.split(".")[-2:]
        if part == "embedding" and leaf != "norm":
            found[variable.path] = (None, axis)
        elif part == "head" and leaf == "kernel":
            found[variable.path] = (axis, None)
        elif part in _BY_COLUMNS:
            found[variable.path] = (None, axis, *rest[1:]) if leaf == "kernel" else (axis, *rest)
        elif part in _BY_ROWS and leaf == "kernel":
            found[variable.path] = (axis, *rest)
    return found


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
    shapes = decoder_weights.shapes(describe(architecture, backbone))
    return decoder_weights.nested(
        {name: _array(variable).reshape(shapes[name]) for name, variable in variables(architecture, backbone)}
    )


def assign(architecture: Architecture, backbone: Any, weights: Weights) -> None:
    """Give a KerasHub backbone these weights.

    Raises:
        ModelFormatError: they are not those that its description implies.
    """
    decoder_weights.check(weights, describe(architecture, backbone))
    given = decoder_weights.flat(weights)
    for name, variable in variables(architecture, backbone):
        variable.assign(given[name].reshape(variable.shape))


def with_weights(architecture: Architecture, causal_lm: Any, weights: Weights) -> Any:
    """Return another KerasHub model of the same kind, float32, of these weights, which may be of its first ids."""
    settings = causal_lm.backbone.get_config()
    settings |= {name: getattr(causal_lm.backbone, name) for name in architecture.arguments}  # Llama's omits one
    settings |= {"vocabulary_size": len(weights["embedding"]["tokens"]), "dtype": "float32"}
    backbone = type(causal_lm.backbone).from_config(settings)
    assign(architecture, backbone, weights)
    return type(causal_lm)(backbone=backbone, preprocessor=None)


def has_its_layers(architecture: Architecture, backbone: Any) -> bool:
    """Return whether a KerasHub backbone's layers are of the class of its architecture, and have its activation.

    A person may change either.
    """
    wanted = describe(architecture, backbone).feedforward.activation
    of = attrgetter(architecture.activation)
    return all(
        type(layer).__name__ == architecture.layer and getattr(of(layer), "__name__", None) == wanted
        for layer in backbone.transformer_layers
    )


def _array(variable: Any) -> npt.NDArray[np.float32]:
    return np.array(variable, dtype=np.float32)
