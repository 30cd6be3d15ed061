"""Decodes texts on the device: rows in slots, caches that grow by doubling, beams that share their prompt's cache.

Imports JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation import jax_chunks, jax_reading, jax_steps
from kerasgen.generation.engine import Block, not_finite
from kerasgen.generation.jax_namespace import XP
from kerasgen.generation.jax_prompts import Remembered
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers.base import TokenSampler

if TYPE_CHECKING:
    from kerasgen.generation.jax_engine import JaxEngine

_SHORTEST_GENERATED = 32
_PLACES = 128  # of all texts together, to begin with

Indices = npt.NDArray[np.integer[Any]]


def rounded(count: int, least: int = 1) -> int:
    """Return the size to compile for: a power of two, at least `least`."""
    size = least
    while size < count:
        size *= 2
    return size


def _replaced(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    return (*shape[:axis], size, *shape[axis + 1 :])


class JaxSession:
    """A batch of texts in `prompts * branches` slots; `branches` texts go on from each prompt.

    A row that leaves frees its slot, and when half of the slots are free the batch becomes half as large. Where beams
    are reordered no cache is copied: each text knows in which slot its token of each place lies.

    Args:
        engine: the engine whose weights and compiled functions to use.
        prompts: as in `Engine.open`.
        limits: as in `Engine.open`.
    """

    def __init__(self, engine: JaxEngine, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> None:
        self._engine = engine
        self._texts = [list(prompt) for prompt in prompts]
        distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        self._prompts, self._branches = rounded(len(distinct)), 1
        self._distinct = distinct
        self._logits, self._cache, self._reading = jax_reading.read(engine, distinct, self._prompts)
        self._valid: Any = jnp.asarray(self._reading.valid())
        self._hidden: Any = None
        self._generated: Cache | None = None
        self._written = 0
        self._most = max(limit - len(prompt) for limit, prompt in zip(limits, prompts, strict=True))
        self._ancestors: npt.NDArray[np.int32] = np.zeros((0, 0, 0), dtype=np.int32)
        self._seen: Any = None
        self._pending: Any = None
        place = {prompt: n for n, prompt in enumerate(distinct)}
        # The slot of each row, and that of its logits: beams continue without moving their logits.
        self._slots: Indices = np.array([place[tuple(prompt)] for prompt in prompts])
        self._rows = self._opened = self._slots
        if len(distinct) < len(prompts):
            self._gather(self._slots)

    def prompt_hidden(self) -> npt.NDArray[np.float32]:
        """Return the last hidden states of the prompts."""
        if not self._reading.is_whole:  # what was remembered has none: the prompts are read anew
            slots = len(self._reading.lengths)
            *_, self._reading = jax_reading.read(self._engine, self._distinct, slots, remembered=False)
        return np.asarray(self._reading.hidden()[self._opened])

    def hidden(self) -> npt.NDArray[np.float32]:
        """Return the last hidden state of each row's last token."""
        return np.asarray(self._hidden)[self._rows]

    def logits(self) -> npt.NDArray[np.float32]:
        """Return the logits of each row's next token."""
        return np.asarray(self._current())[self._rows]

    def append(self, token_ids: Indices) -> None:
        """Add one token to each row."""
        self._current()
        self._pending = self._placed(token_ids.astype(np.int32))
        for text, token_id in zip(self._texts, token_ids.tolist(), strict=True):
            text.append(token_id)
        self._logits = self._seen = None

    def select(self, rows: Indices) -> None:
        """Go on with these rows, in this order."""
        if len(rows) == len(self._slots) and (rows == np.arange(len(rows))).all():
            return
        taken = self._slots[rows]
        repeats = len(set(taken.tolist())) < len(taken)
        if self._branches > 1 or repeats:
            self._current()
        at = self._rows[rows]
        self._texts = [list(self._texts[row]) for row in rows.tolist()]
        if self._branches > 1:
            if not self._follow(taken):
                self._merge(taken)
        elif repeats:
            if not self._branch(taken):
                self._gather(taken)
        elif rounded(len(taken)) < self._prompts:
            self._gather(taken)
        else:
            self._slots = taken
        self._rows = at

    def candidates(
        self, count: int, temperature: float, utf8: Utf8States | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Return each row's `count` likeliest next tokens; see `CandidateSession`."""

        def ranked(logits: Any, temperature: Any, whole: Any = None) -> Any:
            logprobs = jax.nn.log_softmax(logits / temperature, axis=-1)
            if whole is not None:
                logprobs = jnp.where(whole[0][whole[1]] >= 0, logprobs, -jnp.inf)
            return (*XP.top_k(logprobs, count), jax_steps.are_finite(logits))

        logits, name = self._current(), f"candidates {count}"
        whole: tuple[Any, ...] = ()
        if utf8 is not None:
            states = np.zeros(len(logits), dtype=np.int32)
            states[self._rows] = utf8.states.reshape(-1)
            name, whole = f"{name} of whole characters", ((self._engine.utf8_steps(utf8.masks), states),)
        results = self._engine.call(name, ranked, logits, np.float32(temperature), *whole)
        logprobs, token_ids, finite = (np.asarray(array)[self._rows] for array in results)
        if not finite.all():
            raise not_finite()
        return logprobs, token_ids

    def can_run(self, spec: Any) -> bool:
        """Return whether `run` chooses as this sampler does."""
        return jax_steps.is_known(spec) and self._branches == 1 and not spec.bad_words and not spec.no_repeat_ngram_size

    @property
    def most_steps(self) -> int:
        """Steps that one call of the device takes."""
        return jax_steps.most_steps()

    def run(
        self,
        steps: int,
        spec: TokenSampler,
        keys: npt.NDArray[np.uint32],
        drawn: npt.NDArray[np.int64],
        remaining: npt.NDArray[np.int64],
        allowed: npt.NDArray[np.bool_] | None = None,
        utf8: Utf8States | None = None,
        *,
        logprobs: bool = True,
    ) -> Block:
        """Take up to `steps` steps; see `BlockSession.run`."""
        masks: tuple[Any, ...] = ()
        whole: tuple[Any, ...] = ()
        kind = ""
        if allowed is not None:
            self._current()
            mask = np.ones((self._prompts * self._branches, allowed.shape[1]), dtype=np.bool_)
            mask[self._slots] = allowed
            masks, kind = (mask,), " of the allowed"
        elif utf8 is not None:
            states = self._placed(utf8.states.astype(np.int32))
            whole, kind = ((self._engine.utf8_steps(utf8.masks), states),), " of whole characters"
        self._see(spec)
        shared, key_of = jax_steps.inputs_of(spec), self._placed(keys)
        drawn_at, room_at = self._placed(drawn), self._placed(remaining.astype(np.int32))
        first = self._placed(np.array([len(text) - 1 for text in self._texts], dtype=np.int32))
        blocks: list[tuple[Any, Any, Any]] = []
        taken = 0
        if self._logits is not None:  # after the prompt, and after a step that the host has seen
            logits = self._logits
            if not np.array_equal(self._rows, self._slots):
                logits = self._engine.call("rows", jax_steps.rows, logits, self._placed(self._rows.astype(np.int32)))
            uniforms = jax_steps.numbers_of(key_of, drawn_at)
            name, function = jax_steps.choosing(spec, self._engine.tokenizer, logprobs=logprobs)
            further = masks or ((None, *whole) if whole else ())
            token, own, good, self._seen, state = self._engine.call(
                f"{name}{kind}", function, logits, self._seen, uniforms[0], shared, *further
            )
            whole = ((whole[0][0], state),) if whole else ()
            blocks.append((np.asarray(token)[None], np.asarray(own)[None], np.asarray(good)[None]))
            self._pending, self._logits, taken = token, None, 1
        while taken < steps and self._goes_on(blocks, room_at - taken):
            wanted = min(steps - taken, self.most_steps)
            self._grow(wanted)
            tokenizer = self._engine.tokenizer
            name, function = jax_steps.stepping(spec, self._engine.decoder, tokenizer, logprobs=logprobs)
            uniforms = jax_steps.numbers_of(key_of, drawn_at + taken, self.most_steps)
            options, suffix = self._engine.options_of_steps(self._prompts)
            numbers = (np.int32(self._written), np.int32(wanted), first + taken, uniforms, room_at - taken)
            *block, count, held, self._pending, state = self._engine.call(
                f"{name}{kind}{suffix}",
                function,
                *self._inputs(shared, self._prompts * self._branches),
                jnp.asarray(self._pending),
                numbers,
                *whole,
                donate=(1,),
                options=options,
            )
            self._generated, self._seen = held
            whole = ((whole[0][0], state),) if whole else ()
            count = int(count)
            blocks.append(tuple(np.asarray(array)[:count] for array in block))  # type: ignore[arg-type]
            self._written += count
            taken += count
            if count < wanted:
                break
        token_ids, own, good = (np.concatenate(arrays)[:, self._slots] for arrays in zip(*blocks, strict=True))
        if not good.all():
            raise not_finite()
        for row, text in enumerate(self._texts):
            text.extend(token_ids[:, row].tolist())
        self._rows = self._slots
        return Block(token_ids, own, taken)

    def remember(self) -> None:
        """Keep what was read of the first row's text, so that one which begins alike is not read again."""
        self._engine.prompts.keep(self.remembered())

    def remembered(self) -> Remembered:
        """Return what was read of the first row's text."""
        if self._branches > 1:
            self._merge(self._slots)
        slot = int(self._slots[0])
        begun = int(np.asarray(self._valid)[slot].sum())
        places = jax_chunks.room(begun + self._written)

        def kept(read: Any, generated: Any, axis: int) -> Any:
            parts = [np.asarray(read)[slot].take(range(begun), axis)]
            if generated is not None:
                own = np.asarray(generated)[slot]
                parts.append(own[:, :, 0, : self._written] if axis == 2 else own[:, 0, : self._written])
            parts.append(np.zeros(_replaced(parts[0].shape, axis, places - begun - self._written), np.float32))
            return jnp.asarray(np.concatenate(parts, axis=axis)[None])

        cache, new = self._cache, self._generated
        none = (None,) * len(cache.keys)
        keys = zip(cache.keys, none if new is None else new.keys, strict=True)
        values = zip(cache.values, none if new is None else new.values, strict=True)
        whole = Cache(tuple(kept(*pair, 2) for pair in keys), tuple(kept(*pair, 1) for pair in values))
        return Remembered(tuple(self._texts[0][: begun + self._written]), whole)

    def _current(self) -> Any:
        """Return the logits of the next tokens; a pending token is read first."""
        if self._logits is None:
            self._grow(1)
            ancestors = None
            if self._branches > 1:
                self._ancestors[:, :, self._written] = np.arange(self._branches)
                ancestors = self._ancestors
            rows = self._prompts * self._branches
            options, suffix = self._engine.options_of_steps(rows) if rows == 1 else (None, "")
            self._logits, self._hidden, self._generated = self._engine.call(
                f"step{suffix}",
                self._engine.decoder.step,
                self._engine.weights_for(rows),
                jnp.asarray(self._pending),
                self._placed(np.array([len(text) - 1 for text in self._texts], dtype=np.int32)),
                self._cache,
                self._valid,
                self._generated,
                np.int32(self._written),
                ancestors,
                donate=(5,),
                options=options,
            )
            self._written += 1
            self._rows = self._slots
        return self._logits

    def _inputs(self, shared: dict[str, Any], rows: int) -> tuple[jax_steps.Fixed, jax_steps.Held]:
        """What a graph of steps reads for so many rows, and what it changes."""
        weights = self._engine.weights_for(rows)
        fixed = jax_steps.Fixed(weights, self._cache, self._valid, shared)
        assert self._generated is not None
        return fixed, jax_steps.Held(self._generated, self._seen)

    def _placed(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Place one value per row into its row's slot, with zeros elsewhere."""
        placed = np.zeros((self._prompts * self._branches, *values.shape[1:]), dtype=values.dtype)
        placed[self._slots] = values
        return placed

    def _goes_on(self, blocks: Sequence[tuple[Any, Any, Any]], remaining: npt.NDArray[np.int32]) -> bool:
        """Whether any row would take another step."""
        alive = remaining > 0
        if blocks:
            alive &= ~np.isin(blocks[-1][0][-1], self._engine.tokenizer.end_token_ids)
        return bool(alive.any())

    def _grow(self, wanted: int) -> None:
        """Make room for so many more tokens."""
        needed = self._written + wanted
        length = 0 if self._generated is None else self._generated.keys[0].shape[-1]
        if needed <= length:
            return
        slots = self._prompts * self._branches
        # For few texts, unused places cost less than compiling a graph of another length.
        ahead = min(rounded(self._most, _SHORTEST_GENERATED), _PLACES // slots)
        longer = rounded(needed, max(_SHORTEST_GENERATED, rounded(ahead)))
        if self._generated is None:
            heads, size = self._cache.keys[0].shape[1:3]
            prompts, branches = self._prompts, self._branches
            shapes = (prompts, heads, size, branches, longer), (prompts, heads, branches, longer, size)
            begin = jax_steps.beginning(shapes, len(self._cache.keys))
            self._generated = self._engine.call(f"begin {shapes}", begin)
            self._ancestors = np.zeros((self._prompts, self._branches, longer), dtype=np.int32)
            return
        self._generated = self._engine.call(f"grow {longer}", jax_steps.growing(longer), self._generated)
        self._ancestors = np.pad(self._ancestors, ((0, 0), (0, 0), (0, longer - length)))

    def _gather(self, taken: Indices) -> None:
        """Copy these slots, of one branch each, into a batch of their number."""
        size = rounded(len(taken))
        slots = np.concatenate([taken, np.repeat(taken[:1], size - len(taken))]).astype(np.int32)
        state = (self._cache, self._valid, self._generated, self._seen, self._pending)
        state = self._engine.call("take", jax_steps.take, state, slots)
        self._cache, self._valid, self._generated, self._seen, self._pending = state
        self._prompts, self._slots = size, np.arange(len(taken))
        self._ancestors = self._ancestors[slots] if self._generated is not None else self._ancestors

    def _branch(self, taken: Indices) -> bool:
        """Let as many texts go on from each prompt, if these slots are so and nothing is written."""
        prompts = list(dict.fromkeys(taken.tolist()))
        count = len(taken) // len(prompts)
        if self._written or self._generated is not None or not np.array_equal(np.repeat(prompts, count), taken):
            return False
        if prompts != list(range(len(prompts))) or rounded(len(prompts)) != self._prompts:
            self._gather(np.array(prompts))
        self._branches, self._slots = count, np.arange(len(taken))
        return True

    def _follow(self, taken: Indices) -> bool:
        """Let each prompt's texts go on from these of its own, if so they are; only the ancestors are written."""
        count = self._branches
        if len(taken) % count:
            return False
        grouped = taken.reshape(-1, count)
        prompts = grouped[:, 0] // count
        if not (grouped // count == prompts[:, None]).all() or len(set(prompts.tolist())) < len(prompts):
            return False
        parents = grouped % count
        self._ancestors[prompts] = np.take_along_axis(self._ancestors[prompts], parents[:, :, None], axis=1)
        size = rounded(len(prompts))
        if size < self._prompts:
            slots = np.concatenate([prompts, np.repeat(prompts[:1], size - len(prompts))]).astype(np.int32)
            state = (self._cache, self._valid, self._generated, None, None)
            self._cache, self._valid, self._generated, *_ = self._engine.call("take", jax_steps.take, state, slots)
            self._ancestors, self._prompts = self._ancestors[slots], size
            prompts = np.arange(len(prompts))
        self._slots = (prompts[:, None] * count + np.arange(count)).reshape(-1)
        return True

    def _merge(self, taken: Indices) -> None:
        """Copy each of these texts into a slot of its own."""
        size = rounded(len(taken))
        rows = np.concatenate([taken, np.repeat(taken[:1], size - len(taken))])
        prompts, branches = (rows // self._branches).astype(np.int32), rows % self._branches
        if self._generated is not None:
            ancestors = self._ancestors[prompts, branches]
            self._generated = self._engine.call("merge", jax_steps.merge, self._generated, prompts, ancestors)
        state = (self._cache, self._valid, None, None, None)
        self._cache, self._valid, *_ = self._engine.call("take", jax_steps.take, state, prompts)
        length = self._ancestors.shape[2]
        self._prompts, self._branches, self._slots = size, 1, np.arange(len(taken))
        self._ancestors = np.zeros((size, 1, length), dtype=np.int32)

    def _see(self, spec: TokenSampler) -> None:
        """Hold which tokens each row's text has, if the sampler asks for it."""
        if not jax_steps.penalizes(spec):
            self._seen = None
        elif self._seen is None:
            self._seen = self._seen_tokens()

    def _seen_tokens(self) -> Any:
        """Return which tokens each row's text holds, bool `(slots, vocabulary_size)`; start and end tokens excluded."""
        tokenizer = self._engine.tokenizer
        seen = np.zeros((self._prompts * self._branches, tokenizer.vocabulary_size), dtype=np.bool_)
        for slot, text in zip(self._slots.tolist(), self._texts, strict=True):
            seen[slot, text] = True
        frame_ids = (
            tokenizer.start_token_id,
            *tokenizer.end_token_ids,
        )  # an end token beyond the vocabulary never comes
        seen[:, [token for token in frame_ids if token is not None and token < tokenizer.vocabulary_size]] = False
        return jnp.asarray(seen)
