"""Computes attention within the documents of packed rows, for every trait of a description, in `keras.ops`.

The kernels of `kernels_jax` and `kernels_tensorflow` are faster for what they know: `fuses` says whether it is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from keras import ops

from kerasgen.decoder import positions
from kerasgen.decoder.arithmetic import attention_weights, normalize, soft_cap
from kerasgen.decoder.config import AlibiPositions, DecoderConfig, Positions, RotaryPositions
from kerasgen.decoder.rotary_scaling import DynamicScaling, LongRopeScaling
from kerasgen.models.keras_decoder import bias_of, scale_of

NEVER = -1e9


def fuses(config: DecoderConfig, index: int, length: int | None) -> bool:
    """Return whether a layer's scores are plain: without a cap, sinks, ALiBi, or a window narrower than the rows."""
    attention, window = config.attention, config.window(index)
    return (
        attention.soft_cap is None
        and not attention.sinks
        and not isinstance(config.positions_of(index), AlibiPositions)
        and (window is None or (length is not None and length <= window))
    )


def rotations(config: DecoderConfig, inputs: Mapping[str, Any]) -> dict[Positions, Any]:
    """Return the cosines and sines of each kind of rotary positions, `(rows, 1, pairs)`."""
    kinds = {
        kind for index in range(config.num_layers) if isinstance(kind := config.positions_of(index), RotaryPositions)
    }
    places = ops.cast(ops.reshape(inputs["positions"], (-1,)), "float32")
    by_kind: dict[Positions, Any] = {}
    for kind in kinds:
        size = config.attention.head_dim
        if depends_on_length(kind):
            angles = positions.text_angles(ops, kind, size, places, _document_lengths(inputs))
        else:
            angles = positions.angles(ops, places, positions.frequencies(kind, size, 0))
        by_kind[kind] = [ops.expand_dims(each, 1) for each in angles]
    return by_kind


def depends_on_length(kind: Positions) -> bool:
    """Return whether a token's rotation depends on how long its text is."""
    return isinstance(kind, RotaryPositions) and isinstance(kind.scaling, DynamicScaling | LongRopeScaling)


def _document_lengths(inputs: Mapping[str, Any]) -> Any:
    """Return for each position how many tokens its document has in this row, float32 `(rows,)`."""
    segment_ids, places = inputs["segment_ids"], inputs["positions"]
    same = ops.equal(ops.expand_dims(segment_ids, 2), ops.expand_dims(segment_ids, 1))
    last = ops.max(ops.where(same, ops.expand_dims(places, 1), 0), axis=2)
    return ops.cast(ops.reshape(last, (-1,)), "float32") + 1.0


def prepared(
    config: DecoderConfig, index: int, layer: Mapping[str, Any], projected: Any, rotation: Any
) -> tuple[Any, ...]:
    """Return queries, keys and values, `(rows, heads, head_dim)`, the first two normed and rotated as described.

    Args:
        config: the decoder's.
        index: the index of the layer.
        layer: its parts.
        projected: queries, keys and values side by side, `(rows, columns)`.
        rotation: what `rotations` says of the layer's positions, or None where they are none.
    """
    attention = config.attention
    size, kind = attention.head_dim, config.positions_of(index)
    edges = (0, attention.query_dim, attention.query_dim + attention.key_value_dim, None)
    parts = [projected[:, begin:end] for begin, end in pairwise(edges)]
    if attention.query_key_norm is not None:
        is_whole = attention.query_key_norm_axis == "all_heads"
        for place, role in enumerate(("query_norm", "key_norm")):
            wide = ops.cast(parts[place], "float32")
            by_head = wide if is_whole else ops.reshape(wide, (-1, wide.shape[-1] // size, size))
            norm = layer[role]
            weights = {"scale": ops.cast(scale_of(norm), "float32")}
            if attention.query_key_norm.bias:
                weights["bias"] = ops.cast(bias_of(norm), "float32")
            normed = normalize(ops, by_head, attention.query_key_norm, weights)
            parts[place] = ops.cast(ops.reshape(normed, (-1, wide.shape[-1])), projected.dtype)
    heads = [ops.reshape(part, (-1, part.shape[-1] // size, size)) for part in parts]
    if isinstance(kind, RotaryPositions):
        cosines, sines = rotation
        for place in (0, 1):
            wide = ops.cast(heads[place], "float32")
            heads[place] = ops.cast(positions.rotate(ops, wide, cosines, sines, kind), projected.dtype)
    return tuple(heads)


def attend(config: DecoderConfig, index: int, together: Any, segment_ids: Any, sinks: Any) -> Any:
    """Return what each position gathers from those of its document up to itself, `(rows, query_dim)`.

    Args:
        config: the decoder's.
        index: the index of the layer.
        together: queries, keys and values of `prepared` side by side, `(batch * length, columns)`.
        segment_ids: int32 `(batch, length)`.
        sinks: a further score of each query head, `(heads,)`, or None.
    """
    attention, kind, window = config.attention, config.positions_of(index), config.window(index)
    batch, length = ops.shape(segment_ids)
    shared, size = attention.num_key_value_heads, attention.head_dim
    groups = attention.num_query_heads // shared
    first, second = attention.query_dim, attention.query_dim + attention.key_value_dim
    query = ops.reshape(together[:, :first], (batch, length, shared, groups, size))
    key = ops.reshape(together[:, first:second], (batch, length, shared, size))
    value = ops.reshape(together[:, second:], (batch, length, shared, size))
    scores = ops.cast(ops.einsum("bqkgd,bskd->bkgqs", query, key), "float32") * attention.score_scale
    scores = soft_cap(ops, scores, attention.soft_cap)
    # A document's tokens are contiguous, so their distances in a row are those in the document.
    places = ops.arange(length)
    behind = ops.expand_dims(places, 1) - ops.expand_dims(places, 0)  # (queries, keys)
    if isinstance(kind, AlibiPositions):
        slopes = (positions.alibi_slopes(attention.num_query_heads) * kind.scale).reshape(shared, groups, 1, 1)
        scores = scores - ops.convert_to_tensor(slopes) * ops.cast(behind, "float32")
    seen = behind >= 0 if window is None else ops.logical_and(behind >= 0, behind < window)
    same = ops.equal(ops.expand_dims(segment_ids, 2), ops.expand_dims(segment_ids, 1))
    allowed = ops.logical_and(same, seen)
    scores = ops.where(ops.reshape(allowed, (batch, 1, 1, length, length)), scores, NEVER)
    if sinks is not None:
        sinks = ops.reshape(ops.cast(sinks, "float32"), (shared, groups, 1, 1))
    weights = ops.cast(attention_weights(ops, scores, sinks), together.dtype)
    return ops.reshape(ops.einsum("bkgqs,bskd->bqkgd", weights, value), (-1, attention.query_dim))
