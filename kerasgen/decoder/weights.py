"""A decoder's weights by name: plain nested dictionaries. Imports the standard library only.

The names, with those in brackets where the configuration asks for them::

    embedding   {tokens, [positions], [norm]}
    layers      [{attention_norm, query, key, value, output, [query_norm, key_norm], [sinks], [attention_post_norm],
                  feedforward_norm, [router], [gate], up, down, [shared_router, shared_gate, shared_up, shared_down],
                  [feedforward_post_norm]}, …]
    [final_norm]
    [head]

A projection is `{kernel, [bias]}`, its kernel `(in, out)`, heads side by side; a norm is `{scale, [bias]}`. Kernels of
experts have their number in front. An executor may prepare other forms for itself, such as fused or transposed kernels.
JAX's pytrees and `tf.nest` take these dictionaries as they are. A weight's full name joins those of the levels:
`layers.3.query.kernel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from kerasgen.decoder.config import DecoderConfig, FeedForward, LearnedPositions, Norm
from kerasgen.errors import ModelFormatError

Weights: TypeAlias = dict[str, Any]
"""`embedding`, `layers` and so on; what stands at the leaves is whatever arrays an executor computes with."""

TABLES = ("embedding.tokens", "embedding.positions")
"""Full names of the weights that rows are taken of."""

Shape: TypeAlias = tuple[int, ...]


def shapes(config: DecoderConfig) -> dict[str, Shape]:
    """Return the full name of each weight that a configuration implies, and its shape.

    The order is that of the computation.
    """
    width = config.hidden_dim
    named_shapes: dict[str, Shape] = {"embedding.tokens": (config.vocabulary_size, width)}
    if isinstance(config.positions, LearnedPositions):
        assert config.max_sequence_length is not None
        named_shapes["embedding.positions"] = (config.max_sequence_length, width)
    if config.embedding_norm is not None:
        named_shapes |= _norm("embedding.norm", config.embedding_norm, width)
    for layer in range(config.num_layers):
        named_shapes |= {f"layers.{layer}.{name}": shape for name, shape in layer_shapes(config, layer).items()}
    if config.final_norm:
        named_shapes |= _norm("final_norm", config.norm, width)
    if not config.tied_head:
        named_shapes["head.kernel"] = (width, config.vocabulary_size)
    if config.head_bias:
        named_shapes["head.bias"] = (config.vocabulary_size,)
    return named_shapes


def layer_shapes(config: DecoderConfig, layer: int) -> dict[str, Shape]:
    """Return the names of a layer's weights, such as `query.kernel`, and their shapes."""
    width, attention, placement = config.hidden_dim, config.attention, config.norm_placement
    named_shapes: dict[str, Shape] = {}
    if placement in ("before", "before_and_after", "parallel", "parallel_shared"):
        named_shapes |= _norm("attention_norm", config.norm, width)
    named_shapes |= _projection("query", width, attention.query_dim, attention.query_bias)
    named_shapes |= _projection("key", width, attention.key_value_dim, attention.key_bias)
    named_shapes |= _projection("value", width, attention.key_value_dim, attention.value_bias)
    if attention.query_key_norm is not None:
        is_whole = attention.query_key_norm_axis == "all_heads"
        for role, size in (("query_norm", attention.query_dim), ("key_norm", attention.key_value_dim)):
            named_shapes |= _norm(role, attention.query_key_norm, size if is_whole else attention.head_dim)
    if attention.sinks:
        named_shapes["sinks"] = (attention.num_query_heads,)
    named_shapes |= _projection("output", attention.query_dim, width, attention.output_bias)
    if placement in ("before_and_after", "after", "after_sum"):
        named_shapes |= _norm("attention_post_norm", config.norm, width)
    if placement in ("before", "before_and_after", "parallel"):
        named_shapes |= _norm("feedforward_norm", config.norm, width)
    named_shapes |= _feedforward(config, layer)
    if placement in ("before_and_after", "after", "after_sum"):
        named_shapes |= _norm("feedforward_post_norm", config.norm, width)
    return named_shapes


def _feedforward(config: DecoderConfig, layer: int) -> dict[str, Shape]:
    width, part = config.hidden_dim, config.feedforward
    named_shapes: dict[str, Shape] = {}
    if not config.has_experts(layer):
        return _network("", width, part.intermediate_dim, part)
    experts = part.experts
    assert experts is not None
    front = (experts.num_experts,)
    named_shapes |= _projection("router", width, *front, experts.router_bias)
    named_shapes |= _network("", width, experts.intermediate_dim or part.intermediate_dim, part, front)
    if experts.shared_dim:
        named_shapes |= _projection("shared_router", width, 1, False)
        named_shapes |= _network("shared_", width, experts.shared_dim, part)
    return named_shapes


def _network(before: str, width: int, inner: int, part: FeedForward, front: Shape = ()) -> dict[str, Shape]:
    roles = ("gate", "up") if part.gated else ("up",)
    named_shapes: dict[str, Shape] = {}
    for role in roles:
        named_shapes |= _projection(f"{before}{role}", width, inner, part.up_bias, front)
    return named_shapes | _projection(f"{before}down", inner, width, part.down_bias, front)


def _norm(name: str, norm: Norm, size: int) -> dict[str, Shape]:
    named_shapes: dict[str, Shape] = {f"{name}.scale": (size,)}
    return named_shapes | ({f"{name}.bias": (size,)} if norm.bias else {})


def _projection(name: str, inputs: int, outputs: int, bias: bool, front: Shape = ()) -> dict[str, Shape]:
    named_shapes: dict[str, Shape] = {f"{name}.kernel": (*front, inputs, outputs)}
    return named_shapes | ({f"{name}.bias": (*front, outputs)} if bias else {})


def flat(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights by their full names."""
    named_arrays: dict[str, Any] = {}

    def take(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                take(f"{name}.{key}" if name else key, inner)
        elif isinstance(value, list | tuple):
            for index, inner in enumerate(value):
                take(f"{name}.{index}", inner)
        else:
            named_arrays[name] = value

    take("", weights)
    return named_arrays


def nested(by_name: Mapping[str, Any]) -> Weights:
    """Return weights given by their full names as nested dictionaries, the layers in a list."""
    tree: Weights = {}
    for name, value in by_name.items():
        *levels, last = name.split(".")
        inner = tree
        for level in levels:
            inner = inner.setdefault(level, {})
        inner[last] = value
    if "layers" in tree:
        layers = tree["layers"]
        tree["layers"] = [layers[index] for index in sorted(layers, key=int)]
    return tree


def build(config: DecoderConfig, array: Callable[[str, Shape], Any]) -> Weights:
    """Return the weights that a configuration implies, each as `array` gives it for its full name and its shape."""
    return nested({name: array(name, shape) for name, shape in shapes(config).items()})


def build_in_turn(config: DecoderConfig, array: Callable[[str, Shape], Any]) -> Weights:
    """Return weights as `build` does, but for the layers, which are made one at a time as they are iterated over."""

    def layers() -> Iterator[dict[str, Any]]:
        for index in range(config.num_layers):
            of_layer = layer_shapes(config, index).items()
            yield nested({name: array(f"layers.{index}.{name}", shape) for name, shape in of_layer})

    around = {name: shape for name, shape in shapes(config).items() if not name.startswith("layers.")}
    return nested({name: array(name, shape) for name, shape in around.items()}) | {"layers": layers()}


def whole(weights: Weights) -> Weights:
    """Return weights whose layers may be made as they are iterated over, with all of them in a list."""
    return weights | {"layers": list(weights["layers"])}


def map_arrays(function: Callable[[Any], Any], weights: Weights) -> Weights:
    """Return the weights with `function` applied to each array."""
    return map_named(lambda _, array: function(array), weights)


def map_named(function: Callable[[str, Any], Any], weights: Weights) -> Weights:
    """Return the weights with `function` applied to each full name and array."""
    return nested({name: function(name, array) for name, array in flat(weights).items()})


def check(weights: Mapping[str, Any], config: DecoderConfig) -> None:
    """Check that the weights are those that a configuration implies, by name and shape.

    Raises:
        ModelFormatError: a weight is missing, has another shape, or is one that the configuration doesn't use.
    """
    wanted, given = shapes(config), flat(weights)
    missing = [name for name in wanted if name not in given]
    if missing:
        raise ModelFormatError(f"The weights of this {config.architecture} decoder lack {_some(missing)}.")
    unused = [name for name in given if name not in wanted]
    if unused:
        raise ModelFormatError(
            f"The description of this {config.architecture} decoder has no use for {_some(unused)}: with these weights "
            "it would be another model."
        )
    for name, shape in wanted.items():
        if tuple(given[name].shape) != shape:
            raise ModelFormatError(
                f"The weight {name} of this {config.architecture} decoder must have the shape {shape}. Received: "
                f"{tuple(given[name].shape)}."
            )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
