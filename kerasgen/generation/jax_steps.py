"""Builds the graphs that choose tokens: one step from given logits, or many steps with forward passes. Imports JAX."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kerasgen.decoder.jax import JaxDecoder
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation.jax_namespace import XP
from kerasgen.samplers import arithmetic, inputs, randomness
from kerasgen.samplers.base import TokenSampler
from kerasgen.tokens.base import Tokenizer

MOST_STEPS = 8
ACCELERATOR_STEPS = 64
"""The same where the host is apart from what computes: each call and each answer costs as much as some steps."""
_TYPES = {int: np.int32, float: np.float32}


class Fixed(NamedTuple):
    """Inputs that a graph of steps reads and doesn't change.

    Args:
        weights: the decoder's.
        prompt: the prompts' cache.
        valid: bool `(prompts, length)`, which of its places hold a token.
        shared: the sampler's numbers, of `inputs_of`.
    """

    weights: Any
    prompt: Cache
    valid: Any
    shared: dict[str, Any]

    def step(self, decoder: JaxDecoder, token_ids: Any, places: Any, generated: Cache, slot: Any) -> tuple[Any, Cache]:
        """Return the logits after these tokens and the generated cache; see `JaxDecoder.step`."""
        logits, _, generated = decoder.step(
            self.weights, token_ids, places, self.prompt, self.valid, generated, slot, None
        )
        return logits, generated


class Held(NamedTuple):
    """State that a graph of steps takes and returns changed.

    Args:
        generated: the cache of generated tokens.
        seen: bool `(slots, vocabulary_size)`, which tokens each text holds; None for a sampler without a penalty.
    """

    generated: Cache
    seen: Any


def inputs_of(spec: TokenSampler) -> dict[str, Any]:
    """Return a sampler's numbers as inputs of a graph."""
    own = {name: np.asarray(value, _TYPES[type(value)]) for name, value in inputs.values(spec).items()}
    return {"temperature": np.float32(spec.temperature), "penalty": np.float32(spec.repetition_penalty), "own": own}


def most_steps() -> int:
    """Return how many steps a call takes on this device."""
    return MOST_STEPS if jax.default_backend() == "cpu" else ACCELERATOR_STEPS


def numbers_of(keys: Any, drawn: Any, count: int = MOST_STEPS) -> Any:
    """Return the next `count` random numbers of each slot, float32 `(count, slots)`.

    The host draws them: twenty rounds of a generator in the graph took XLA ten seconds to compile (see the log).
    """
    places = (np.arange(count, dtype=np.uint32)[:, None] + drawn.astype(np.uint32)).reshape(-1)
    all_keys = np.tile(keys, (count, 1))
    numbers = randomness.uniforms(np, (all_keys[:, 0], all_keys[:, 1]), places)
    return numbers.reshape(count, -1)


def is_known(spec: Any) -> bool:
    """Return whether a sampler's choice can be compiled: it says which of its settings are inputs of it."""
    return inputs.are_declared(type(spec))


def are_finite(logits: Any) -> Any:
    """Return which rows have neither NaN nor +inf."""
    return jnp.max(logits, axis=-1) < jnp.inf


def penalizes(spec: TokenSampler) -> bool:
    """Return whether a sampler's choice depends on which tokens a text holds."""
    return spec.repetition_penalty != 1


def penalized(logits: Any, seen: Any, shared: dict[str, Any]) -> Any:
    """Return logits after a sampler's penalty for what is `seen`; None changes nothing."""
    return logits if seen is None else arithmetic.penalize(XP, logits, seen, shared["penalty"])


_NUMBERS = itertools.count()
_KNOWN: weakref.WeakKeyDictionary[type[TokenSampler], int] = weakref.WeakKeyDictionary()


def _number_of(kind: type[TokenSampler]) -> int:
    """Return a number of a class that no other has, such as one of its name that a notebook's cell defines again."""
    return _KNOWN.setdefault(kind, next(_NUMBERS))


def choosing(spec: TokenSampler, tokenizer: Tokenizer, *, logprobs: bool = True) -> tuple[str, Callable[..., Any]]:
    """Return a name, and the function that chooses from logits.

    It takes float32 logits `(slots, vocabulary_size)`, which tokens each text holds (None without a penalty), a random
    number for each, the inputs, and which tokens may be chosen if not all; or instead `Utf8Masks.steps` and each text's
    state, int32. It returns tokens, log-probabilities, whether the logits were finite, which tokens are held then, and
    the states then.

    Args:
        spec: the sampler.
        tokenizer: the tokenizer of the ids.
        logprobs: whether log-probabilities are wanted, which take as long as a greedy choice; NaN if not.
    """
    kind = type(spec)
    frame_ids = [token for token in (tokenizer.start_token_id, *tokenizer.end_token_ids) if token is not None]

    def choose(
        logits: Any, seen: Any, uniforms: Any, shared: dict[str, Any], allowed: Any = None, utf8: Any = None
    ) -> Any:
        masked = penalized(logits, seen, shared)
        if inputs.has_temperature(kind):
            masked = masked / shared["temperature"]
        if allowed is not None:
            masked = jnp.where(allowed, masked, -jnp.inf)
        if utf8 is not None:
            after = utf8[0][utf8[1]]
            masked = jnp.where(after >= 0, masked, -jnp.inf)
        token = inputs.choose(kind, shared["own"], XP, masked, uniforms).astype(jnp.int32)
        row = jnp.arange(logits.shape[0])
        if seen is not None:
            is_frame = jnp.isin(token, jnp.asarray(frame_ids, jnp.int32))
            seen = seen.at[row, token].set(seen[row, token] | ~is_frame)
        state = None if utf8 is None else jnp.maximum(after[row, token].astype(jnp.int32), 0)
        if not logprobs:
            # A maximum may leave out NaN, and a count leaves nothing out.
            good = XP.sum(jnp.where(logits < jnp.inf, 0, 1), axis=-1) == 0
            return token, jnp.full(token.shape, jnp.nan, jnp.float32), good, seen, state
        # Of a row of -inf alone the maximum is no number to take from the others.
        highest = XP.max(logits, axis=-1)
        highest = jnp.where(highest == -jnp.inf, 0.0, highest)
        total = jnp.log(XP.sum(jnp.exp(logits - highest[:, None]), axis=-1)) + highest
        # The sum tells NaN, which the maximum may leave out; +inf less itself is NaN too.
        good = total == total
        return token, logits[row, token] - total, good, seen, state

    further = ("" if penalizes(spec) else " without penalty") + ("" if logprobs else " without logprobs")
    return f"choose {kind.__qualname__} {_number_of(kind)}{further}", choose


def stepping(
    spec: TokenSampler, decoder: JaxDecoder, tokenizer: Tokenizer, *, logprobs: bool = True
) -> tuple[str, Callable[..., Any]]:
    """Return a name, and the function that reads and chooses as often as it has random numbers, or until all ended."""
    name, choose = choosing(spec, tokenizer, logprobs=logprobs)
    ends = jnp.asarray(tokenizer.end_token_ids, jnp.int32)

    def steps(fixed: Fixed, held: Held, pending: Any, numbers: Any, utf8: Any = None) -> Any:
        slot, wanted, places, uniforms, remaining = numbers
        slots, most = pending.shape[0], uniforms.shape[0]

        def goes_on(state: Any) -> Any:
            return (state[0] < wanted) & jnp.any(state[2])

        def one(state: Any) -> Any:
            count, pending, alive, held, block, within = state
            logits, generated = fixed.step(decoder, pending, places + count, held.generated, slot + count)
            whole = None if utf8 is None else (utf8[0], within)
            token, logprobs, good, seen, within = choose(logits, held.seen, uniforms[count], fixed.shared, utf8=whole)
            block = tuple(
                jax.lax.dynamic_update_index_in_dim(whole, new, count, 0)
                for whole, new in zip(block, (token, logprobs, good), strict=True)
            )
            alive = alive & ~jnp.isin(token, ends) & (count + 1 < remaining)
            return count + 1, token, alive, Held(generated, seen), block, within

        block = (
            jnp.zeros((most, slots), jnp.int32),
            jnp.zeros((most, slots), jnp.float32),
            jnp.ones((most, slots), bool),
        )
        within = None if utf8 is None else utf8[1]
        begun = (jnp.int32(0), pending, (remaining > 0) & ~jnp.isin(pending, ends), held, block, within)
        count, pending, _, held, block, within = jax.lax.while_loop(goes_on, one, begun)
        return (*block, count, held, pending, within)

    return f"steps {name}", steps


def rows(array: Any, taken: Any) -> Any:
    """Return these rows of one array."""
    return array[taken]


def take(state: Any, taken: Any) -> Any:
    """Return these rows of every array."""
    return jax.tree.map(lambda array: jnp.asarray(array)[taken], state)


def beginning(shapes: tuple[tuple[int, ...], tuple[int, ...]], layers: int) -> Callable[[], Cache]:
    """Return the function that makes an empty cache of these shapes of keys and of values, arrays of each layer."""

    def begin() -> Cache:
        keys, values = (tuple(jnp.zeros(shape, jnp.float32) for _ in range(layers)) for shape in shapes)
        return Cache(keys, values)

    return begin


def growing(length: int) -> Callable[[Cache], Cache]:
    """Return the function that makes a generated cache so long."""

    def grow(cache: Cache) -> Cache:
        extra = length - cache.keys[0].shape[-1]
        keys = tuple(jnp.pad(key, ((0, 0),) * 4 + ((0, extra),)) for key in cache.keys)
        values = tuple(jnp.pad(value, ((0, 0),) * 3 + ((0, extra), (0, 0))) for value in cache.values)
        return Cache(keys, values)

    return grow


def merge(cache: Cache, prompts: Any, ancestors: Any) -> Cache:
    """Return a generated cache of one slot a text.

    Args:
        cache: the cache of several slots a prompt.
        prompts: int32 `(texts,)`, whose each text is.
        ancestors: int32 `(texts, length)`, in which slot its token of each place lies.
    """
    keys = tuple(jnp.take_along_axis(key[prompts], ancestors[:, None, None, None, :], axis=3) for key in cache.keys)
    values = tuple(
        jnp.take_along_axis(value[prompts], ancestors[:, None, None, :, None], axis=2) for value in cache.values
    )
    return Cache(keys, values)
