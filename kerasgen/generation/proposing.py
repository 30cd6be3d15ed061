"""Tokens of one text that are proposed several at once and checked by one pass of the model, which alone chooses.

Sources: Leviathan et al. 2023, "Fast inference from transformers via speculative decoding"; Saxena 2023, "Prompt lookup
decoding". Unlike the first, a proposed token is taken only if it is the one that the sampler's own draw chooses: a seed
gives the text that it gives without proposals.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import assistant, loops
from kerasgen.generation.assistant import Assistant, DraftingEngine
from kerasgen.generation.batches import Batch
from kerasgen.generation.config import GenerationConfig
from kerasgen.generation.engine import CheckingSession, Engine, Session, TextSpace
from kerasgen.generation.loops import Chosen, Texts
from kerasgen.generation.prompt_lookup import PromptLookup
from kerasgen.generation.utf8_states import Utf8States
from kerasgen.samplers.base import TokenSampler

_NUM_ASSISTANT_TOKENS = 5
# Steps at once where the text may be proposed from at any step: a longer block would miss where it begins to repeat.
_LOOKING = 4
# Tokens at most that are read once more, one by one, so that steps can be taken in blocks again.
_SETTLED = 4


class Proposer(Protocol):
    """Proposes what comes next in one text, less of it where it was wrong.

    Attributes:
        proposed: tokens proposed so far.
        accepted: of these, tokens that the sampler chose too.
    """

    proposed: int
    accepted: int

    @property
    def pause(self) -> int:
        """Steps until the next proposal."""

    @property
    def looks(self) -> bool:
        """Whether a proposal is likely to come after one step or another where there is none now."""

    def propose(self, text: Sequence[int], room: int, utf8: Utf8States | None) -> list[int]:
        """Return the tokens that may come next, `room` at most; none where nothing is known or during a pause.

        Args:
            text: all token ids so far, those of earlier calls first.
            room: how many to return at most.
            utf8: where the text stands in a character, or None where any token may follow.
        """

    def learn(self, proposed: int, accepted: int) -> None:
        """Count what came of a proposal, and propose more or less from now on."""

    def rest(self, steps: int) -> None:
        """Count steps that were taken without a proposal."""


@dataclass(frozen=True, eq=False)
class Speculation:
    """The source of proposed tokens for each text of a call.

    Args:
        setting: the setting of the call that asks for it, for messages.
        num_tokens: tokens proposed at once, at most.
        assistant: the engine of the assistant model, or None where a text's own n-grams propose.
    """

    setting: str
    num_tokens: int
    assistant: DraftingEngine | None = None

    def proposer(self, engine: Engine, batch: Batch, spec: TokenSampler) -> Proposer:
        """Return what proposes the tokens of the one text of a batch."""
        if self.assistant is None:
            return PromptLookup(self.num_tokens, int(batch.lengths[0]), draws=spec.draws)
        return Assistant(self.assistant, engine, batch, spec, self.num_tokens)


def setting_of(config: GenerationConfig) -> str | None:
    """Return the setting of a config that has tokens proposed, or None."""
    names = ("prompt_lookup_num_tokens", "assistant_model")
    return next((name for name in names if getattr(config, name) is not None), None)


def speculation_of(config: GenerationConfig, space: TextSpace) -> Speculation:
    """Return who proposes tokens, as a config asks for it.

    Raises:
        GenerateArgumentError: the assistant has another vocabulary, or JAX doesn't decode it.
    """
    if config.prompt_lookup_num_tokens is not None:
        return Speculation("prompt_lookup_num_tokens", config.prompt_lookup_num_tokens)
    engine = assistant.engine_of(config.assistant_model, space)
    return Speculation("assistant_model", config.num_assistant_tokens or _NUM_ASSISTANT_TOKENS, engine)


def sample(
    engine: Engine, batch: Batch, spec: TokenSampler, texts: Texts, states: Any, speculation: Speculation
) -> Iterator[Chosen]:
    """Return the decoding loop of one text of which several tokens are checked at once; see `loops.sample`.

    Raises:
        GenerateArgumentError: the engine can't check tokens with this sampler.
    """
    session = engine.open(batch.prompts, batch.limits.tolist())
    checking = _checking(engine, session, spec, states, speculation.setting)
    return _sample(batch, spec, texts, checking, speculation.proposer(engine, batch, spec))


def _checking(engine: Engine, session: Session, spec: TokenSampler, states: Any, setting: str) -> CheckingSession:
    """The session, if it checks proposed tokens with this sampler."""
    if not isinstance(session, CheckingSession):
        reason = f"the engine {engine.name!r} checks one token at a time with this model"
    elif states is not None:
        reason = "a constraint decides token by token"
    elif not session.can_check(spec):
        reason = f"{spec!r} chooses on the host, token by token"
    else:
        return session
    raise GenerateArgumentError(
        f"`{setting}` needs JAX decoding and a sampler that is compiled, without a constraint, `bad_words` and "
        f"`no_repeat_ngram_size`. Here {reason}. Leave `{setting}` out."
    )


def _sample(
    batch: Batch, spec: TokenSampler, texts: Texts, session: CheckingSession, proposer: Proposer
) -> Iterator[Chosen]:
    """Sample the one text: check what is proposed, and take blocks of steps where nothing is."""
    turn = 0
    while len(texts.live):
        remaining, drawn = texts.remaining, texts.drawn
        written = texts.token_ids[0, : texts.lengths[0]].tolist()
        # The first token comes at once, from the logits of the prompt.
        proposal = proposer.propose(written, int(remaining[0]) - 1, texts.utf8) if turn else []
        if not proposal:
            session.settle(max(_SETTLED, proposer.pause // 4))
        if proposal or not session.is_exact:
            block = session.check(proposal, spec, batch.keys, int(drawn[0]), int(remaining[0]), texts.utf8)
        else:
            steps = min(loops.BLOCKS[min(turn, len(loops.BLOCKS) - 1)], int(remaining[0]))
            if proposer.pause:
                steps = min(steps, proposer.pause)
            elif proposer.looks:
                steps = min(steps, _LOOKING)
            block = session.run(steps, spec, batch.keys, drawn, remaining, None, texts.utf8)
        turn += 1
        if proposal:
            proposer.learn(len(proposal), block.steps - 1)
        else:
            proposer.rest(block.steps)
        texts.proposed, texts.accepted = proposer.proposed, proposer.accepted
        goes_on = np.ones(1, dtype=np.bool_)
        for step in range(block.steps):
            token_ids = block.token_ids[step].astype(np.int64)
            goes_on = texts.add(texts.live, token_ids)
            yield Chosen(texts.live, token_ids, block.logprobs[step].astype(np.float64))
            goes_on &= ~texts.is_stopped(texts.live)
            if not goes_on.all():
                break
        texts.leave(session, goes_on)
