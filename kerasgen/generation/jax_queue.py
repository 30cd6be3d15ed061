"""Decodes many short prompts: a text takes the slot of one that ended, inside the graph of the steps. Imports JAX.

A text's prompt is read token by token in the steps that decode the other slots' texts, so no step waits for a reading,
and no slot for the longest text of a batch. Each slot's tokens lie in a ring, which all slots write at one column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.decoder.jax import JaxDecoder
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation import jax_steps
from kerasgen.generation.batches import Batch
from kerasgen.generation.engine import Block, not_finite
from kerasgen.samplers import inputs, randomness
from kerasgen.samplers.base import TokenSampler
from kerasgen.tokens.base import Tokenizer

if TYPE_CHECKING:
    from kerasgen.generation.jax_engine import JaxEngine

LONGEST_PROMPT = 8
"""Tokens of a prompt that is read in steps: so short ones fill half of the columns of the chunks they are read in."""
LEAST_TURNS = 4
"""Texts for each slot from which a queue pays: its last texts decode beside empty slots."""
_STEPS = 32  # of a call
_WINDOW = 64  # texts that may begin in a call
_FIRST_COLUMNS, _WHOLE = 64, 16


class Waiting(NamedTuple):
    """Texts that begin when a slot is free, in this order.

    Args:
        prompts: int32 `(texts, LONGEST_PROMPT)`.
        lengths: int32 `(texts,)`, of the prompts.
        limits: int32 `(texts,)`, tokens that each may have in all.
        numbers: float32 `(texts, new tokens)`, its random numbers; of one column for a sampler that draws none.
        states: int32 `(texts,)`, UTF-8 states after the prompts.
        names: int32 `(texts,)`, the number of each text.
    """

    prompts: Any
    lengths: Any
    limits: Any
    numbers: Any
    states: Any
    names: Any


class Slots(NamedTuple):
    """Texts that are decoded.

    Args:
        texts: what `Waiting` held of each slot's.
        tokens: int32 `(slots,)`, the token of each that is read next.
        places: int32 `(slots,)`, where it stands in the text.
        alive: bool `(slots,)`; a slot without a text reads on what nobody asks for.
    """

    texts: Waiting
    tokens: Any
    places: Any
    alive: Any


def run(
    engine: JaxEngine, batch: Batch, spec: TokenSampler, utf8: Utf8Masks | None, count: int, *, logprobs: bool
) -> Iterator[tuple[int, Block]]:
    """Yield each text's row in the batch and its new tokens, a block of one row, as texts end.

    Args:
        engine: whose weights and compiled functions decode.
        batch: all texts; their prompts are short.
        spec: how to choose; without a penalty.
        utf8: what keeps the texts valid UTF-8, or None.
        count: slots.
        logprobs: whether log-probabilities are wanted; without, they are NaN.

    Raises:
        GenerationError: the logits are not finite.
    """
    total, most_read = len(batch.prompts), int(batch.limits.max()) - 1
    name, function = _steps(spec, engine.decoder, engine.tokenizer, logprobs=logprobs)
    options, suffix = engine.options_of_steps(count)
    whole = None if utf8 is None else engine.utf8_steps(utf8)
    fixed = engine.weights_for(count), jax_steps.inputs_of(spec), whole
    name = f"{name}{'' if utf8 is None else ' of whole characters'}{suffix}"
    columns = -(-min(most_read, _FIRST_COLUMNS) // _WHOLE) * _WHOLE
    ring, written = _ring(engine, count, columns), 0
    slots = _empty(batch, spec, count)
    parts: dict[int, list[tuple[Any, Any]]] = {}
    begun = 0
    while True:
        furthest = int(np.asarray(slots.places).max(where=np.asarray(slots.alive), initial=0))
        needed = min(furthest + _STEPS, most_read)
        if needed > columns:
            longer = min(max(needed, 2 * columns), most_read)
            longer = -(-longer // _WHOLE) * _WHOLE
            ring = engine.call(f"ring of {longer}", _growing(longer), ring, np.int32(written % columns))
            written, columns = columns, longer
        window = min(_WINDOW, total - begun)
        waiting = _waiting(batch, spec, utf8, begun, window)
        numbers = np.int32(window), np.bool_(begun + window < total), np.int32(written)
        *block, taken, began, slots, ring = engine.call(
            name, function, fixed, waiting, slots, ring, numbers, donate=(3,), options=options
        )
        names, tokens, own, good = (np.asarray(array)[: int(taken)] for array in block)
        if not good.all():
            raise not_finite()
        for slot in range(count):
            _collect(parts, names[:, slot], tokens[:, slot], own[:, slot])
        begun, written = begun + int(began), written + int(taken)
        alive = np.asarray(slots.alive)
        going_on = set(np.asarray(slots.texts.names)[alive].tolist())
        for text in [text for text in parts if text not in going_on]:
            token_ids, own = (np.concatenate(arrays)[:, None] for arrays in zip(*parts.pop(text), strict=True))
            yield text, Block(token_ids, own, len(token_ids))
        if begun == total and not going_on:
            return


def _collect(parts: dict[int, list[tuple[Any, Any]]], names: Any, tokens: Any, own: Any) -> None:
    """Add what one slot wrote to its texts."""
    chosen = np.flatnonzero(names >= 0)
    names = names[chosen]
    edges = [0, *(np.flatnonzero(np.diff(names)) + 1).tolist(), len(names)]
    for first, end in pairwise(edges):
        if first < end:
            mine = chosen[first:end]
            parts.setdefault(int(names[first]), []).append((tokens[mine], own[mine]))


def _ring(engine: JaxEngine, count: int, columns: int) -> Cache:
    attention = engine.decoder.config.attention
    heads, size = attention.num_key_value_heads, attention.head_dim
    shapes = (count, heads, size, 1, columns), (count, heads, 1, columns, size)
    ring: Cache = engine.call(f"begin {shapes}", jax_steps.beginning(shapes, engine.decoder.config.num_layers))
    return ring


def _growing(columns: int) -> Callable[[Cache, Any], Cache]:
    """Return the function that makes a ring so long; its oldest column, which is written next, comes first then."""

    def grow(ring: Cache, oldest: Any) -> Cache:
        def turned(array: Any, axis: int) -> Any:
            beside = [(0, 0)] * array.ndim
            beside[axis] = (0, columns - array.shape[axis])
            return jnp.pad(jnp.roll(array, -oldest, axis), beside)

        return Cache(tuple(turned(key, 4) for key in ring.keys), tuple(turned(value, 3) for value in ring.values))

    return grow


def _waiting(batch: Batch, spec: TokenSampler, utf8: Utf8Masks | None, first: int, count: int) -> Waiting:
    """Return the texts from one on, as many as a window has; those beyond `count` are empty."""
    rows = range(first, first + count)
    prompts = np.zeros((_WINDOW, LONGEST_PROMPT), np.int32)
    one_each = np.zeros((4, _WINDOW), np.int32)
    for n, row in enumerate(rows):
        prompt = batch.prompts[row]
        prompts[n, : len(prompt)] = prompt
        one_each[:, n] = len(prompt), batch.limits[row], 0 if utf8 is None else utf8.state_after(prompt), row
    numbers = np.zeros((_WINDOW, _new_tokens(batch, spec)), np.float32)
    if spec.draws and count:
        keys, width = batch.keys[first : first + count].repeat(numbers.shape[1], axis=0), numbers.shape[1]
        places = np.tile(np.arange(width, dtype=np.uint32), count)
        numbers[:count] = randomness.uniforms(np, (keys[:, 0], keys[:, 1]), places).reshape(count, width)
    lengths, limits, states, names = one_each
    return Waiting(prompts, lengths, limits, numbers, states, names)


def _new_tokens(batch: Batch, spec: TokenSampler) -> int:
    """Return how many random numbers a text has, rounded up for fewer graphs."""
    most = int((batch.limits - batch.lengths).max())
    return -(-most // _WHOLE) * _WHOLE if spec.draws else 1


def _empty(batch: Batch, spec: TokenSampler, count: int) -> Slots:
    zeros = np.zeros(count, np.int32)
    prompts, numbers = (
        np.zeros((count, LONGEST_PROMPT), np.int32),
        np.zeros((count, _new_tokens(batch, spec)), np.float32),
    )
    return Slots(Waiting(prompts, zeros + 1, zeros, numbers, zeros, zeros), zeros, zeros, zeros.astype(bool))


def _join(slots: Slots, waiting: Waiting, next_text: Any, end: Any) -> tuple[Slots, Any]:
    """Let the next texts begin in the slots that are free."""
    free = ~slots.alive
    order = next_text + jnp.cumsum(free, dtype=jnp.int32) - 1
    takes = free & (order < end)
    order = jnp.clip(order, 0, _WINDOW - 1)

    def chosen(new: Any, old: Any) -> Any:
        return jnp.where(takes.reshape(-1, *[1] * (old.ndim - 1)), new[order], old)

    texts = Waiting(*map(chosen, waiting, slots.texts))
    tokens = jnp.where(takes, texts.prompts[:, 0], slots.tokens)
    places = jnp.where(takes, 0, slots.places)
    joined = Slots(texts, tokens, places, slots.alive | takes)
    return joined, next_text + jnp.sum(takes, dtype=jnp.int32)


def _steps(
    spec: TokenSampler, decoder: JaxDecoder, tokenizer: Tokenizer, *, logprobs: bool
) -> tuple[str, Callable[..., Any]]:
    """Return a name, and the function that takes steps until they are enough or its waiting texts all began."""
    name, choose = jax_steps.choosing(spec, tokenizer, logprobs=logprobs)
    return f"steps {name} of a queue", partial(_run_steps, decoder, tokenizer.end_token_ids, choose)


def _run_steps(
    decoder: JaxDecoder,
    end_token_ids: tuple[int, ...],
    choose: Callable[..., Any],
    fixed: Any,
    waiting: Waiting,
    slots: Slots,
    ring: Cache,
    numbers: Any,
) -> Any:
    weights, shared, utf8 = fixed
    end, is_more, written = numbers
    columns, count = ring.keys[0].shape[-1], slots.tokens.shape[0]
    ends = jnp.asarray(end_token_ids, jnp.int32)

    def goes_on(state: Any) -> Any:
        step, next_text, slots, *_ = state
        lacks = is_more & (next_text == end) & jnp.any(~slots.alive)
        return (step < _STEPS) & jnp.any(slots.alive) & ~lacks

    def one(state: Any) -> Any:
        step, next_text, slots, ring, block = state
        texts, row = slots.texts, jnp.arange(count)
        column = (written + step) % columns
        logits, _, ring = decoder.step(weights, slots.tokens, slots.places, None, None, ring, column, None)
        following = slots.places + 1
        drawn = jnp.clip(following - texts.lengths, 0, texts.numbers.shape[1] - 1)
        uniforms = texts.numbers[row, drawn]
        whole = None if utf8 is None else (utf8, texts.states)
        token, own, good, _, after = choose(logits, None, uniforms, shared, utf8=whole)
        chooses = slots.alive & (following >= texts.lengths)
        in_prompt = texts.prompts[row, jnp.minimum(following, LONGEST_PROMPT - 1)]
        token = jnp.where(following < texts.lengths, in_prompt, token)
        new = jnp.where(chooses, texts.names, -1), token, own, good | ~chooses
        block = tuple(
            jax.lax.dynamic_update_index_in_dim(whole, part, step, 0) for whole, part in zip(block, new, strict=True)
        )
        ended = chooses & (jnp.isin(token, ends) | (following + 1 >= texts.limits))
        if utf8 is not None:
            texts = texts._replace(states=jnp.where(chooses, after, texts.states))
        # What a slot without a text reads stays at its place, so that the ring is long enough for it too.
        places = jnp.where(slots.alive & ~ended, following, slots.places)
        slots = Slots(texts, token, places, slots.alive & ~ended)
        return step + 1, *_join(slots, waiting, next_text, end)[::-1], ring, block

    block = (
        jnp.full((_STEPS, count), -1, jnp.int32),
        jnp.zeros((_STEPS, count), jnp.int32),
        jnp.zeros((_STEPS, count), jnp.float32),
        jnp.ones((_STEPS, count), bool),
    )
    slots, next_text = _join(slots, waiting, jnp.int32(0), end)
    step, began, slots, ring, block = jax.lax.while_loop(goes_on, one, (jnp.int32(0), next_text, slots, ring, block))
    return *block, step, began, slots, ring


def takes(spec: Any) -> bool:
    """Return whether a queue chooses as this sampler does."""
    is_plain = inputs.are_declared(type(spec)) and not jax_steps.penalizes(spec)
    return is_plain and not spec.bad_words and not spec.no_repeat_ngram_size


def fits(batch: Batch, count: int) -> bool:
    """Return whether these texts are many and their prompts short enough."""
    return len(batch.prompts) >= LEAST_TURNS * count and int(batch.lengths.max()) <= LONGEST_PROMPT
