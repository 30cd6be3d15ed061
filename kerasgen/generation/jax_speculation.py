"""Several proposed tokens of one text checked by one pass, so that its ids are those of one token a pass. Imports JAX.

A pass of several columns rounds otherwise than a pass of one. A choice that so small a difference could change is not
taken from such a pass: what was read in several columns is read again token by token, and then it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from kerasgen.decoder.jax import JaxDecoder
from kerasgen.decoder.jax_hooks import Cache
from kerasgen.generation import jax_steps
from kerasgen.generation.engine import Block, not_finite
from kerasgen.generation.jax_session import JaxSession, rounded
from kerasgen.generation.jax_steps import Fixed, Held
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers.base import TokenSampler
from kerasgen.tokens.base import Tokenizer

# Nats by which a logit may differ between passes before a choice is decided token by token, at least, and as a share of
# the largest logit. SmolLM2's differ by 6.5e-5 at most, of logits up to 25 (see the log).
_MARGIN, _RELATIVE_MARGIN = 2e-4, 1e-5
# Of so many tokens a second choice is made where they hold all probability that matters.
_LIKELIEST = 512


def checking(spec: TokenSampler, decoder: JaxDecoder, tokenizer: Tokenizer) -> tuple[str, Callable[..., Any]]:
    """Return a name, and the function that reads a token and those proposed after it, and chooses while they agree."""
    name, choose = jax_steps.choosing(spec, tokenizer)
    ends = jnp.asarray(tokenizer.end_token_ids, jnp.int32)
    # Rows of the second choice: the chosen token less likely, its random number less and more, the others likelier and
    # less likely. A kind that draws nothing is decided by the first alone.
    changes = 5 if spec.draws else 1
    lowered = np.array([2, 0, 0, 0, 0], np.float32)[:changes]
    # Where logits differ by half a margin, a sum of shares differs by a quarter of one at most.
    moved = np.array([0, -0.25, 0.25, 0, 0], np.float32)[:changes]
    warmed = np.array([[0], [0], [0], [-1], [1]], np.float32)[:changes]

    def check(fixed: Fixed, held: Held, token_ids: Any, numbers: Any, utf8: Any = None) -> Any:
        slot, place, uniforms, proposed, remaining, exact = numbers
        columns = token_ids.shape[0]
        logits, generated = fixed.step(decoder, token_ids, place + jnp.arange(columns), held.generated, slot)
        shared = fixed.shared
        following = jnp.concatenate([token_ids[1:], jnp.full((1,), -1, jnp.int32)])

        def among_ids(whole: Any, ids: Any) -> Any:
            return None if whole is None else whole[:, ids]

        def is_chosen_again(row: Any, token: Any, seen: Any, uniform: Any, allowed: Any) -> Any:
            margin = jnp.maximum(_MARGIN, _RELATIVE_MARGIN * jnp.max(jnp.abs(row)))
            rows = jnp.broadcast_to(row, (changes, row.shape[1]))
            rows = rows.at[:, token[0]].add(-margin * lowered)
            temperature = shared["temperature"]
            # Shares differ by what logits do once these are divided by the temperature.
            draws = jnp.clip(uniform + margin / jnp.minimum(temperature, 1) * moved, 0.0, 1.0 - 2.0**-24)
            varied = shared | {"temperature": temperature * (1 + margin * warmed)}
            held = None if seen is None else jnp.broadcast_to(seen, rows.shape)
            return jnp.all(choose(rows, held, draws, varied, allowed)[0] == token)

        def is_sure(row: Any, token: Any, seen: Any, uniform: Any, within: Any) -> Any:
            allowed = None if utf8 is None else utf8[0][within] >= 0
            whole = (row, token, seen, uniform, allowed)
            size = row.shape[1]
            if changes == 1 or size <= _LIKELIEST:
                return is_chosen_again(*whole)
            # Several choices among the likeliest tokens cost less than one among all, and mostly they hold the
            # probability that matters.
            masked = jax_steps.penalized(row, seen, shared) / shared["temperature"]
            masked = masked if allowed is None else jnp.where(allowed, masked, -jnp.inf)
            highest, ids = jax.lax.top_k(masked, _LIKELIEST)
            others = 1 - jnp.sum(jnp.exp(highest - jax.nn.logsumexp(masked)))
            ids = jnp.sort(ids[0])
            place = jnp.searchsorted(ids, token)
            among = ids[jnp.minimum(place, _LIKELIEST - 1)] == token
            few = (row[:, ids], place, among_ids(seen, ids), uniform, among_ids(allowed, ids))
            is_enough = among[0] & (others < _MARGIN / 5)
            return jax.lax.cond(is_enough, lambda: is_chosen_again(*few), lambda: is_chosen_again(*whole))

        def goes_on(state: Any) -> Any:
            return state[1]

        def one(state: Any) -> Any:
            count, _, _, seen, block, within = state
            row, uniform = logits[count][None], uniforms[count]
            whole = None if utf8 is None else (utf8[0], within)
            token, logprob, good, seen_then, within_then = choose(row, seen, uniform[None], shared, utf8=whole)
            sure = jax.lax.cond(exact, lambda: jnp.bool_(True), lambda: is_sure(row, token, seen, uniform, within))
            put = jnp.where(sure, count, columns)  # beyond the edge nothing is written
            block = tuple(
                whole.at[put].set(new[0], mode="drop") for whole, new in zip(block, (token, logprob, good), strict=True)
            )
            agrees = sure & (count < proposed) & (token[0] == following[count])
            alive = agrees & ~jnp.isin(token[0], ends) & (count + 1 < remaining)
            seen = None if seen is None else jnp.where(sure, seen_then, seen)
            within = within if within is None else jnp.where(sure, within_then, within)
            return jnp.where(sure, count + 1, count), alive, sure, seen, block, within

        block = (jnp.zeros(columns, jnp.int32), jnp.zeros(columns, jnp.float32), jnp.ones(columns, bool))
        begun = (jnp.int32(0), jnp.bool_(True), jnp.bool_(True), held.seen, block, None if utf8 is None else utf8[1])
        count, _, sure, seen, block, _ = jax.lax.while_loop(goes_on, one, begun)
        return (*block, count, sure, Held(generated, seen))

    return f"check {name}", check


def reading(decoder: JaxDecoder) -> Callable[..., Cache]:
    """Return the function that reads up to `MOST_STEPS` tokens of one text, one a pass."""

    def read(fixed: Fixed, generated: Cache, token_ids: Any, numbers: Any) -> Cache:
        wanted, place, slot = numbers

        def one(count: Any, generated: Cache) -> Cache:
            token_id = jax.lax.dynamic_slice_in_dim(token_ids, count, 1)
            return fixed.step(decoder, token_id, (place + count)[None], generated, slot + count)[1]

        return cast(Cache, jax.lax.fori_loop(0, wanted, one, generated))

    return read


class SpeculatingSession(JaxSession):
    """A session that checks several proposed tokens of its one text in one pass."""

    _read_together: int | None = None  # the first place in the generated cache that a pass of several columns wrote

    @property
    def is_exact(self) -> bool:
        """Whether all that was generated was read token by token, as a session without proposals does."""
        return self._read_together is None

    def settle(self, most: int) -> None:
        """Read again, token by token, what passes of several columns read; see `CheckingSession.settle`."""
        if self._read_together is not None and self._written - self._read_together <= most:
            self._read_again()

    def can_check(self, spec: Any) -> bool:
        """Return whether `check` chooses as this sampler does, for the one text."""
        return self.can_run(spec) and len(self._texts) == 1

    def check(
        self,
        proposal: Sequence[int],
        spec: TokenSampler,
        keys: npt.NDArray[np.uint32],
        drawn: int,
        remaining: int,
        utf8: Utf8States | None = None,
    ) -> Block:
        """Take at least one step, and one more for each proposed token that was chosen; see `CheckingSession.check`."""
        if self._logits is not None:
            return self.run(1, spec, keys, np.array([drawn]), np.array([remaining]), None, utf8)
        if self._prompts > 1:
            self._gather(self._slots)
        block, sure = self._checked(proposal, spec, keys, drawn, remaining, utf8, exact=self.is_exact and not proposal)
        if sure:
            return block
        self._read_again()
        whole = utf8
        if whole is not None:
            for token_ids in block.token_ids:
                whole = whole.after(token_ids)
        last, _ = self._checked((), spec, keys, drawn + block.steps, remaining - block.steps, whole, exact=True)
        return Block(
            np.concatenate([block.token_ids, last.token_ids]),
            np.concatenate([block.logprobs, last.logprobs]),
            block.steps + last.steps,
        )

    def follow(self, text: Sequence[int]) -> None:
        """Go on from this text; see `DraftSession.follow`. What is read so is for proposals, and needn't be exact."""
        begun, own = len(self._distinct[0]), self._texts[0]
        known = min(begun + self._written, len(text) - 1)
        kept = next((n for n in range(begun, known) if own[n] != text[n]), known)
        self._written, self._texts = kept - begun, [list(text)]
        self._logits = self._seen = None
        self._read_on(text[kept:-1])
        self._pending = self._placed(np.array(text[-1:], dtype=np.int32))

    def remember(self) -> None:
        """Keep what was read of the text, token by token as a session without proposals does."""
        self._read_again()
        super().remember()

    def _read_on(self, token_ids: Sequence[int]) -> None:
        """Read tokens in one pass, whose logits nobody asks for."""
        if not token_ids:
            return
        columns = rounded(len(token_ids))
        self._grow(columns)
        padded = np.zeros(columns, dtype=np.int32)
        padded[: len(token_ids)] = token_ids
        place = len(self._distinct[0]) + self._written
        decoder = self._engine.decoder
        options, suffix = self._engine.options_of_steps(1) if columns == 1 else (None, "")
        self._generated = self._engine.call(
            f"read on{suffix}",
            lambda *arguments: decoder.step(*arguments)[2],
            self._engine.weights_for(columns),
            padded,
            np.arange(place, place + columns, dtype=np.int32),
            self._cache,
            self._valid,
            self._generated,
            np.int32(self._written),
            None,
            donate=(5,),
            options=options,
        )
        self._written += len(token_ids)

    def _checked(
        self,
        proposal: Sequence[int],
        spec: TokenSampler,
        keys: npt.NDArray[np.uint32],
        drawn: int,
        remaining: int,
        utf8: Utf8States | None,
        *,
        exact: bool,
    ) -> tuple[Block, bool]:
        """The tokens of one pass, and whether the last choice in it was certain."""
        engine, text = self._engine, self._texts[0]
        columns = rounded(len(proposal) + 1)
        self._grow(columns)
        self._see(spec)
        token_ids = np.zeros(columns, dtype=np.int32)
        token_ids[: len(proposal) + 1] = [text[-1], *proposal]
        parts = range(0, columns, jax_steps.MOST_STEPS)
        uniforms = np.concatenate([jax_steps.numbers_of(keys, np.array([drawn + part])) for part in parts])[:columns, 0]
        numbers = (
            np.int32(self._written),
            np.int32(len(text) - 1),
            uniforms,
            np.int32(len(proposal)),
            np.int32(remaining),
            np.bool_(exact),
        )
        whole: tuple[Any, ...] = ()
        kind = ""
        if utf8 is not None:
            states = utf8.states.astype(np.int32).reshape(-1)
            whole, kind = ((engine.utf8_steps(utf8.masks), states),), " of whole characters"
        name, function = checking(spec, engine.decoder, engine.tokenizer)
        read = self._inputs(jax_steps.inputs_of(spec), columns)
        options, suffix = engine.options_of_steps(1) if columns == 1 else (None, "")
        *block, count, sure, held = engine.call(
            f"{name}{kind}{suffix}", function, *read, token_ids, numbers, *whole, donate=(1,), options=options
        )
        self._generated, self._seen = held
        steps = int(count)
        chosen, logprobs, good = (np.asarray(array)[:steps] for array in block)
        if not good.all():
            raise not_finite()
        if columns > 1 and steps and self._read_together is None:
            self._read_together = self._written
        self._written += steps
        text.extend(chosen.tolist())
        self._pending = self._placed(np.array(text[-1:], dtype=np.int32))
        return Block(chosen[:, None], logprobs[:, None], steps), bool(sure)

    def _read_again(self) -> None:
        """Read token by token what passes of several columns read."""
        if self._read_together is None:
            return
        engine, text = self._engine, self._texts[0]
        begun = len(text) - 1 - self._written
        for slot in range(self._read_together, self._written, jax_steps.MOST_STEPS):
            count = min(jax_steps.MOST_STEPS, self._written - slot)
            token_ids = np.zeros(jax_steps.MOST_STEPS, dtype=np.int32)
            token_ids[:count] = text[begun + slot : begun + slot + count]
            fixed, held = self._inputs({}, 1)
            options, suffix = engine.options_of_steps(1)  # those of a session without proposals
            self._generated = engine.call(
                f"read again{suffix}",
                reading(engine.decoder),
                fixed,
                held.generated,
                token_ids,
                (np.int32(count), np.int32(begun + slot), np.int32(slot)),
                donate=(1,),
                options=options,
            )
        self._read_together = None
