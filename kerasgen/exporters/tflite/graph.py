"""Builds a decoder's TFLite signatures: prefill in chunks and decoding a token, with a cache for each block.

The signatures are those that LiteRT-LM expects. Imports TensorFlow.

`choose_SAMPLER`, on request, chooses a token from logits: `(logits, …) → token_ids`, with the sampler's settings and a
random number as inputs of one element each.

`shortlist`, on request, is `decode` that returns the logits of the likeliest tokens alone; see `estimates`.

`prefill_N(tokens, input_pos, kv_cache_k_0, kv_cache_v_0, …)` reads N tokens and returns the caches; `decode` reads one
and returns `logits` too. A cache is float32 `(1, key-value heads, cache_length, head_dim)`. What lies in it beyond the
tokens read so far is never attended to, so it may hold anything finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights, flat, map_named
from kerasgen.exporters.exportable_samplers import token_sampler
from kerasgen.exporters.tensorflow import decoder
from kerasgen.exporters.tensorflow import namespace as xp
from kerasgen.exporters.tensorflow.attention import Keys, Weigh, over_keys, over_values, require_no_distances
from kerasgen.exporters.tflite import estimates
from kerasgen.exporters.tflite.folding import fold_norms
from kerasgen.exporters.tflite.stand_ins import StandIns
from kerasgen.samplers import inputs

DECODE = "decode"
SHORTLIST = "shortlist"
LOGITS = "logits"
MASKED = -1e9
_TYPES = {int: tf.int32, float: tf.float32}


def _own(sampler: str) -> dict[str, Any]:
    """Return the inputs of a sampler and their types.

    Random numbers come from outside, one for each token, for those that the runtime draws can't be seeded.
    """
    kind = token_sampler(sampler)
    types = {"uniforms": tf.float32} if kind.draws else {}
    types |= {"temperature": tf.float32} if inputs.has_temperature(kind) else {}
    return types | {name: _TYPES[of] for name, of in inputs.types(kind).items()}


def prefill_name(length: int) -> str:
    """Return the name of the signature that reads `length` tokens."""
    return f"prefill_{length}"


def cache_names(num_layers: int) -> list[str]:
    """Return the names of the caches, the keys before the values."""
    return [f"kv_cache_{kind}_{index}" for kind in "kv" for index in range(num_layers)]


def write_saved_model(
    config: DecoderConfig,
    weights: Weights,
    directory: Path,
    *,
    cache_length: int,
    prefill_lengths: Sequence[int],
    decode_lengths: Sequence[int] = (),
    beams: int,
    samplers: Sequence[str] = (),
    shortlist: int = 0,
) -> StandIns:
    """Write the signatures, without weights, as a SavedModel; return what converts it and puts the weights in.

    Args:
        config: the decoder's.
        weights: by name, NumPy arrays.
        directory: where.
        cache_length: positions of each cache.
        prefill_lengths: tokens that the prefill signatures read.
        decode_lengths: places that further signatures like `decode` attend to, for texts that are shorter yet.
        beams: texts that `decode_beams` reads at once; 0 leaves it out.
        samplers: names of samplers, for a signature each that chooses from logits.
        shortlist: tokens whose logits `shortlist` returns, for each length that there is a `decode` for; 0 leaves it
            out.
    """
    estimating = None
    if shortlist:
        estimating = estimates.rounded_rows(
            weights["embedding"]["tokens"] if config.tied_head else weights["head"]["kernel"].T
        )
    module = _Module(config, weights, cache_length, estimating)
    signatures = {prefill_name(length): module.signature(length, with_logits=False) for length in prefill_lengths}
    signatures[DECODE] = module.signature(1, with_logits=True)
    for seen in decode_lengths:
        signatures[decode_name(seen)] = module.signature(1, with_logits=True, seen=seen)
    if beams:
        signatures[beams_name(beams)] = module.beams_signature(beams)
    signatures |= {choice_name(name): module.choice_signature(name) for name in samplers}
    if shortlist:
        signatures |= {
            shortlist_name(seen): module.shortlist_signature(shortlist, seen=seen) for seen in (None, *decode_lengths)
        }
        signatures[LOGITS] = module.logits_signature()
    module.stand_ins.save(module, directory, signatures)
    return module.stand_ins


def decode_name(seen: int) -> str:
    """Return the name of the signature that reads a token of a text that lies in the first `seen` places."""
    return f"{DECODE}_{seen}"


def shortlist_name(seen: int | None) -> str:
    """Return the name of the signature that is `decode`, of the first `seen` places, with a few logits alone."""
    return SHORTLIST if seen is None else f"{SHORTLIST}_{seen}"


def beams_name(count: int) -> str:
    """Return the name of the signature that reads a token of each of `count` texts that share a cache."""
    return f"decode_beams_{count}"


def choice_name(sampler: str) -> str:
    """Return the name of the signature that chooses from logits."""
    return f"choose_{sampler}"


class _Module(tf.Module):  # type: ignore[misc]
    def __init__(
        self, config: DecoderConfig, weights: Weights, cache_length: int, estimating: Any | None = None
    ) -> None:
        super().__init__()
        decoder.require_computable(config, cache_length)
        prepared = fold_norms(config, decoder.prepare(config, weights))
        if estimating is not None:
            prepared["estimates"] = {"table": estimating}
        if config.residual_scale != 1.0 or config.logit_scale != 1.0 or config.logit_soft_cap is not None:
            # A factor that follows a product at once would be multiplied into the matrix: of a table that the output
            # layer shares, into a second table.
            prepared["apart"] = {"zero": np.zeros(1, np.float32)}
        # FULLY_CONNECTED takes kernels `(out, in)`.
        self.stand_ins = StandIns(
            map_named(lambda name, array: array.T if name.endswith(".kernel") else array, prepared),
            inputs=[name for name in flat(prepared) if name.endswith("norm.bias") or name == "apart.zero"],
        )
        self.config = config
        self.cache_length = cache_length

    @property
    def weights(self) -> Weights:
        """By name; while a signature is traced, what stands in for them."""
        return self.stand_ins.weights

    def signature(self, length: int, *, with_logits: bool, seen: int | None = None) -> Any:
        """A signature that reads `length` tokens of one text at consecutive places of the cache.

        Only the first `seen` places are attended to, if that is given: the text must lie in them.
        """

        def read(tokens: Any, input_pos: Any, **caches: Any) -> dict[str, Any]:
            hidden, written = self._read(tokens, input_pos, caches, seen or self.cache_length)
            if with_logits:
                written["logits"] = decoder.logits(self.config, self.weights, hidden, self._product)
            return written

        return self.stand_ins.function(
            read,
            {
                "tokens": tf.TensorSpec((1, length), tf.int32, "tokens"),
                "input_pos": tf.TensorSpec((length,), tf.int32, "input_pos"),
                **self._cache_specs(),
            },
        )

    def shortlist_signature(self, count: int, *, seen: int | None) -> Any:
        """A signature that reads a token and returns the logits of those that seem the likeliest to come next.

        `floor` is the lowest of their estimates: no other token's is above it. `hidden` is what `logits` takes.
        """

        def read(tokens: Any, input_pos: Any, **caches: Any) -> dict[str, Any]:
            hidden, written = self._read(tokens, input_pos, caches, seen or self.cache_length)
            estimated = tf.matmul(
                hidden, self.weights["estimates"]["table"], transpose_b=True, name=estimates.ESTIMATES
            )
            highest, ids = tf.math.top_k(tf.reshape(estimated, (-1,)), count)
            rows = tf.gather(decoder.output_table(self.config, self.weights), ids)
            logits = tf.matmul(hidden[0], rows, transpose_b=True)
            return written | {"ids": ids, "logits": logits, "floor": highest[-1:], "hidden": hidden}

        return self.stand_ins.function(
            read,
            {
                "tokens": tf.TensorSpec((1, 1), tf.int32, "tokens"),
                "input_pos": tf.TensorSpec((1,), tf.int32, "input_pos"),
                **self._cache_specs(),
            },
        )

    def logits_signature(self) -> Any:
        """A signature that returns every token's logit after a hidden state."""

        def read(hidden: Any) -> dict[str, Any]:
            return {"logits": decoder.logits(self.config, self.weights, hidden, self._product)}

        return self.stand_ins.function(
            read,
            {
                "hidden": tf.TensorSpec((1, 1, self.config.hidden_dim), tf.float32, "hidden"),
            },
        )

    def choice_signature(self, sampler: str) -> Any:
        """Return the signature that chooses a token from logits; its other arguments are the sampler's inputs."""
        own = _own(sampler)

        def choose(logits: Any, **settings: Any) -> dict[str, Any]:
            return {"token_ids": tf.cast(_choose(sampler, logits, settings), tf.int32)}

        return tf.function(choose, autograph=False).get_concrete_function(
            logits=tf.TensorSpec((1, self.config.vocabulary_size), tf.float32, "logits"),
            **{name: tf.TensorSpec((1,), of, name) for name, of in own.items()},
        )

    def beams_signature(self, count: int) -> Any:
        """A signature that reads a token of each of `count` texts, which share one cache.

        A token may be written to any slot, and the mask says which slots are its text's past: texts that part need no
        copies of what they have in common. It doesn't say how far back a slot's token stands.
        """
        require_no_distances(self.config, "The signature of `beams` reads no texts")

        def read(tokens: Any, input_pos: Any, slots: Any, mask: Any, **caches: Any) -> dict[str, Any]:
            written: dict[str, Any] = {}

            past = Keys(mask=mask, distances=_unknown)

            def attend(index: int, queries: Any, keys: Any, values: Any, weigh: Weigh) -> Any:
                updated = dict(caches)
                for row in range(count):
                    text = slice(row, row + 1)
                    updated |= _write(updated, index, keys[:, :, text], values[:, :, text], slots[row])
                written[f"kv_cache_k_{index}"] = updated[f"kv_cache_k_{index}"]
                written[f"kv_cache_v_{index}"] = updated[f"kv_cache_v_{index}"]
                return _attention(queries, updated[f"kv_cache_k_{index}"], updated[f"kv_cache_v_{index}"], past, weigh)

            hidden = self._through(tokens, input_pos, attend)
            written["logits"] = decoder.logits(self.config, self.weights, hidden, self._product)
            return written

        return self.stand_ins.function(
            read,
            {
                "tokens": tf.TensorSpec((1, count), tf.int32, "tokens"),
                "input_pos": tf.TensorSpec((count,), tf.int32, "input_pos"),
                "slots": tf.TensorSpec((count,), tf.int32, "slots"),
                "mask": tf.TensorSpec((1, 1, count, self.cache_length), tf.float32, "mask"),
                **self._cache_specs(),
            },
        )

    def _read(self, tokens: Any, input_pos: Any, caches: Mapping[str, Any], seen: int) -> tuple[Any, dict[str, Any]]:
        """Return the hidden states of tokens at consecutive places of one text, and the updated caches."""
        slots = tf.range(seen)[None, :]
        past = Keys(
            mask=tf.where(slots <= input_pos[:, None], 0.0, MASKED)[None, None],
            distances=lambda: input_pos[:, None] - slots,
        )
        written: dict[str, Any] = {}

        def attend(index: int, queries: Any, keys: Any, values: Any, weigh: Weigh) -> Any:
            updated = _write(caches, index, keys, values, input_pos[0])
            written.update(updated)
            keys, values = (cache if seen == self.cache_length else cache[:, :, :seen] for cache in updated.values())
            return _attention(queries, keys, values, past, weigh)

        hidden = self._through(tokens, input_pos, attend)
        return hidden, written

    def _through(self, tokens: Any, input_pos: Any, attend: decoder.Attend) -> Any:
        hidden = decoder.embed(self.config, self.weights, tokens, input_pos, look_up=_look_up)
        hooks = decoder.Rows(self.config, lambda: input_pos, attend, self._product)
        return decoder.through(self.config, self.weights, hidden, hooks)

    def _product(self, hidden: Any, kernel: Any) -> Any:
        product = _multiply(hidden, kernel)
        return product + self.weights["apart"]["zero"] if "apart" in self.weights else product

    def _cache_specs(self) -> dict[str, Any]:
        attention = self.config.attention
        size = (1, attention.num_key_value_heads, self.cache_length, attention.head_dim)
        return {name: tf.TensorSpec(size, tf.float32, name) for name in cache_names(self.config.num_layers)}


def _multiply(hidden: Any, kernel: Any) -> Any:
    return tf.matmul(hidden, kernel, transpose_b=True)


def _look_up(table: Any, ids: Any) -> Any:
    """Look up rows of a table by ids of one dimension, as `EMBEDDING_LOOKUP` takes them; one text in a batch."""
    return tf.gather(table, tf.reshape(ids, (-1,)))[None]


def _choose(sampler: str, logits: Any, settings: Mapping[str, Any]) -> Any:
    """Return the token that the sampler chooses from logits `(1, vocabulary_size)`."""
    kind = token_sampler(sampler)
    if "temperature" in settings:
        logits = logits / settings["temperature"]
    uniforms = settings["uniforms"] if kind.draws else tf.zeros((1,))
    return inputs.choose(kind, settings, xp, logits, uniforms)


def _write(caches: Mapping[str, Any], index: int, keys: Any, values: Any, place: Any) -> dict[str, Any]:
    """Write keys and values `(1, key-value heads, length, head_dim)` into a block's caches from a place on."""
    start = tf.stack([0, 0, place, 0])
    parts = {f"kv_cache_k_{index}": keys, f"kv_cache_v_{index}": values}
    return {name: gen_xla_ops.xla_dynamic_update_slice(caches[name], part, start) for name, part in parts.items()}


def _attention(queries: Any, keys: Any, values: Any, past: Keys, weigh: Weigh) -> Any:
    return over_values(weigh((over_keys(queries, keys), past)), values)


def _unknown() -> Any:
    raise AssertionError("`require_no_distances` was to be asked first")


def convert(directory: Path) -> bytes:
    """Return the flatbuffer of a SavedModel's signatures, in builtin operators alone."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(directory))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    # The pass that looks for infinity in every weight takes most of a conversion: 53 of 66 s for GPT-2's base shape.
    converter.canonicalizing_inf_as_min_max_float = False
    converter.exclude_conversion_metadata = True  # the whole file would be read and written once more for it
    flatbuffer: bytes = converter.convert()
    return flatbuffer
