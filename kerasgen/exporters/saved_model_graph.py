"""A decoder and its decoding loops as TensorFlow functions: what a SavedModel holds. Stateless, for any batch.

The cache of a text has two parts. The prompts lie in the first, right-padded and masked; new tokens are appended to the
second, so that a step copies few positions and not the whole cache. In sampling the second part is laid to the first
after so many steps; in beam search the first is shared by a prompt's beams, and only the second follows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from kerasgen.exporters import saved_model_steps as compiled_steps
from kerasgen.exporters import tensorflow_decoder as decoder
from kerasgen.exporters import tensorflow_namespace as xp
from kerasgen.models.families.base import DecoderLayer, DecoderShape, DecoderWeights, map_weights
from kerasgen.samplers import arithmetic, beams, randomness

_BLOCK = 64  # steps after which the second part of the cache is laid to the first


class Choice(NamedTuple):
    """How tokens are chosen.

    Args:
        pick: `(logits, numbers)`, float `(batch, vocabulary_size)` and `(batch,)`, to ids `(batch,)`.
        numbers: int32 steps to a number in [0, 1) for each row and step: `()` or `(batch,)` to `(batch,)`, and `(n, 1)`
            to `(n, batch)`.
    """

    pick: compiled_steps.Pick
    numbers: Callable[[Any], Any]

    def __call__(self, logits: Any, step: Any) -> Any:
        """Return ids `(batch,)`, one for each row of the logits, at a step."""
        return self.pick(logits, self.numbers(step))


class Cache(NamedTuple):
    """Keys and values, one tensor `(rows, num_heads, length, head_dim)` for each block.

    Args:
        keys: of each block.
        values: of each block.
    """

    keys: tuple[Any, ...]
    values: tuple[Any, ...]


class Generated(NamedTuple):
    """What a loop returns.

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
    ends = tf.equal(ids, end)
    ended = tf.reduce_any(ends, axis=1)
    count = tf.where(ended, tf.argmax(ends, axis=1, output_type=tf.int32) + 1, most)
    return Generated(tf.where(tf.range(most) < count[:, None], ids, pad), count, ended)


class DecoderGraph(tf.Module):  # type: ignore[misc]
    """A decoder's weights and the loops over it.

    Args:
        weights: as NumPy arrays.
        shape: of the decoder.
        dtype: that the weights are kept in; it is computed in float32.
        pad_token_id: what fills ids past a text's end.
        compiled: whether XLA compiles the steps of `sample` where the graph runs.
    """

    def __init__(
        self, weights: DecoderWeights, shape: DecoderShape, *, dtype: str, pad_token_id: int, compiled: bool
    ) -> None:
        super().__init__()
        self._shape = shape
        self._pad = pad_token_id
        self._dtype = dtype
        self._compiled = compiled
        turned = weights._replace(layers=tuple(map(_turned, weights.layers)))
        self._kept = map_weights(lambda array: tf.Variable(array, trainable=False, dtype=dtype), turned)

    def logits(self, token_ids: Any) -> Any:
        """Return the logits after each token: int32 `(batch, length)` to `(batch, length, vocabulary_size)`."""
        weights = self._weights()
        hidden, _ = self._read(weights, token_ids)
        return decoder.logits(weights, hidden)

    def sample(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: Choice) -> Generated:
        """Return what is generated token by token.

        Args:
            prompts: int32 `(batch, length)`, right-padded, the start token with them.
            lengths: int32 `(batch,)`, of the prompts.
            most: int32 scalar, tokens generated for each at most; at least 1.
            end: int32 scalar, the id that ends a text.
            choose: the sampler.
        """
        if self._compiled:
            return self._sample_compiled(prompts, lengths, most, end, choose)
        weights = self._weights()
        old, mask, logits = self._prefill(weights, prompts, lengths)
        token = choose(logits, tf.constant(0))
        done = tf.equal(token, end)

        def goes_on(step: Any, done: Any) -> Any:
            return tf.logical_and(step < most, tf.logical_not(tf.reduce_all(done)))

        def advance(
            step: Any, ids: Any, done: Any, count: Any, recent: Cache, old: Cache, mask: Any
        ) -> tuple[Any, Any, Any, Any, Cache]:
            logits, recent = self._advance(weights, ids[:, -1], lengths + step - 1, old, mask, recent, 1)
            token = tf.where(done, self._pad, choose(logits, step))
            count = count + tf.cast(tf.logical_not(done), tf.int32)
            ids = tf.concat([ids, token[:, None]], axis=1)
            return step + 1, ids, tf.logical_or(done, tf.equal(token, end)), count, recent

        def block(step: Any, ids: Any, done: Any, count: Any, old: Cache, mask: Any) -> tuple[Any, ...]:
            until = step + _BLOCK
            state = (step, ids, done, count, self._empty(tf.shape(ids)[0]))
            step, ids, done, count, recent = tf.while_loop(
                lambda step, ids, done, count, recent: tf.logical_and(step < until, goes_on(step, done)),
                lambda step, ids, done, count, recent: advance(step, ids, done, count, recent, old, mask),
                state,
                shape_invariants=(*_INVARIANTS, self._any_length()),
            )
            old = Cache(*(tuple(map(_after, *parts)) for parts in zip(old, recent, strict=True)))
            mask = tf.concat([mask, tf.ones((tf.shape(mask)[0], tf.shape(recent.keys[0])[2]), tf.bool)], axis=1)
            return step, ids, done, count, old, mask

        _, ids, done, count, _, _ = tf.while_loop(
            lambda step, ids, done, count, old, mask: goes_on(step, done),
            block,
            (tf.constant(1), token[:, None], done, tf.ones_like(token), old, mask),
            shape_invariants=(*_INVARIANTS, self._any_length(), tf.TensorShape([None, None])),
        )
        return Generated(ids, count, done)

    def search(
        self,
        prompts: Any,
        lengths: Any,
        most: Any,
        end: Any,
        *,
        num_beams: int,
        length_penalty: float,
        temperature: Any,
    ) -> Generated:
        """Return the best text of each prompt by beam search; see `sample` and `kerasgen.samplers.Beam`."""
        weights = self._weights()
        old, mask, logits = self._prefill(weights, prompts, lengths)
        batch = tf.shape(prompts)[0]
        positions = self._shape.max_sequence_length
        limits = tf.fill((batch,), most)

        def candidates(logits: Any) -> tuple[Any, Any]:
            nats = arithmetic.log_softmax(xp, logits / temperature)
            # Of one text no more can be among the best than these.
            nats, ids = arithmetic.top(xp, nats, min(2 * num_beams, self._shape.vocabulary_size))
            shape = (-1, num_beams, nats.shape[-1])
            return tf.reshape(tf.cast(nats, tf.float64), shape), tf.reshape(ids, shape)

        def step(
            generated: Any, state: beams.Beams, done: Any, nats: Any, ids: Any
        ) -> tuple[beams.Beams, Any, Any, Any]:
            counts = tf.fill((batch,), generated)
            active = tf.logical_not(done)
            after, parents = beams.step(
                xp,
                state,
                nats,
                active=active,
                index=generated - 1,
                generated=counts,
                stop_token_ids=(end,),
                length_penalty=length_penalty,
                candidate_ids=ids,
            )
            ended = beams.is_done(
                xp,
                after,
                generated=counts,
                most=limits,
                length_penalty=length_penalty,
                num_return_sequences=1,
                early_stopping=False,
            )
            chosen = tf.gather(after.token_ids, generated - 1, axis=2)
            return after, parents, tf.reshape(chosen, (-1,)), tf.logical_or(done, tf.logical_and(active, ended))

        def body(generated: Any, state: beams.Beams, done: Any, token: Any, recent: Cache) -> tuple[Any, ...]:
            place = tf.repeat(lengths, num_beams) + generated - 1
            logits, recent = self._advance(weights, token, place, old, mask, recent, num_beams)
            state, parents, token, done = step(generated + 1, state, done, *candidates(logits))
            rows = tf.reshape(parents + tf.range(batch)[:, None] * num_beams, (-1,))
            recent = tf.nest.map_structure(lambda x: tf.gather(x, rows), recent)
            return generated + 1, state, done, token, recent

        zeros = tf.ensure_shape(tf.zeros((batch, num_beams), tf.float64), (None, num_beams))
        empty = tf.ensure_shape(tf.fill((batch, positions), self._pad), (None, positions))
        nothing = tf.fill((batch,), False)
        first = candidates(tf.repeat(logits, num_beams, axis=0))
        state, _, token, done = step(tf.constant(1), beams.begin(xp, empty, zeros), nothing, *first)
        texts, scores = tf.TensorShape([None, num_beams, positions]), tf.TensorShape([None, num_beams])
        _, state, done, _, _ = tf.while_loop(
            lambda generated, state, done, token, recent: tf.logical_and(
                generated < most, tf.logical_not(tf.reduce_all(done))
            ),
            body,
            (tf.constant(1), state, done, token, self._empty(batch * num_beams)),
            shape_invariants=(
                tf.TensorShape([]),
                beams.Beams(texts, scores, texts, scores),
                tf.TensorShape([None]),
                tf.TensorShape([None]),
                self._any_length(),
            ),
        )
        # What isn't done has run to the limit.
        state = beams.finish(xp, state, cut=tf.logical_not(done), generated=limits, length_penalty=length_penalty)
        return cut(state.finished_ids[:, 0, :most], most, end, self._pad)

    def _sample_compiled(self, prompts: Any, lengths: Any, most: Any, end: Any, choose: Choice) -> Generated:
        weights = self._weights()
        prompts = prompts[:, : tf.reduce_max(lengths)]
        old, mask, logits = self._prefill(weights, prompts, lengths)
        token = choose(logits, tf.constant(0))
        batch, prompt = tf.shape(prompts)[0], tf.shape(prompts)[1]
        rows = compiled_steps.rows_for(batch)
        more = [0, rows - batch]
        fixed = compiled_steps.Fixed(tf.pad(lengths, [more]), tf.pad(mask, [more, [0, 0]]), end, tf.constant(self._pad))

        @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
        def advance(texts: Any, until: Any, numbers: Any) -> Any:
            # A variable that is read in here is not copied; what is to be cast was cast outside, once.
            own = self._weights() if self._dtype == "float32" else weights
            return compiled_steps.advance(own, self._shape, texts, until, numbers, fixed, choose.pick)

        def block(texts: Any, ids: Any) -> tuple[Any, Any]:
            first = texts.step
            until = tf.minimum(first + compiled_steps.STEPS, most)
            length = compiled_steps.length_for(prompt + until - 1, self._shape.max_sequence_length)
            texts = texts._replace(cache=texts.cache.padded(rows=rows, length=length))
            numbers = choose.numbers(first + tf.range(compiled_steps.STEPS)[:, None])
            texts, new = advance(texts, until, tf.pad(numbers, [[0, 0], more]))
            return texts, tf.concat([ids, new[:batch, : texts.step - first]], axis=1)

        cache = compiled_steps.Columns(tuple(map(tf.linalg.matrix_transpose, old.keys)), old.values)
        done = tf.pad(tf.equal(token, end), [more], constant_values=True)
        texts = compiled_steps.Texts(tf.constant(1), tf.pad(token, [more]), done, cache)
        heads, size = self._shape.num_heads, self._shape.head_dim
        shapes = compiled_steps.Columns(
            (tf.TensorShape([None, heads, size, None]),) * self._shape.num_layers,
            (tf.TensorShape([None, heads, None, size]),) * self._shape.num_layers,
        )
        row = tf.TensorShape([None])
        _, ids = tf.while_loop(
            lambda texts, ids: tf.logical_and(texts.step < most, tf.logical_not(tf.reduce_all(texts.done))),
            block,
            (texts, token[:, None]),
            shape_invariants=(
                compiled_steps.Texts(tf.TensorShape([]), row, row, shapes),
                tf.TensorShape([None, None]),
            ),
        )
        return cut(ids, tf.shape(ids)[1], end, self._pad)

    def _weights(self) -> DecoderWeights:
        return map_weights(lambda variable: tf.cast(tf.convert_to_tensor(variable), tf.float32), self._kept)

    def _prefill(self, weights: DecoderWeights, prompts: Any, lengths: Any) -> tuple[Cache, Any, Any]:
        """The cache of the prompts, which of its positions count, and the logits after each prompt."""
        hidden, cache = self._read(weights, prompts)
        last = tf.gather(hidden, lengths - 1, batch_dims=1)
        mask = tf.range(tf.shape(prompts)[1]) < lengths[:, None]
        return cache, mask, _multiply(last, weights.token_embedding)

    def _read(self, weights: DecoderWeights, token_ids: Any) -> tuple[Any, Cache]:
        length = tf.shape(token_ids)[1]
        places = tf.range(length)
        future = tf.where(places[:, None] < places, _LOWEST, 0.0)
        keys: list[Any] = []
        values: list[Any] = []

        def attend(index: int, q: Any, k: Any, v: Any) -> Any:
            keys.append(k)
            values.append(v)
            return tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) + future), v)

        hidden = decoder.hidden_states(weights, self._shape, token_ids, places, attend, multiply=_multiply)
        return hidden, Cache(tuple(keys), tuple(values))

    def _advance(
        self, weights: DecoderWeights, token: Any, places: Any, old: Cache, mask: Any, recent: Cache, width: int
    ) -> tuple[Any, Cache]:
        """The logits after one more token of each row, and the second part of the cache with it.

        Args:
            weights: of the decoder.
            token: int32 `(batch * width,)`.
            places: int32 like `token`, the position of each.
            old: the first part, of `batch` rows.
            mask: bool `(batch, length of old)`.
            recent: the second part, of `batch * width` rows.
            width: rows that share one of the first part.
        """
        heads, size = self._shape.num_heads, self._shape.head_dim
        hidden_before = tf.where(mask, 0.0, _LOWEST)[:, None, None]
        length = tf.shape(mask)[1]
        keys: list[Any] = []
        values: list[Any] = []

        def attend(index: int, q: Any, k: Any, v: Any) -> Any:
            keys.append(tf.concat([recent.keys[index], k], axis=2))
            values.append(tf.concat([recent.values[index], v], axis=2))
            of_old = tf.matmul(_by_prompt(q, heads, width), old.keys[index], transpose_b=True) + hidden_before
            of_recent = _by_prompt(tf.matmul(q, keys[-1], transpose_b=True), heads, width)
            likely = tf.nn.softmax(tf.concat([of_old, of_recent], axis=-1))
            from_old = _by_row(tf.matmul(likely[..., :length], old.values[index]), heads, width)
            return from_old + tf.matmul(_by_row(likely[..., length:], heads, width), values[-1])

        hidden = decoder.hidden_states(
            weights, self._shape, token[:, None], places[:, None], attend, multiply=_multiply
        )
        logits = _multiply(tf.reshape(hidden, (-1, heads * size)), weights.token_embedding)
        return logits, Cache(tuple(keys), tuple(values))

    def _empty(self, rows: Any) -> Cache:
        nothing = tf.zeros((rows, self._shape.num_heads, 0, self._shape.head_dim))
        return Cache(*((nothing,) * self._shape.num_layers for _ in range(2)))

    def _any_length(self) -> Cache:
        one = tf.TensorShape([None, self._shape.num_heads, None, self._shape.head_dim])
        return Cache(*((one,) * self._shape.num_layers for _ in range(2)))


_LOWEST = -1e30  # far below any score, and no infinity that could become NaN
_INVARIANTS = (tf.TensorShape([]), tf.TensorShape([None, None]), tf.TensorShape([None]), tf.TensorShape([None]))


def _turned(layer: DecoderLayer) -> DecoderLayer:
    """The layer with kernels `(out, in)`, which are read in the order of memory when rows are few."""
    return DecoderLayer(*(array.T if array.ndim == 2 else array for array in layer))


def _multiply(x: Any, kernel: Any) -> Any:
    """The product `(…, in)` by `(out, in)`, `(…, out)`, with the kernel first, which is faster (see the log)."""
    columns = tf.transpose(tf.reshape(x, (-1, x.shape[-1])))
    out = tf.transpose(tf.matmul(kernel, columns))
    return tf.reshape(out, tf.concat([tf.shape(x)[:-1], [kernel.shape[0]]], 0))


def _after(one: Any, other: Any) -> Any:
    return tf.concat([one, other], axis=2)


def _by_prompt(x: Any, heads: int, width: int) -> Any:
    """`(batch * width, heads, 1, n)` to `(batch, heads, width, n)`."""
    if width == 1:
        return x
    return tf.transpose(tf.reshape(x, (-1, width, heads, tf.shape(x)[-1])), (0, 2, 1, 3))


def _by_row(x: Any, heads: int, width: int) -> Any:
    """`(batch, heads, width, n)` to `(batch * width, heads, 1, n)`."""
    if width == 1:
        return x
    return tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (-1, heads, 1, tf.shape(x)[-1]))


def keys(prompts: Any, lengths: Any, seed: Any) -> tuple[Any, Any]:
    """Return each prompt's key of random numbers, as the library's own generation has it.

    Args:
        prompts: int32 `(batch, length)`, the start token with them.
        lengths: int32 `(batch,)`.
        seed: int64 scalar, the bits of a seed of 64 bits.
    """
    counted = tf.range(tf.shape(prompts)[1]) < lengths[:, None]
    ids = tf.where(counted, prompts, -1)
    same = tf.reduce_all(tf.equal(ids[None], ids[:, None]), axis=-1)
    row = tf.range(tf.shape(prompts)[0])
    repeat = tf.reduce_sum(tf.cast(tf.logical_and(same, row < row[:, None]), tf.int32), axis=-1)
    words = [
        tf.cast(tf.bitwise.bitwise_and(word, tf.constant(0xFFFFFFFF, tf.int64)), tf.uint32)[None, None]
        for word in (seed, tf.bitwise.right_shift(seed, tf.constant(32, tf.int64)))
    ]
    token_ids = tf.cast(tf.where(counted, prompts, 0), tf.uint32)
    return randomness.prompt_key(xp, (words[0], words[1]), token_ids, counted, tf.cast(repeat, tf.uint32))
