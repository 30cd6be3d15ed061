"""An assistant model: a smaller one of the same vocabulary, whose choices are proposed as the model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from kerasgen.errors import GenerateArgumentError, GenerationError
from kerasgen.generation import engine_registry
from kerasgen.generation.batches import Batch
from kerasgen.generation.engine import BlockSession, Engine, Session, TextSpace
from kerasgen.generation.proposal_length import ProposalLength
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.models import resolving
from kerasgen.models.base import LanguageModel, ModelSource
from kerasgen.samplers.base import TokenSampler
from kerasgen.tokens.base import Tokenizer

_PRIOR = (3.0, 1.0)
# Tokens that a step's time must bring, and steps without a proposal where it doesn't, doubled each time.
_LEAST = 1.05
_SHORTEST_PAUSE, _LONGEST_PAUSE = 16, 128


@runtime_checkable
class DraftSession(BlockSession, Session, Protocol):
    """A session whose one text can be replaced by another that begins alike."""

    def follow(self, text: Sequence[int]) -> None:
        """Go on from this text: what was read of another one is dropped, and what is new is read.

        Args:
            text: ids, one more at least than the session's prompt, with which it begins.
        """


@runtime_checkable
class DraftingEngine(Engine, Protocol):
    """An engine whose sessions follow a text that another engine chooses."""

    @property
    def weights_read(self) -> int:
        """Weights that one step reads."""

    def draft_limit(self, prompt: Sequence[int], limit: int) -> int:
        """Return up to how many tokens a session can follow a text of at most `limit` from this prompt."""

    def open_draft(self, prompt: Sequence[int], limit: int) -> DraftSession:
        """Return a session of one text; see `Engine.open`."""


def located(assistant: Any) -> LanguageModel | Engine:
    """Return the model or the engine that `assistant_model` stands for; an address is loaded.

    An engine of a preset's or GGUF file's own weights needs no Keras, and is taken where there is one.
    """
    if isinstance(assistant, LanguageModel):
        return assistant
    if hasattr(assistant, "text_space"):
        return assistant.text_space  # type: ignore[no-any-return]
    if not isinstance(assistant, (str, ModelSource)):
        return assistant  # type: ignore[no-any-return]
    source = resolving.resolve(assistant)
    source.check()
    place = source.directory() or source.gguf_file()
    if place is not None:
        from kerasgen.generation import jax_weights

        engine = jax_weights.engine_of_files(place)
        if engine is not None:
            return engine
    return source.load()


def engine_of(assistant: Any, space: TextSpace) -> DraftingEngine:
    """Return the engine of an assistant model.

    Args:
        assistant: as `GenerationConfig` takes it.
        space: the text space of the model that it helps.

    Raises:
        GenerateArgumentError: it is no model, its vocabulary is another one, or JAX doesn't decode it.
    """
    model = located(assistant)
    if not isinstance(model, LanguageModel) and not hasattr(model, "open"):
        raise GenerateArgumentError(
            "`assistant_model` must be a Pipeline, a LanguageModel, or an address that Pipeline(model=…) takes. "
            f"Received: {assistant!r:.80}."
        )
    _check_vocabulary(space.tokenizer, model.tokenizer)
    engine = engine_registry.resolve(model)
    if not isinstance(engine, DraftingEngine):
        raise GenerateArgumentError(
            "`assistant_model` must be a model that JAX decodes: one of a described architecture, in float32. "
            f"Received: {assistant!r:.80}, which the engine {engine.name!r} decodes. Leave `assistant_model` out."
        )
    return engine


_FIRST_DIFFERENCE: dict[tuple[str, str], int | None] = {}  # by digests: comparing 50,000 tokens takes a while


def _check_vocabulary(own: Tokenizer, other: Tokenizer) -> None:
    """Raise unless two tokenizers' ids stand for the same bytes."""
    digests = own.digest(), other.digest()
    if digests[0] == digests[1]:
        return
    if digests not in _FIRST_DIFFERENCE:
        ids = range(min(own.vocabulary_size, other.vocabulary_size))
        differing = (token_id for token_id in ids if own.token_bytes(token_id) != other.token_bytes(token_id))
        end = None if own.vocabulary_size == other.vocabulary_size else len(ids)
        _FIRST_DIFFERENCE[digests] = next(differing, end)
    token_id = _FIRST_DIFFERENCE[digests]
    if token_id is None:
        return
    of_own, of_other = (
        repr(tokenizer.token_bytes(token_id)) if token_id < tokenizer.vocabulary_size else "none"
        for tokenizer in (own, other)
    )
    raise GenerateArgumentError(
        "`assistant_model` must have the model's own vocabulary, id for id. Received: one of "
        f"{other.vocabulary_size} tokens where the model's has {own.vocabulary_size}; token {token_id} is {of_other} "
        f"there and {of_own} here. Take a smaller model of the same family, or leave `assistant_model` out."
    )


class Assistant:
    """Proposals that an assistant model makes for one text.

    It chooses by the model's sampler with the model's own random numbers, so that two models that agree draw the same
    token. How many it proposes follows from how often it was right and from what it costs (Leviathan et al. 2023,
    section 3.5): where no number of tokens would pay, it pauses.

    Args:
        engine: the assistant's.
        target: the engine of the model that it helps.
        batch: the text's prompt and limit.
        spec: the sampler.
        num_tokens: proposed at once, at most.

    Attributes:
        proposed: tokens proposed so far.
        accepted: of these, tokens that the sampler chose too.
        pause: steps until the next proposal.
        looks: False; a proposal comes whenever there is no pause.
    """

    looks = False

    def __init__(
        self, engine: DraftingEngine, target: Engine, batch: Batch, spec: TokenSampler, num_tokens: int
    ) -> None:
        self._engine, self._spec, self._keys = engine, spec, batch.keys
        self._prompt = batch.prompts[0]
        self._limit = engine.draft_limit(self._prompt, int(batch.limits[0]))
        self._session: DraftSession | None = None
        own = getattr(target, "weights_read", 0)
        cost = engine.weights_read / own if own else 1.0
        self._proposal_length = ProposalLength(num_tokens, cost=cost, least=_LEAST, prior=_PRIOR)
        self._last_pause = self.pause = 0
        self.proposed = self.accepted = 0

    def propose(self, text: Sequence[int], room: int, utf8: Utf8States | None) -> list[int]:
        """Return what the assistant would write next; see `Proposer`."""
        # After a pause one token tries whether proposals pay again.
        room = 0 if self.pause else min(room, self._limit - len(text), self._proposal_length.width() or 1)
        if room < 1:
            return []
        if self._session is None:
            self._session = self._engine.open_draft(self._prompt, self._limit)
        self._session.follow(text)
        drawn, remaining = np.array([len(text) - len(self._prompt)]), np.array([room])
        try:
            block = self._session.run(room, self._spec, self._keys, drawn, remaining, None, utf8)
        except GenerationError as cause:
            raise GenerationError(f"The assistant model can't go on: {cause}") from cause
        return [int(token_id) for token_id in block.token_ids[:, 0]]

    def learn(self, proposed: int, accepted: int) -> None:
        """Count what came of a proposal."""
        self.proposed += proposed
        self.accepted += accepted
        self._proposal_length.observe(accepted, int(accepted < proposed))
        if self._proposal_length.width():
            self._last_pause = 0
        else:
            self._last_pause = self.pause = min(max(2 * self._last_pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)

    def rest(self, steps: int) -> None:
        """Count steps that were taken without a proposal."""
        self.pause = max(0, self.pause - steps)
