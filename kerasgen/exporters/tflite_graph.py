"""A decoder becomes TFLite signatures: prefill in chunks and decoding a token, with a cache for each block.

The signatures are those that LiteRT-LM expects. Imports TensorFlow.

`prefill_N(tokens, input_pos, kv_cache_k_0, kv_cache_v_0, …)` reads N tokens and returns the caches; `decode` reads one
and returns `logits` too. A cache is float32 `(1, num_heads, cache_length, head_dim)`. What lies in it beyond the tokens
read so far is never attended to, so it may hold anything finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from kerasgen.exporters import tensorflow_decoder as decoder
from kerasgen.models.families.base import DecoderShape, DecoderWeights, map_weights

DECODE = "decode"
MASKED = -1e9


def prefill_name(length: int) -> str:
    """Return the name of the signature that reads `length` tokens."""
    return f"prefill_{length}"


def cache_names(num_layers: int) -> list[str]:
    """Return the names of the caches, the keys before the values."""
    return [f"kv_cache_{kind}_{index}" for kind in "kv" for index in range(num_layers)]


def write_saved_model(
    weights: DecoderWeights,
    shape: DecoderShape,
    directory: Path,
    *,
    cache_length: int,
    prefill_lengths: Sequence[int],
    beams: int,
) -> None:
    """Write the signatures as a SavedModel that the TFLite converter reads.

    Args:
        weights: NumPy arrays.
        shape: of the decoder.
        directory: where.
        cache_length: positions of each cache.
        prefill_lengths: tokens that the prefill signatures read.
        beams: texts that `decode_beams` reads at once; 0 leaves it out.
    """
    module = _Module(weights, shape, cache_length)
    signatures = {prefill_name(length): module.signature(length, with_logits=False) for length in prefill_lengths}
    signatures[DECODE] = module.signature(1, with_logits=True)
    if beams:
        signatures[beams_name(beams)] = module.beams_signature(beams)
    tf.saved_model.save(module, str(directory), signatures=signatures)


def beams_name(count: int) -> str:
    """Return the name of the signature that reads a token of each of `count` texts that share a cache."""
    return f"decode_beams_{count}"


class _Module(tf.Module):  # type: ignore[misc]
    def __init__(self, weights: DecoderWeights, shape: DecoderShape, cache_length: int) -> None:
        super().__init__()
        # One variable each: every signature freezes the same ones.
        self.weights = map_weights(lambda array: tf.Variable(array, trainable=False), weights)
        self.shape = shape
        self.cache_length = cache_length

    def signature(self, length: int, *, with_logits: bool) -> Any:
        """A signature that reads `length` tokens of one text at consecutive places of the cache."""

        def read(tokens: Any, input_pos: Any, **caches: Any) -> dict[str, Any]:
            slots = tf.range(self.cache_length)[None, :]
            mask = tf.where(slots <= input_pos[:, None], 0.0, MASKED)[None, None]
            written: dict[str, Any] = {}

            def attend(index: int, queries: Any, keys: Any, values: Any) -> Any:
                start = tf.stack([0, 0, input_pos[0], 0])
                kept = [
                    gen_xla_ops.xla_dynamic_update_slice(caches[f"kv_cache_{kind}_{index}"], new, start)
                    for kind, new in (("k", keys), ("v", values))
                ]
                written[f"kv_cache_k_{index}"], written[f"kv_cache_v_{index}"] = kept
                return _attention(queries, kept[0], kept[1], mask)

            hidden = decoder.hidden_states(self.weights, self.shape, tokens, input_pos, attend, look_up=_look_up)
            if with_logits:
                written["logits"] = decoder.logits(self.weights, hidden)
            return written

        return tf.function(read, autograph=False).get_concrete_function(
            tokens=tf.TensorSpec((1, length), tf.int32, "tokens"),
            input_pos=tf.TensorSpec((length,), tf.int32, "input_pos"),
            **self._cache_specs(),
        )

    def beams_signature(self, count: int) -> Any:
        """A signature that reads a token of each of `count` texts, which share one cache.

        A token may be written to any slot, and the mask says which slots are its text's past: texts that part need no
        copies of what they have in common.
        """

        def read(tokens: Any, input_pos: Any, slots: Any, mask: Any, **caches: Any) -> dict[str, Any]:
            written: dict[str, Any] = {}

            def attend(index: int, queries: Any, keys: Any, values: Any) -> Any:
                kept = []
                for kind, new in (("k", keys), ("v", values)):
                    cache = caches[f"kv_cache_{kind}_{index}"]
                    for row in range(count):
                        start = tf.stack([0, 0, slots[row], 0])
                        cache = gen_xla_ops.xla_dynamic_update_slice(cache, new[:, :, row : row + 1], start)
                    written[f"kv_cache_{kind}_{index}"] = cache
                    kept.append(cache)
                return _attention(queries, kept[0], kept[1], mask)

            hidden = decoder.hidden_states(self.weights, self.shape, tokens, input_pos, attend, look_up=_look_up)
            written["logits"] = decoder.logits(self.weights, hidden)
            return written

        return tf.function(read, autograph=False).get_concrete_function(
            tokens=tf.TensorSpec((1, count), tf.int32, "tokens"),
            input_pos=tf.TensorSpec((count,), tf.int32, "input_pos"),
            slots=tf.TensorSpec((count,), tf.int32, "slots"),
            mask=tf.TensorSpec((1, 1, count, self.cache_length), tf.float32, "mask"),
            **self._cache_specs(),
        )

    def _cache_specs(self) -> dict[str, Any]:
        size = (1, self.shape.num_heads, self.cache_length, self.shape.head_dim)
        return {name: tf.TensorSpec(size, tf.float32, name) for name in cache_names(self.shape.num_layers)}


def _look_up(table: Any, ids: Any) -> Any:
    """Rows of a table by ids of one dimension, which is how `EMBEDDING_LOOKUP` takes them; one text in a batch."""
    return tf.gather(table, tf.reshape(ids, (-1,)))[None]


def _attention(queries: Any, keys: Any, values: Any, mask: Any) -> Any:
    scores = tf.matmul(queries, keys, transpose_b=True) + mask
    return tf.matmul(tf.nn.softmax(scores), values)


def convert(directory: Path) -> bytes:
    """Return the flatbuffer of a SavedModel's signatures, in builtin operators alone."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(directory))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    found: bytes = converter.convert()
    return found
