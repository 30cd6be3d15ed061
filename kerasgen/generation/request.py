"""Makes a request of a call's arguments: checked once, with a prompt, a limit and a seed for each text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kerasgen import specs
from kerasgen.constraints import valid_utf8 as utf8_masks
from kerasgen.constraints.base import Constraint, ConstraintState
from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import batches as batching
from kerasgen.generation import guided, proposing
from kerasgen.generation.batches import NO_OFFSET, Batch, PromptOffset
from kerasgen.generation.config import GenerationConfig
from kerasgen.generation.engine import TextSpace
from kerasgen.generation.proposing import Speculation
from kerasgen.samplers.base import SamplerSpec, TokenSampler
from kerasgen.samplers.lookahead import Beam
from kerasgen.samplers.masked import Gibbs, MaskPredict
from kerasgen.samplers.resolving import is_hub_sampler

T = TypeVar("T")


USUAL_BATCH_SIZE = 32
"""Texts generated at once on a CPU where a call says nothing."""


@dataclass(frozen=True)
class Request:
    """The texts of a call. A prompt for which several texts are asked is repeated, side by side.

    Args:
        sampler: a `SamplerSpec`, or KerasHub's own sampler.
        stop: strings at which a text ends.
        prompts: token ids of each text's beginning, the start token with them.
        limits: tokens that each text may have in all.
        seeds: the seeds of each text's random numbers.
        states: where each text stands in its form, or None where there is no form.
        utf8: what keeps the texts valid UTF-8, or None where an automaton does, every token does, or nothing shall.
        repeats: for each text how often its prompt came before; None where these prompts are all there are.
        copies: how many times each prompt of the call stands here.
        batch_size: texts generated at once, at most; None for as many as suit the engine.
        logprobs: whether each token's log-probability is wanted.
        speculation: who proposes tokens, or None; there is one text in a batch then.
    """

    sampler: Any
    stop: tuple[str, ...]
    prompts: list[list[int]]
    limits: list[int]
    seeds: list[int]
    states: list[ConstraintState] | None
    utf8: Utf8Masks | None
    repeats: list[int] | None
    copies: int
    batch_size: int | None
    logprobs: bool
    speculation: Speculation | None = None

    def batches(self, usual_size: int = USUAL_BATCH_SIZE, *, whole: bool = False) -> Iterator[Batch]:
        """Yield the texts in batches of like length, of `usual_size` at most where the call says nothing.

        Args:
            usual_size: texts of a batch.
            whole: put all texts into one batch.
        """
        return batching.batches(
            self.prompts,
            self.limits,
            self.seeds,
            len(self.prompts) if whole else self.batch_size or usual_size,
            equal_lengths=is_hub_sampler(self.sampler),
            repeats=self.repeats,
        )

    def by_prompt(self, by_text: list[list[T]]) -> list[list[T]]:
        """Regroup results of texts into results of the call's prompts."""
        if self.copies == 1:
            return by_text
        return [[value for (value,) in by_text[n : n + self.copies]] for n in range(0, len(by_text), self.copies)]


def require_causal(spec: Any) -> None:
    """Refuse a sampler that writes with masked language models alone.

    Raises:
        GenerateArgumentError: `spec` is one.
    """
    if isinstance(spec, MaskPredict | Gibbs):
        raise GenerateArgumentError(
            f"{type(spec).__name__} is for masked language models, and this one writes from left to right. Received: "
            f"sampler={spec!r}. Use a sampler such as 'top_k'."
        )


def make_request(
    space: TextSpace,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig,
    *,
    offset: PromptOffset = NO_OFFSET,
    logprobs: bool = False,
    start: bool = True,
) -> Request:
    """Return the request of a call.

    Args:
        space: the text space whose tokenizer made the ids.
        prompts: token ids without the start token.
        config: the config of the call, its sampler with it.
        offset: where these prompts stand among more.
        logprobs: whether each token's log-probability is wanted.
        start: whether the tokenizer's start token, if it has one, is put before each prompt.

    Raises:
        GenerateArgumentError: the call can't be carried out as written.
    """
    spec, copies = _with_copies(config.sampler, config.num_return_sequences)
    require_causal(spec)
    proposes = proposing.setting_of(config)
    if proposes is not None and not isinstance(spec, TokenSampler):
        raise GenerateArgumentError(
            f"`{proposes}` goes with a sampler that chooses token by token. Received: sampler={spec!r}. Leave it out, "
            "or use another sampler."
        )
    if proposes is not None and not isinstance(config.engine, str):  # before it writes an artefact, which takes minutes
        raise GenerateArgumentError(
            f"`{proposes}` needs JAX decoding. Received: engine={config.engine!r:.80}. Leave one of the two out."
        )
    with_start = batching.add_start_token(space, prompts, first=offset.first, start=start)
    limits = batching.limits(
        space,
        list(map(len, with_start)),
        max_length=config.max_length,
        max_new_tokens=config.max_new_tokens,
        first=offset.first,
    )
    seeds = _seeds(spec, config.seed, len(with_start))
    with_start, limits, seeds = _repeated(with_start, copies), _repeated(limits, copies), _repeated(seeds, copies)
    repeats = offset.repeats
    if repeats is not None:
        repeats = [count * copies + copy for count in repeats for copy in range(copies)]
    constraint: Any = config.constraint
    states = guided.begin(space, with_start, limits, constraint)
    # An automaton already accepts whole characters only; other states are unknown. KerasHub's samplers take no mask.
    is_whole = constraint is not None and type(constraint).begin is Constraint.begin
    masked = config.valid_utf8 and not is_whole and not is_hub_sampler(spec)
    utf8 = utf8_masks.masks_of(space.tokenizer) if masked else None
    speculation = None if proposes is None else proposing.speculation_of(config, space)
    return Request(
        spec,
        config.stop_strings,
        with_start,
        limits,
        seeds,
        states,
        utf8,
        repeats,
        copies,
        config.batch_size if speculation is None else 1,
        logprobs,
        speculation,
    )


def check_prompts(prompts: Iterable[str]) -> list[str]:
    """Return the prompts as a list.

    Raises:
        GenerateArgumentError: they are no strings, or a single one.
    """
    prompt_list = specs.strings(prompts)
    if prompt_list is None:
        raise GenerateArgumentError(f"`prompts` must be a list of strings. Received: {prompts!r:.80}.")
    return prompt_list


def _with_copies(spec: Any, num_return_sequences: int | None) -> tuple[Any, int]:
    """Return the spec, and how often each prompt is to be run."""
    if num_return_sequences is None:
        return spec, 1
    if isinstance(spec, Beam):
        return dataclasses.replace(spec, num_return_sequences=num_return_sequences), 1
    return spec, num_return_sequences


def _repeated(values: list[T], copies: int) -> list[T]:
    """Return each value so many times, one after the other."""
    return [value for value in values for _ in range(copies)]


def _seeds(spec: Any, seed: int | Sequence[int] | None, count: int) -> list[int]:
    """Return one seed for each prompt: the call's, or the spec's own, or 0."""
    if seed is None and isinstance(spec, SamplerSpec):
        seed = spec.seed
    seeds = list(seed) if isinstance(seed, Sequence) else [seed or 0] * count
    if len(seeds) != count:
        raise GenerateArgumentError(
            f"`seed` must be one number, or one for each of the {count} prompts. Received: {len(seeds)} of them."
        )
    return seeds
