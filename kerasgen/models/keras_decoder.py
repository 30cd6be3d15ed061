"""Describes a decoder whose weights are Keras variables: its description, and its Keras layers by part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.architectures import Architecture, keras_weights

_SCALES, _BIASES = ("gamma", "scale"), ("beta", "bias")


@dataclass(frozen=True, eq=False)
class KerasDecoder:
    """What training and scoring compute with, wherever the weights live.

    Args:
        config: the description.
        parts: Keras layers in the nested dictionaries of `kerasgen.decoder.weights`, one in the place of each part. A
            projection has a `_kernel`, `(in, out)` or with heads apart, a `bias` or None, and perhaps Keras's adapter;
            a norm has a `gamma` or a `scale`, and perhaps a `beta` or a `bias`; a table is called with ids.
        backbone: KerasHub's that holds them, or None where a `Container` does.
        architecture: the architecture of that backbone.
    """

    config: DecoderConfig
    parts: Mapping[str, Any]
    backbone: Any = None
    architecture: Architecture | None = None

    def rate(self, index: int) -> float:
        """Return the rate of a layer's dropouts."""
        if self.architecture is None or not self.architecture.dropouts:
            return 0.0
        return float(self.backbone.transformer_layers[index].dropout)

    def seeds(self, index: int) -> tuple[Any, ...]:
        """Return seeds of a layer's three dropouts, from their own generators; None where there is none."""
        if not self.rate(index):
            return None, None, None
        assert self.architecture is not None
        layer = self.backbone.transformer_layers[index]
        return tuple(attrgetter(path)(layer).seed_generator.next() for path in self.architecture.dropouts)

    def is_plain(self) -> bool:
        """Return whether every layer computes what the description says, rather than what a person made of it.

        KerasHub's may be derived from, arranged anew, quantized, given another activation or another dropout.
        """
        if self.architecture is None:
            return not any(map(_is_quantized, self._leaves()))
        return (
            all(_is_known(self.architecture, layer) for layer in self.backbone.transformer_layers)
            and not any(map(_is_quantized, self._leaves()))
            and keras_weights.has_its_layers(self.architecture, self.backbone)
        )

    def _leaves(self) -> Iterator[Any]:
        for value in self.parts["layers"]:
            yield from value.values()


def of_backbone(backbone: Any) -> KerasDecoder | None:
    """Return the decoder that a KerasHub backbone is, or None where no table says what its layers are."""
    architecture = keras_weights.architecture_of_backbone(backbone)
    if architecture is None:
        return None
    config = keras_weights.describe(architecture, backbone)
    parts: dict[str, Any] = {"embedding": {}, "layers": []}
    for part in architecture.parts:
        if part.name == "final_norm" or part.name == "head":
            parts[part.name] = attrgetter(part.keras)(backbone)
        else:
            parts["embedding"][part.name.removeprefix("embedding.")] = attrgetter(part.keras)(backbone)
    parts["layers"] = [keras_weights.layer_parts(architecture, layer) for layer in backbone.transformer_layers]
    return KerasDecoder(config, parts, backbone, architecture)


def scale_of(norm: Any) -> Any:
    """Return the variable by which a norm multiplies."""
    return next(variable for name in _SCALES if (variable := getattr(norm, name, None)) is not None)


def bias_of(norm: Any) -> Any:
    """Return the variable that a norm adds, or None."""
    return next((variable for name in _BIASES if (variable := getattr(norm, name, None)) is not None), None)


def has_heads_first(layer: Any) -> bool:
    """Return whether the kernel of a projection is `(heads, in, size)`, as those of KerasHub's Gemma."""
    inputs, _, right = getattr(layer, "equation", "").partition(",")
    kernel, _, made = right.partition("->")
    summed = [letter in inputs and letter not in made for letter in kernel]
    return summed == [False, True, False]


def _is_known(architecture: Architecture, layer: Any) -> bool:
    """Whether a layer is KerasHub's own, as the architecture's table says."""
    return (
        type(layer).__name__ == architecture.layer
        and type(layer).__module__.startswith("keras_hub.")
        and getattr(layer, "normalize_first", True)
        and getattr(layer, "_cross_attention_layer", None) is None
        and (bool(architecture.dropouts) or not any(map(_drops, layer._flatten_layers())))
    )


def _drops(layer: Any) -> bool:
    return type(layer).__name__ == "Dropout" and bool(layer.rate)


def _is_quantized(layer: Any) -> bool:
    return getattr(layer, "quantization_mode", None) is not None
