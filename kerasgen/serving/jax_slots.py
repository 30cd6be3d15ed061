"""Texts that share steps of a JAX decoder while they come and go, each in a slot of its own. Imports JAX.

A slot's cache begins with what was read of its text. New tokens are written beside, into columns that all slots share:
a step writes one column for all of them at once, which takes a tenth of what writing each text's at its own place does
to a cache. When the columns are full, or a text joins, each slot's are moved behind its own tokens. So a text is read
and stepped by the graphs that any batch of texts is, and one that joins has nothing to wait for but the step that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from kerasgen import fork_safety
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation import jax_chunks, jax_reading, jax_steps
from kerasgen.generation.engine import not_finite
from kerasgen.generation.jax_engine import JaxEngine
from kerasgen.generation.jax_session import rounded
from kerasgen.generation.logits_processors import allowed_of
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers import inputs
from kerasgen.samplers.base import TokenSampler
from kerasgen.serving import host_choice
from kerasgen.serving.texts import MOST_LOGPROBS, Chosen, Text, Token, uniforms_of

_COLUMNS = 32
_READ_TOGETHER = 8  # distinct prompts; always so many slots, for another number is another graph
_AT_ONCE = 64  # positions of a prompt whose log-probabilities are computed together
_LEAST_PLACES = 128
# A batch becomes smaller where it has so many times the slots or places that it needs: each size is another graph.
_MUCH_TOO_LARGE = 4


class JaxSlots:
    """A decoder of up to `capacity` texts at once.

    Args:
        engine: whose weights and compiled functions decode.
        capacity: slots.
    """

    shares_steps = True
    shows_logprobs = True

    def __init__(self, engine: JaxEngine, capacity: int) -> None:
        self.engine, self.capacity = engine, capacity
        self._texts: list[Text | None] = []
        self._clear()

    def _clear(self) -> None:
        self._texts = []
        self._lengths: npt.NDArray[np.int32] = np.zeros(0, np.int32)  # tokens of each slot's text in `_cache`
        self._pending: npt.NDArray[np.int32] = np.zeros(0, np.int32)  # each slot's last token, not read yet
        self._cache: Cache | None = None
        self._generated: Cache | None = None
        self._written = 0

    def check(self, prompt: Sequence[int], limit: int) -> None:
        """Raise a `GenerateArgumentError` if a text can't grow to its limit."""
        self.engine.check_growth([prompt], [limit])

    def leave(self, text: Text) -> None:
        """Free the slot of a text."""
        self._texts = [None if other is text else other for other in self._texts]

    def fail(self) -> None:
        """Forget all texts, after a step that failed and took their caches with it."""
        self._clear()

    def admit(self, texts: Sequence[Text]) -> list[Chosen]:
        """Read the prompts of texts that join, and return the first token of each."""
        fork_safety.check(fork_safety.JAX)
        chosen: dict[Text, Chosen] = {}
        read: dict[Text, tuple[Cache, int]] = {}
        for some in _groups(texts):
            self._read(some, chosen, read)
        staying = [text for text in texts if chosen[text].token is not None]
        if staying:
            self._fold()
            for text, slot in zip(staying, self._make_room(staying), strict=True):
                cache, row = read[text]
                token = chosen[text].token
                assert token is not None
                self._cache = self.engine.call(
                    "join", _joined, self._cache, cache, np.int32(row), np.int32(slot), donate=(0,)
                )
                self._texts[slot], self._lengths[slot], self._pending[slot] = text, len(text.prompt), token.token_id
        return [chosen[text] for text in texts]

    def _read(self, texts: Sequence[Text], chosen: dict[Text, Chosen], read: dict[Text, tuple[Cache, int]]) -> None:
        """Read the prompts of some texts; add the first token of each, and the cache and row of what was read."""
        distinct = list(dict.fromkeys(text.prompt for text in texts))
        scores = any(text.scores_prompt for text in texts)
        longest = max(map(len, distinct))
        slots = rounded(len(distinct)) if len(distinct) == 1 or longest > _LEAST_PLACES else _READ_TOGETHER
        logits, cache, reading = jax_reading.read(
            self.engine, distinct, slots, remembered=not scores, least_places=_LEAST_PLACES
        )
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        scored: dict[int, tuple[Token, ...]] = {}
        if scores:
            hidden = reading.hidden()
            for text in texts:
                row = row_of[text.prompt]
                if text.scores_prompt and row not in scored:
                    most = max(other.logprobs or 0 for other in texts if other.prompt == text.prompt)
                    scored[row] = self._scores(text.prompt, hidden[row], most)
        written = [(text, row_of[text.prompt]) for text in texts if not text.is_only_read]
        first = {one.text: one for one in self._choose(logits, written)}
        for text in texts:
            row, one = row_of[text.prompt], first.get(text)
            prompt = scored[row] if text.scores_prompt else None
            chosen[text] = Chosen(text, one.token if one else None, prompt, one.error if one else None)
            read[text] = cache, row

    def step(self) -> list[Chosen]:
        """Return one more token of each text."""
        if self._written == _COLUMNS:
            self._fold()
        assert self._cache is not None
        slots = len(self._texts)
        live = np.array([text is not None for text in self._texts])
        self._lengths[~live] = 0
        places = np.where(live, self._lengths + self._written, 0).astype(np.int32)
        valid = np.arange(self._cache.keys[0].shape[3]) < self._lengths[:, None]
        options, suffix = self.engine.options_of_steps(slots)
        logits, self._generated = self.engine.call(
            f"step of slots{suffix}",
            self._stepped,
            self.engine.weights_for(slots),
            self._pending,
            places,
            self._cache,
            valid,
            self._generated,
            np.int32(self._written),
            donate=(5,),
            options=options,
        )
        self._written += 1
        rows = [(text, slot) for slot, text in enumerate(self._texts) if text is not None]
        chosen = self._choose(logits, rows)
        for (_, slot), one in zip(rows, chosen, strict=True):
            if one.token is not None:
                self._pending[slot] = one.token.token_id
        return chosen

    def _stepped(self, *arguments: Any) -> tuple[Any, Cache]:
        step: Any = self.engine.decoder.step
        logits, _, generated = step(*arguments, None)
        return logits, generated

    def _make_room(self, joining: Sequence[Text]) -> list[int]:
        """Return a free slot for each text that joins; the batch grows, or shrinks, where it must."""
        live = [slot for slot, text in enumerate(self._texts) if text is not None]
        needed = min(_slots_for(len(live) + len(joining)), rounded(self.capacity))
        longest = max([*self._lengths[live].tolist(), *(len(text.prompt) for text in joining)])
        room = max(_LEAST_PLACES, jax_chunks.room(longest + _COLUMNS))
        slots, places = len(self._texts), 0 if self._cache is None else self._cache.keys[0].shape[3]
        fits = needed <= slots < _MUCH_TOO_LARGE * needed and room <= places < _MUCH_TOO_LARGE * room
        if not fits:
            self._resize(live, needed, room)
            live = list(range(len(live)))
        free = [slot for slot in range(len(self._texts)) if slot not in set(live)]
        return free[: len(joining)]

    def _resize(self, live: list[int], slots: int, places: int) -> None:
        """Make a batch of so many slots and places, with the texts of these slots first."""
        config = self.engine.decoder.config
        heads, size = config.attention.num_key_value_heads, config.attention.head_dim
        shapes = (slots, heads, size, places), (slots, heads, places, size)
        begin = jax_steps.beginning(shapes, config.num_layers)
        cache = self.engine.call(f"begin {shapes}", begin)
        old = self._cache
        for slot, source in enumerate(live):
            assert old is not None
            cache = self.engine.call("join", _joined, cache, old, np.int32(source), np.int32(slot), donate=(0,))
        shapes_beside = (slots, heads, size, 1, _COLUMNS), (slots, heads, 1, _COLUMNS, size)
        begin = jax_steps.beginning(shapes_beside, config.num_layers)
        self._generated = self.engine.call(f"begin {shapes_beside}", begin)
        self._cache, self._written = cache, 0
        beside = slots - len(live)
        self._texts = [*(self._texts[slot] for slot in live), *[None] * beside]
        self._lengths = np.concatenate([self._lengths[live], np.zeros(beside, np.int32)])
        self._pending = np.concatenate([self._pending[live], np.zeros(beside, np.int32)])

    def _fold(self) -> None:
        """Move what was written beside behind each text's own tokens."""
        if not self._written:
            return
        live = [slot for slot, text in enumerate(self._texts) if text is not None]
        room = jax_chunks.room(int(self._lengths[live].max(initial=0)) + self._written + _COLUMNS)
        assert self._cache is not None
        self._cache = self.engine.call(
            "fold", _folded, self._cache, self._generated, np.where(self._lengths > 0, self._lengths, 0), donate=(0,)
        )
        self._lengths[live] += self._written
        self._written = 0
        if room > self._cache.keys[0].shape[3]:
            self._resize(live, len(self._texts), room)

    def _scores(self, prompt: tuple[int, ...], hidden: npt.NDArray[np.float32], count: int) -> tuple[Token, ...]:
        """Return the tokens of a prompt with what the model gave each, of the hidden states before it."""
        first, rest = prompt[0], np.array(prompt[1:], dtype=np.int32)
        tokens = [Token(first, None)]
        for begin in range(0, len(rest), _AT_ONCE):
            targets = rest[begin : begin + _AT_ONCE]
            states = np.zeros((_AT_ONCE, hidden.shape[1]), np.float32)
            states[: len(targets)] = hidden[begin : begin + len(targets)]
            padded = np.pad(targets, (0, _AT_ONCE - len(targets)))
            arrays = self.engine.call("scores", self._scored, self.engine.weights, states, padded)
            own, values, ids = (np.asarray(array) for array in arrays)
            for n, token_id in enumerate(targets.tolist()):
                top = tuple(zip(ids[n, :count].tolist(), values[n, :count].tolist(), strict=True))
                tokens.append(Token(token_id, float(own[n]), top))
        return tuple(tokens)

    def _scored(self, weights: Any, states: Any, targets: Any) -> Any:
        logprobs = jax.nn.log_softmax(self.engine.decoder.logits(weights, states), axis=-1)
        own = jnp.take_along_axis(logprobs, targets[:, None], axis=-1)[:, 0]
        return own, *jax.lax.top_k(logprobs, min(MOST_LOGPROBS, logprobs.shape[-1]))

    def _choose(self, logits: Any, rows: Sequence[tuple[Text, int]]) -> list[Chosen]:
        """Return a token of each text, whose logits stand in these rows."""
        found: list[Chosen | None] = [None] * len(rows)
        groups: dict[Any, list[int]] = {}
        for n, (text, _) in enumerate(rows):
            groups.setdefault(_way_of(text), []).append(n)
        for way, members in groups.items():
            some = [rows[n] for n in members]
            chosen = self._on_host(logits, some) if way is None else self._in_graph(logits, some, *way)
            for n, one in zip(members, chosen, strict=True):
                found[n] = one
        return [one for one in found if one is not None]

    def _on_host(self, logits: Any, rows: Sequence[tuple[Text, int]]) -> list[Chosen]:
        chosen = []
        for text, row in rows:
            try:
                token = host_choice.choose(text, np.asarray(logits[row]), self.engine.tokenizer)
                chosen.append(Chosen(text, token))
            except Exception as error:  # of this text alone
                chosen.append(Chosen(text, error=error))
        return chosen

    def _in_graph(
        self, logits: Any, rows: Sequence[tuple[Text, int]], kind: type[TokenSampler], is_formed: bool, logprobs: bool
    ) -> list[Chosen]:
        """Choose by one graph for all settings of a kind, text by text, so that no text depends on another."""
        count = rounded(len(rows))
        texts = [text for text, _ in rows]
        filled = [*texts, *texts[:1] * (count - len(texts))]
        taken = np.array([*(row for _, row in rows), *[rows[0][1]] * (count - len(rows))], np.int32)
        shared = jax.tree.map(lambda *values: np.stack(values), *(jax_steps.inputs_of(text.sampler) for text in filled))
        further: tuple[Any, ...] = ()
        utf8 = texts[0].utf8
        if is_formed:
            size, end = self.engine.tokenizer.vocabulary_size, self.engine.tokenizer.end_token_id
            masks = []
            for text in filled:
                assert text.constraint is not None
                within = None if text.utf8 is None else Utf8States(text.utf8, np.array([text.utf8_state]))
                masks.append(allowed_of([text.constraint], size, end, within)[0])
            further, name = (np.stack(masks),), " of the allowed"
        elif utf8 is not None:
            states = np.array([text.utf8_state for text in filled], np.int32)
            further, name = (states, self.engine.utf8_steps(utf8)), " of whole characters"
        else:
            name = ""
        choice, choose = jax_steps.choosing(texts[0].sampler, self.engine.tokenizer, logprobs=logprobs)
        function = _each(choose, is_formed=is_formed)
        arrays = self.engine.call(
            f"each {choice}{name}", function, logits, taken, shared, uniforms_of(filled), *further
        )
        token_ids, own, good = (np.asarray(array) for array in arrays)
        tops = self._tops(logits, taken) if any(text.logprobs for text in texts) else None
        chosen = []
        for n, text in enumerate(texts):
            if not good[n]:
                chosen.append(Chosen(text, error=not_finite()))
                continue
            top: tuple[tuple[int, float], ...] = ()
            if tops is not None and text.logprobs:
                top = tuple(
                    zip(tops[1][n, : text.logprobs].tolist(), tops[0][n, : text.logprobs].tolist(), strict=True)
                )
            logprob = None if text.logprobs is None else dict(top).get(int(token_ids[n]), float(own[n]))
            chosen.append(Chosen(text, Token(int(token_ids[n]), logprob, top)))
        return chosen

    def _tops(self, logits: Any, taken: Any) -> tuple[Any, Any]:
        def likeliest(logits: Any, taken: Any) -> Any:
            logprobs = jax.nn.log_softmax(logits[taken], axis=-1)
            return jax.lax.top_k(logprobs, min(MOST_LOGPROBS, logprobs.shape[-1]))

        values, ids = self.engine.call("likeliest of some", likeliest, logits, taken)
        return np.asarray(values), np.asarray(ids)


def _slots_for(texts: int) -> int:
    """Return a number of slots: a power of four, so that there are few graphs of steps."""
    slots = 1
    while slots < texts:
        slots *= 4
    return slots


def _groups(texts: Sequence[Text]) -> list[list[Text]]:
    """Return the texts in groups of a few distinct prompts, of like length."""
    distinct = sorted({text.prompt for text in texts}, key=lambda prompt: (len(prompt), prompt))
    groups = [set(distinct[n : n + _READ_TOGETHER]) for n in range(0, len(distinct), _READ_TOGETHER)]
    return [[text for text in texts if text.prompt in group] for group in groups]


def _way_of(text: Text) -> tuple[type[TokenSampler], bool, bool] | None:
    """Return what decides the graph that chooses a text's tokens; None where the host does."""
    spec = text.sampler
    is_known = jax_steps.is_known(spec) and not spec.bad_words and not spec.no_repeat_ngram_size
    if not is_known or jax_steps.penalizes(spec) or inputs.undeclared(type(spec)):
        return None
    return type(spec), text.constraint is not None, text.logprobs is not None


def _each(choose: Callable[..., Any], *, is_formed: bool) -> Callable[..., Any]:
    """Return the function that chooses row by row, each by its own settings."""

    def each(logits: Any, taken: Any, shared: Any, uniforms: Any, *further: Any) -> Any:
        own = further[:1]  # of each row; the table of UTF-8's states, which follows, is everyone's

        def one(row: Any) -> Any:
            at, settings, uniform, *rest = row
            masks: dict[str, Any] = {}
            if rest:
                masks = {"allowed": rest[0][None]} if is_formed else {"utf8": (further[1], rest[0][None])}
            token, logprob, good, *_ = choose(logits[at][None], None, uniform[None], settings, **masks)
            return token[0], logprob[0], good[0]

        return jax.lax.map(one, (taken, shared, uniforms, *own))

    return each


def _joined(cache: Cache, other: Cache, row: Any, slot: Any) -> Cache:
    """Return a cache with what another holds in a row of it, from its first place on, in a slot."""

    def moved(array: Any, taken: Any, axis: int) -> Any:
        some = jax.lax.dynamic_slice_in_dim(taken, row, 1, 0)
        some = jax.lax.slice_in_dim(some, 0, min(some.shape[axis], array.shape[axis]), axis=axis)
        return jax.lax.dynamic_update_slice(array, some, (slot, 0, 0, 0))

    keys = tuple(moved(key, own, 3) for key, own in zip(cache.keys, other.keys, strict=True))
    return Cache(keys, tuple(moved(value, own, 2) for value, own in zip(cache.values, other.values, strict=True)))


def _folded(cache: Cache, generated: Cache, lengths: Any) -> Cache:
    """Return a cache with each slot's generated columns behind its tokens; those not written yet count for nothing."""

    def moved(n: Any, cache: Cache) -> Cache:
        def into(array: Any, columns: Any, axis: int) -> Any:
            some = jax.lax.dynamic_slice_in_dim(columns, n, 1, 0)
            some = some[:, :, :, 0] if axis == 3 else some[:, :, 0]
            at = (n, 0, 0, lengths[n]) if axis == 3 else (n, 0, lengths[n], 0)
            return jax.lax.dynamic_update_slice(array, some, at)

        keys = tuple(into(key, own, 3) for key, own in zip(cache.keys, generated.keys, strict=True))
        return Cache(
            keys, tuple(into(value, own, 2) for value, own in zip(cache.values, generated.values, strict=True))
        )

    folded: Cache = jax.lax.fori_loop(0, lengths.shape[0], moved, cache)
    return folded
