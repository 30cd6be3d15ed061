"""Builds a SavedModel's TensorFlow functions: a decoder and its decoding loops. Stateless, for any batch.

Imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights, map_named
from kerasgen.exporters.saved_model import beams, passes
from kerasgen.exporters.saved_model import steps as compiled_steps
from kerasgen.exporters.saved_model.beams import BeamChoice
from kerasgen.exporters.saved_model.passes import Cache
from kerasgen.exporters.tensorflow import decoder
from kerasgen.exporters.tensorflow.utf8 import Utf8Steps
from kerasgen.samplers import beam_search

_BLOCK = 64  # steps after which the second part of the cache is laid to the first
_ROW = tf.TensorShape([None])
_INVARIANTS = (tf.TensorShape([]), tf.TensorShape([None, None]), _ROW, _ROW, _ROW)


class Choice(NamedTuple):
    """The sampler of a graph and its settings.

    Args:
        pick: `(logits, numbers)`, float `(batch, vocabulary_size)` and `(batch,)`, to ids `(batch,)`.
        numbers: int32 steps to a number in [0, 1) for each row and step: `()` or `(batch,)` to `(batch,)`, and `(n, 1)`
            to `(n, batch)`.
        utf8: what keeps the texts valid UTF-8.
        begun: int32 `(batch,)`, the states after the prompts, of `utf8`.
    """

    pick: Callable[[Any, Any], Any]
    numbers: Callable[[Any], Any]
    utf8: Utf8Steps
    begun: Any

    def __call__(self, logits: Any, step: Any, states: Any) -> tuple[Any, Any]:
        """Return ids `(batch,)`, one for each row of the logits, at a step, and the states after them."""
        return self.chosen(logits, self.numbers(step), states)

    def chosen(self, logits: Any, numbers: Any, states: Any) -> tuple[Any, Any]:
        """Return the same with the numbers at hand."""
        token = self.pick(self.utf8.masked(logits, states), numbers)
        return token, self.utf8.after(states, token)


class Generated(NamedTuple):
    """The texts that a decoding loop generated.

    Args:
        token_ids: int32 `(batch, steps)`; past a text's length the padding.
        lengths: int32 `(batch,)`, tokens of each, the end token with them.
        ended: bool `(batch,)`, which hold the end token.
    """

    token_ids: Any
    lengths: Any
    ended: Any


def cut(ids: Any, most: Any, end: Any, pad: int) -> Generated:
    """Return texts `(batch, most)` up to their end tokens; the padding may be the same id."""
    ends = passes.is_end(ids, end)
    ended = tf.reduce_any(ends, axis=1)
    count = tf.where(ended, tf.argmax(ends, axis=1, output_type=tf.int32) + 1, most)
    return Generated(tf.where(tf.range(most) < count[:, None], ids, pad), count, ended)


class DecoderGraph(tf.Module):  # type: ignore[misc]
    """A decoder's weights and the loops over it.

    Args:
        config: the decoder's.
        weights: by name, as NumPy arrays.
        dtype: the dtype that the weights are kept in; it is computed in float32.
        pad_token_id: what fills ids past a text's end.
        max_sequence_length: tokens that a text can have.
        compiled: whether XLA compiles the steps of `sample` where the graph runs.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        *,
        dtype: str,
        pad_token_id: int,
        max_sequence_length: int,
        compiled: bool,
    ) -> None:
        super().__init__()
        decoder.require_computable(config, max_sequence_length)
        self._config, self._longest = config, max_sequence_length
        self._pad = pad_token_id
        self._dtype = dtype
        self._compiled = compiled

        # Kernels `(out, in)` are read in the order of memory when rows are few.
        turned = map_named(
            lambda name, array: array.T if name.endswith(".kernel") else array, decoder.prepare(config, weights)
        )
        self._packing = passes.Packing(turned, stacks=not compiled)
        self._kept = {
            name: tf.Variable(array, trainable=False, dtype=dtype) for name, array in self._packing.packed(turned)
        }
        self._passes = passes.Passes(config, self._packing, self._kept)

    @property
    def vocabulary_size(self) -> int:
        """Number of logits of a token."""
        return self._config.vocabulary_size

    def logits(self, token_ids: Any) -> Any:
        """Return the logits after each token: int32 `(batch, length)` to `(batch, length, vocabulary_size)`."""
        packed = self._packed()
        hidden, _ = self._passes.read(packed, token_ids)
        return decoder.logits(self._config, self._packing.unpacked(packed), hidden)

    def sample(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: Choice) -> Generated:
        """Generate token by token.

        Args:
            prompts: int32 `(batch, length)`, right-padded, the start token with them.
            lengths: int32 `(batch,)`, of the prompts.
            most: int32 scalar, tokens generated for each at most; at least 1.
            end: int32 `(ends,)`, the ids that end a text.
            choose: the sampler.
        """
        if self._compiled:
            return self._sample_compiled(prompts, lengths, most, end, choose)
        config, packed = self._config, self._packed()
        old, mask, logits = self._passes.prefill(packed, prompts, lengths)
        token, states = choose(logits, tf.constant(0), choose.begun)
        done = passes.is_end(token, end)

        def goes_on(step: Any, done: Any) -> Any:
            return tf.logical_and(step < most, tf.logical_not(tf.reduce_all(done)))

        def advance(
            step: Any, ids: Any, done: Any, count: Any, states: Any, recent: Cache, old: Cache, mask: Any
        ) -> tuple[Any, Any, Any, Any, Any, Cache]:
            places = lengths + step - 1
            logits, recent = self._passes.advance(packed, ids[:, -1], places, old, mask, recent)
            chosen, states = choose(logits, step, states)
            token = tf.where(done, self._pad, chosen)
            count = count + tf.cast(tf.logical_not(done), tf.int32)
            ids = tf.concat([ids, token[:, None]], axis=1)
            return step + 1, ids, tf.logical_or(done, passes.is_end(token, end)), count, states, recent

        def block(step: Any, ids: Any, done: Any, count: Any, states: Any, old: Cache, mask: Any) -> tuple[Any, ...]:
            until = step + _BLOCK
            state = (step, ids, done, count, states, passes.empty(config, tf.shape(ids)[0]))
            step, ids, done, count, states, recent = tf.while_loop(
                lambda step, ids, done, *_: tf.logical_and(step < until, goes_on(step, done)),
                lambda step, ids, done, count, states, recent: advance(
                    step, ids, done, count, states, recent, old, mask
                ),
                state,
                shape_invariants=(*_INVARIANTS, passes.any_length(config)),
            )
            old = old.followed_by(recent)
            mask = tf.concat([mask, tf.ones((tf.shape(mask)[0], tf.shape(recent.keys[0])[2]), tf.bool)], axis=1)
            return step, ids, done, count, states, old, mask

        _, ids, done, count, *_ = tf.while_loop(
            lambda step, ids, done, *_: goes_on(step, done),
            block,
            (tf.constant(1), token[:, None], done, tf.ones_like(token), states, old, mask),
            shape_invariants=(*_INVARIANTS, passes.any_length(config), tf.TensorShape([None, None])),
        )
        return Generated(ids, count, done)

    def search(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: BeamChoice) -> Generated:
        """Return the best text of each prompt by beam search; see `sample`, `Choice` and `kerasgen.samplers.Beam`."""
        config, packed = self._config, self._packed()
        old, mask, logits = self._passes.prefill(packed, prompts, lengths)
        batch = tf.shape(prompts)[0]
        positions = self._longest
        limits = tf.fill((batch,), most)
        num_beams, penalty, utf8 = choose.num_beams, choose.length_penalty, choose.utf8
        candidates = partial(choose.candidates, vocabulary_size=config.vocabulary_size, ends=end.shape[0])

        def step(
            generated: Any, state: beam_search.Beams, done: Any, logits: Any, within: Any
        ) -> tuple[beam_search.Beams, Any, Any, Any, Any]:
            after, parents, ended = beams.step(
                state,
                candidates(logits, within),
                active=tf.logical_not(done),
                index=generated - 1,
                generated=tf.fill((batch,), generated),
                limits=limits,
                end=end,
                length_penalty=penalty,
            )
            token = tf.reshape(tf.gather(after.token_ids, generated - 1, axis=2), (-1,))
            rows = tf.reshape(parents + tf.range(batch)[:, None] * num_beams, (-1,))
            within = utf8.after(tf.gather(within, rows), token)
            return after, rows, token, tf.logical_or(done, ended), within

        def body(
            generated: Any, state: beam_search.Beams, done: Any, token: Any, within: Any, recent: Cache
        ) -> tuple[Any, ...]:
            place = tf.repeat(lengths, num_beams) + generated - 1
            logits, recent = self._passes.advance(packed, token, place, old, mask, recent, width=num_beams)
            state, rows, token, done, within = step(generated + 1, state, done, logits, within)
            recent = tf.nest.map_structure(lambda x: tf.gather(x, rows), recent)
            return generated + 1, state, done, token, within, recent

        state = beams.begin(batch, num_beams=num_beams, positions=positions, pad=self._pad)
        nothing = tf.fill((batch,), False)
        wide = (tf.repeat(array, num_beams, axis=0) for array in (logits, choose.begun))
        state, _, token, done, within = step(tf.constant(1), state, nothing, *wide)
        _, state, done, *_ = tf.while_loop(
            lambda generated, state, done, *_: tf.logical_and(generated < most, tf.logical_not(tf.reduce_all(done))),
            body,
            (tf.constant(1), state, done, token, within, passes.empty(config, batch * num_beams)),
            shape_invariants=(
                tf.TensorShape([]),
                beams.shapes(num_beams=num_beams, positions=positions),
                _ROW,
                _ROW,
                _ROW,
                passes.any_length(config),
            ),
        )
        ids = beams.best(state, done=done, most=most, length_penalty=penalty)
        return cut(ids, most, end, self._pad)

    def _sample_compiled(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: Choice) -> Generated:
        packed = self._packed()
        prompts = prompts[:, : tf.reduce_max(lengths)]
        old, mask, logits = self._passes.prefill(packed, prompts, lengths)
        token, states = choose(logits, tf.constant(0), choose.begun)
        batch, prompt = tf.shape(prompts)[0], tf.shape(prompts)[1]
        rows = compiled_steps.rows_for(batch)
        more = [0, rows - batch]
        fixed = compiled_steps.Fixed(tf.pad(lengths, [more]), tf.pad(mask, [more, [0, 0]]), end, tf.constant(self._pad))

        @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
        def advance(texts: Any, until: Any, numbers: Any) -> Any:
            # A variable that is read in here is not copied; what is to be cast was cast outside, once.
            own = self._packing.unpacked(self._packed() if self._dtype == "float32" else packed)
            return compiled_steps.advance(self._config, own, texts, until, numbers, fixed, choose.chosen)

        def block(texts: Any, ids: Any) -> tuple[Any, Any]:
            first = texts.step
            until = tf.minimum(first + compiled_steps.STEPS, most)
            length = compiled_steps.length_for(prompt + until - 1, self._longest)
            texts = texts._replace(cache=texts.cache.padded(rows=rows, length=length))
            numbers = choose.numbers(first + tf.range(compiled_steps.STEPS)[:, None])
            texts, new = advance(texts, until, tf.pad(numbers, [[0, 0], more]))
            return texts, tf.concat([ids, new[:batch, : texts.step - first]], axis=1)

        cache = compiled_steps.Columns(tuple(map(tf.linalg.matrix_transpose, old.keys)), old.values)
        done = tf.pad(passes.is_end(token, end), [more], constant_values=True)
        texts = compiled_steps.Texts(tf.constant(1), tf.pad(token, [more]), done, tf.pad(states, [more]), cache)
        heads, size = self._config.attention.num_key_value_heads, self._config.attention.head_dim
        shapes = compiled_steps.Columns(
            (tf.TensorShape([None, heads, size, None]),) * self._config.num_layers,
            (tf.TensorShape([None, heads, None, size]),) * self._config.num_layers,
        )
        _, ids = tf.while_loop(
            lambda texts, ids: tf.logical_and(texts.step < most, tf.logical_not(tf.reduce_all(texts.done))),
            block,
            (texts, token[:, None]),
            shape_invariants=(
                compiled_steps.Texts(tf.TensorShape([]), _ROW, _ROW, _ROW, shapes),
                tf.TensorShape([None, None]),
            ),
        )
        return cut(ids, tf.shape(ids)[1], end, self._pad)

    def _packed(self) -> dict[str, Any]:
        return {name: tf.cast(tf.convert_to_tensor(kept), tf.float32) for name, kept in self._kept.items()}
