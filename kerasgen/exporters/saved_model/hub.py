"""Any KerasHub causal model as TensorFlow functions, decoded by its own `generate_step`. Imports TensorFlow and Keras.

KerasHub's step reads the prompts, builds its cache and hands both to a sampler; the loops here take a sampler's place.
All texts of a batch write at the same position, and those whose prompts are longer join later.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf
from keras import tree

from kerasgen.exporters.saved_model import beams
from kerasgen.exporters.saved_model.beams import BeamChoice
from kerasgen.exporters.saved_model.graph import Choice, Generated, cut
from kerasgen.exporters.saved_model.passes import is_end
from kerasgen.samplers import beam_search

# (texts, cache, position) to (logits, hidden states, cache) of the token before the position
Next = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


class HubDecoder(tf.Module):  # type: ignore[misc]
    """A model's variables and the loops over its step; the methods are those of `DecoderGraph`.

    Args:
        causal_lm: a `keras_hub.models.CausalLM` on TensorFlow; its sampler is replaced.
        vocabulary_size: ids of the tokenizer; logits beyond them are left out.
        max_sequence_length: tokens that a text can have.
        pad_token_id: what fills ids past a text's end.
    """

    def __init__(self, causal_lm: Any, *, vocabulary_size: int, max_sequence_length: int, pad_token_id: int) -> None:
        super().__init__()
        # A module saves everything that its attributes reach; a model attribute would save its variables twice.
        self._model: Callable[[], Any] = lambda: causal_lm
        self._kept = [variable.value for variable in causal_lm.weights]
        self._size = vocabulary_size
        self._longest = max_sequence_length
        self._pad = pad_token_id

    @property
    def vocabulary_size(self) -> int:
        """Number of logits of a token: one for each of the tokenizer's ids."""
        return self._size

    def logits(self, token_ids: Any) -> Any:
        """Return the logits after each token: int32 `(batch, length)` to `(batch, length, vocabulary_size)`."""
        mask = tf.ones_like(token_ids)
        return self._shown(self._model()({"token_ids": token_ids, "padding_mask": mask}, training=False))

    def sample(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: Choice) -> Generated:
        """Generate token by token; see `DecoderGraph.sample`."""

        def loop(following: Next, texts: Any, cache: Any, start: Any) -> Any:
            length = tf.shape(texts)[1]

            def body(texts: Any, cache: Any, index: Any, done: Any, states: Any) -> tuple[Any, ...]:
                logits, _, after = following(texts, cache, index)
                step = index - lengths
                token, follows = choose(self._shown(logits), tf.maximum(step, 0), states)
                waits = tf.logical_or(step < 0, done)
                states = tf.where(waits, states, follows)
                texts = tf.where(_write_mask(length, index, waits), token[:, None], texts)
                ended = tf.logical_or(is_end(token, end), step + 1 >= most)
                done = tf.logical_or(done, tf.logical_and(ended, step >= 0))
                return texts, _with_shape_of(after, cache), index + 1, done, states

            row = tf.TensorShape([None])
            texts, *_ = tf.while_loop(
                lambda texts, cache, index, done, states: tf.logical_not(tf.reduce_all(done)),
                body,
                (texts, cache, start, tf.zeros_like(lengths, tf.bool), choose.begun),
                shape_invariants=(tf.TensorShape([None, None]), _shapes(cache), start.shape, row, row),
            )
            return texts

        texts = self._run(prompts, lengths, most, loop)
        places = lengths[:, None] + tf.range(most)
        return cut(tf.gather(texts, places, batch_dims=1), most, end, self._pad)

    def search(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: BeamChoice) -> Generated:
        """Return the best text of each prompt by beam search; see `DecoderGraph.search`."""
        batch = tf.shape(prompts)[0]
        limits = tf.fill((batch,), most)
        num_beams, penalty, utf8 = choose.num_beams, choose.length_penalty, choose.utf8
        candidates = partial(choose.candidates, vocabulary_size=self._size, ends=end.shape[0])

        def loop(following: Next, texts: Any, cache: Any, start: Any) -> Any:
            length = tf.shape(texts)[1]

            def body(
                state: beam_search.Beams, texts: Any, cache: Any, index: Any, done: Any, over: Any, within: Any
            ) -> tuple[beam_search.Beams, Any, Any, Any, Any, Any, Any]:
                logits, _, after = following(texts, cache, index)
                waits = index < lengths
                # Results of waiting and finished rows are discarded.
                generated = tf.clip_by_value(index - lengths + 1, 1, most)
                active = tf.logical_not(tf.logical_or(waits, over))
                state, parents, ended = beams.step(
                    state,
                    candidates(self._shown(logits), within),
                    active=active,
                    index=(generated - 1)[:, None, None],
                    generated=generated,
                    limits=limits,
                    end=end,
                    length_penalty=penalty,
                )
                done = tf.logical_or(done, ended)
                over = tf.logical_or(over, tf.logical_or(done, tf.logical_and(active, generated >= most)))
                rows = tf.reshape(parents + tf.range(batch)[:, None] * num_beams, (-1,))
                tokens = tf.gather(state.token_ids, generated - 1, axis=2, batch_dims=1)
                waiting = tf.repeat(waits, num_beams)
                written = tf.reshape(tokens, (-1, 1))
                within = tf.where(waiting, within, utf8.after(tf.gather(within, rows), written[:, 0]))
                texts = tf.where(_write_mask(length, index, waiting), written, tf.gather(texts, rows))
                cache = tree.map_structure(lambda x: tf.gather(x, rows), after)
                return state, texts, _with_shape_of(cache, before), index + 1, done, over, within

            before = tree.map_structure(lambda x: tf.repeat(x, num_beams, axis=0), cache)
            nothing = tf.zeros_like(lengths, tf.bool)
            flags = tf.TensorShape([None])
            state, _, _, _, done, *_ = tf.while_loop(
                lambda state, texts, cache, index, done, over, within: tf.logical_not(tf.reduce_all(over)),
                body,
                (
                    beams.begin(batch, num_beams=num_beams, positions=self._longest, pad=self._pad),
                    tf.repeat(texts, num_beams, axis=0),
                    before,
                    start,
                    nothing,
                    nothing,
                    tf.repeat(choose.begun, num_beams),
                ),
                shape_invariants=(
                    beams.shapes(num_beams=num_beams, positions=self._longest),
                    tf.TensorShape([None, None]),
                    _shapes(before),
                    start.shape,
                    flags,
                    flags,
                    flags,
                ),
            )
            return beams.best(state, done=done, most=most, length_penalty=penalty)

        return cut(self._run(prompts, lengths, most, loop), most, end, self._pad)

    def _shown(self, logits: Any) -> Any:
        return tf.cast(logits, tf.float32)[..., : self._size]

    def _run(self, prompts: Any, lengths: Any, most: Any, loop: Callable[[Next, Any, Any, Any], Any]) -> Any:
        """Run `loop` in the sampler's place, with the texts, the cache and a position, and return its result."""
        is_prompt = tf.range(tf.shape(prompts)[1]) < lengths[:, None]
        room = [[0, 0], [0, most]]
        texts = tf.pad(tf.where(is_prompt, prompts, self._pad), room, constant_values=self._pad)
        causal_lm = self._model()

        def sampler(next: Next, prompt: Any, cache: Any, index: Any, **_: Any) -> Any:  # noqa: A002 - KerasHub's name
            return loop(next, prompt, cache, tf.cast(index, tf.int32))

        causal_lm.sampler = sampler
        return causal_lm.generate_step({"token_ids": texts, "padding_mask": tf.pad(is_prompt, room)})["token_ids"]


def _write_mask(length: Any, index: Any, waits: Any) -> Any:
    """Return where a token is written: bool `(rows, length)`, one place in each row that doesn't wait."""
    return tf.logical_and(tf.equal(tf.range(length), index), tf.logical_not(waits)[:, None])


def _with_shape_of(cache: Any, before: Any) -> Any:
    """Return the cache with the static shape that it had when the loop began."""
    return tree.map_structure(lambda new, old: tf.ensure_shape(new, old.shape), cache, before)


def _shapes(cache: Any) -> Any:
    return tree.map_structure(lambda x: x.shape, cache)
