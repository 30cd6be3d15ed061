"""A description and the tensors of a file become a Keras model. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from kerasgen.decoder import weights as decoder_weights
from kerasgen.decoder.config import DecoderConfig
from kerasgen.models import deferred_weights, hub_import, keras_decoder, quantized_base
from kerasgen.models.architectures import keras_weights, tensors
from kerasgen.models.architectures.base import Architecture
from kerasgen.models.architectures.tensors import Format, Take
from kerasgen.models.container import Container

_LONG: Final = 1 << 17  # tokens that a model is made for, where it does not say how many


def build(
    architecture: Architecture,
    config: DecoderConfig,
    take: Take,
    kind: Format,
    *,
    context_length: int | None = None,
    **arguments: Any,
) -> Any:
    """Return the model of a description, float32, with the weights of a file.

    It is a `keras_hub.models.CausalLM`, or a `Container` where `architecture.hub_reason(config)` says why not. Nothing
    is drawn for the weights first, and each tensor is let go before the next is taken, so that a model takes hardly
    more memory than its weights meanwhile.

    Args:
        architecture: of the model.
        config: its description, which the tensors fit.
        take: returns the tensor of a name, as `tensors.read` calls it.
        kind: of the file.
        context_length: tokens that the model was made for, where its positions have no limit; None if that is unknown.
        **arguments: further ones of KerasHub's backbone class, such as `dropout`.
    """
    if architecture.hub_reason(config):
        with deferred_weights.deferred():
            container = Container(config, context_length=context_length)
        variables = container.variables_by_name()
        give = deferred_weights.giving(config, partial(keras_weights.cuts, variables.items()))
        given = quantized_base.of_tensors(lambda: container.decoder, give)
        for name, numbers in _weights(architecture, config, take, kind):
            given(variables[name], numbers)
        return container
    assert architecture.backbone is not None
    length = {architecture.length_argument: context_length or _LONG} if architecture.length_argument else {}
    made = length | architecture.backbone_arguments(config) | arguments
    with deferred_weights.deferred():
        backbone = getattr(hub_import.load().models, architecture.backbone)(**made, dtype="float32")
    held = {name: place for place in keras_weights.places(architecture, backbone) for name in place.names}
    give = deferred_weights.giving(config, partial(keras_weights.sharded, architecture, backbone))
    given = quantized_base.of_tensors(lambda: keras_decoder.of_backbone(backbone), give)
    waiting: dict[str, Any] = {}
    for name, numbers in _weights(architecture, config, take, kind):
        waiting[name] = numbers
        place = held[name]
        if all(each in waiting for each in place.names):
            given(place.variable, place.joined(waiting))
            for each in place.names:
                del waiting[each]
    for variable in backbone.variables:
        deferred_weights.draw(variable)
    return getattr(hub_import.load().models, architecture.causal_lm)(backbone=backbone, preprocessor=None)


def _weights(architecture: Architecture, config: DecoderConfig, take: Take, kind: Format) -> Iterator[tuple[str, Any]]:
    shapes = decoder_weights.shapes(config)
    for tensor in tensors.tensors(architecture, config, kind):
        for name, numbers in tensor.read(tensor.take(take)).items():
            yield name, numbers.reshape(shapes[name])
