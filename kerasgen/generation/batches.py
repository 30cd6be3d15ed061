"""Forms batches of prompts: adds the start token, checks the limits, pads to one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.engine import TextSpace
from kerasgen.samplers import randomness

_DEFAULT_MAX_LENGTH = 256


@dataclass(frozen=True)
class Continuation:
    """The tokens generated after one prompt.

    Args:
        token_ids: the new tokens, the end token with them if one was generated.
        score: for beam search the score that it ranks texts by (see `Beam`); for other specs the sum of the
            log-probabilities in nats that the model itself gave these tokens, whatever the sampler made of them;
            NaN for KerasHub's own samplers, which don't tell.
        finished: whether the end token was generated or a stop string written; if not, the length limit cut the text.
        logprobs: the log-probability that the model itself gave each token; empty for searches.
        stopped: where in the text of these tokens a stop string begins, in characters; None where none was written.
        proposed: tokens that were proposed and checked several at once, as `prompt_lookup_num_tokens` asks for.
        accepted: of these, tokens that the sampler chose.
    """

    token_ids: tuple[int, ...]
    score: float
    finished: bool
    logprobs: tuple[float, ...] = ()
    stopped: int | None = None
    proposed: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class Batch:
    """Prompts that are decoded together.

    Args:
        places: which of the caller's texts each row is.
        prompts: ids of each row, start token and prompt.
        lengths: int `(rows,)`, tokens of each prompt, its start token with them.
        limits: int `(rows,)`, tokens that each text may have in all.
        keys: uint32 `(rows, 2)`, of each row's random numbers.
    """

    places: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    lengths: npt.NDArray[np.int64]
    limits: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint32]

    def padded(self, length: int, pad_token_id: int) -> npt.NDArray[np.int32]:
        """Return the prompts as int32 `(rows, length)`, right-padded."""
        token_ids = np.full((len(self.prompts), length), pad_token_id, dtype=np.int32)
        for row, prompt in enumerate(self.prompts):
            token_ids[row, : len(prompt)] = prompt
        return token_ids


@dataclass(frozen=True)
class PromptOffset:
    """Offset of these prompts within a larger prompt list.

    Args:
        first: how many come before them; errors number prompts from there.
        repeats: for each prompt how often it came before; None where these prompts are all there are.
    """

    first: int = 0
    repeats: Sequence[int] | None = None


NO_OFFSET = PromptOffset()


def add_start_token(
    space: TextSpace, prompts: Sequence[Sequence[int]], *, first: int = 0, start: bool = True
) -> list[list[int]]:
    """Return each prompt's ids with the start token before them, as the model was trained.

    Args:
        space: the text space of the ids.
        prompts: token ids without the start token.
        first: the number of the first prompt, in errors.
        start: False puts none before them: they are whole, as a chat template wrote them.

    Raises:
        GenerateArgumentError: a prompt is empty and the tokenizer has no start token, or an id is not the tokenizer's.
    """
    token_id, size = space.tokenizer.start_token_id if start else None, space.tokenizer.vocabulary_size
    with_start = []
    for place, prompt in enumerate(prompts, start=first):
        wrong = [token_id for token_id in prompt if not 0 <= token_id < size]
        if wrong:
            raise GenerateArgumentError(
                f"Token ids must lie between 0 and {size - 1}. Received: {wrong[0]} in prompt {place}."
            )
        if token_id is None and not prompt:
            raise GenerateArgumentError(
                f"Prompt {place} is empty, and this tokenizer has no start token to begin with. Write at least one "
                "character."
            )
        with_start.append([*([] if token_id is None else [token_id]), *map(int, prompt)])
    return with_start


def limits(
    space: TextSpace,
    lengths: Sequence[int],
    *,
    max_length: int | None,
    max_new_tokens: int | None,
    first: int = 0,
) -> list[int]:
    """Return how many tokens each text may have in all.

    Args:
        space: the text space whose positions bound every text.
        lengths: the lengths of the prompts in tokens, the start token with them.
        max_length: tokens of a whole text, start token and prompt with it; or None.
        max_new_tokens: tokens generated; or None. With neither, the model's positions are the limit, or 256.
        first: the number of the first prompt, in errors.

    Raises:
        GenerateArgumentError: a prompt leaves no room for a new token, or a text would be longer than the model's
            positions.
    """
    positions = space.max_sequence_length
    if max_length is not None and positions is not None and max_length > positions:
        raise GenerateArgumentError(
            f"`max_length` must be at most the model's {positions} positions. Received: max_length={max_length}."
        )
    whole = max_length if max_length is not None else (positions or _DEFAULT_MAX_LENGTH)
    text_limits = []
    for place, length in enumerate(lengths, start=first):
        limit = whole if max_new_tokens is None else length + max_new_tokens
        if length >= limit:
            named = "`max_length`" if max_length is not None else "the longest text"
            raise GenerateArgumentError(
                f"Prompt {place} has {length} tokens (its start token with them) and {named} is {limit}: there is no "
                "room for a new token. Shorten the prompt"
                + (", or raise `max_length`." if positions is None or limit < positions else ".")
            )
        if positions is not None and limit > positions:
            raise GenerateArgumentError(
                f"Prompt {place} has {length} tokens (its start token with them); {max_new_tokens} new ones would make "
                f"{limit}, and the model has {positions} positions. Shorten the prompt or lower `max_new_tokens`."
            )
        text_limits.append(limit)
    return text_limits


def batches(
    with_start: Sequence[Sequence[int]],
    limit: Sequence[int],
    seeds: Sequence[int],
    batch_size: int,
    *,
    equal_lengths: bool = False,
    repeats: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Yield the prompts in batches of like length; a text doesn't depend on what else is in its batch.

    Args:
        with_start: prompts as `add_start_token` returns them.
        limit: what `limits` returned.
        seeds: one for each prompt.
        batch_size: rows in a batch, at most.
        equal_lengths: put only prompts of the same length and limit into one batch.
        repeats: for each prompt how often it came before, or None to count here.
    """
    prompts = [tuple(prompt) for prompt in with_start]
    if repeats is None:
        repeats = randomness.streams(list(zip(prompts, seeds, strict=True)))
    order = sorted(range(len(with_start)), key=lambda place: (len(with_start[place]), limit[place]))
    while order:
        places = order[:batch_size]
        if equal_lengths:
            places = [place for place in places if len(with_start[place]) == len(with_start[places[0]])]
            places = [place for place in places if limit[place] == limit[places[0]]]
        order = order[len(places) :]
        rows = tuple(prompts[place] for place in places)
        yield Batch(
            tuple(places),
            rows,
            np.array([len(prompt) for prompt in rows], dtype=np.int64),
            np.array([limit[place] for place in places], dtype=np.int64),
            randomness.keys([seeds[place] for place in places], rows, [repeats[place] for place in places]),
        )
