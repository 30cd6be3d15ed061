"""A call's arguments become a request: checked once, with a prompt, a limit and a seed for each text."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kerasgen import specs
from kerasgen.constraints import valid_utf8 as utf8_masks
from kerasgen.constraints.base import Constraint, ConstraintState
from kerasgen.constraints.valid_utf8 import Utf8Masks
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import batches as batching
from kerasgen.generation import forms
from kerasgen.generation.batches import ALL, Batch, Part
from kerasgen.generation.engine import TextSpace
from kerasgen.generation.writing import check_stop
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.resolving import is_hub_sampler, resolve
from kerasgen.samplers.searching import Beam

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What a call asks for. A prompt that is to have several texts stands here as often, one after the other.

    Args:
        sampler: a `SamplerSpec`, or KerasHub's own sampler.
        stop: strings at which a text ends.
        prompts: token ids of each text's beginning, the start token with them.
        limits: tokens that each text may have in all.
        seeds: of each text's random numbers.
        states: where each text stands in its form, or None where there is no form.
        utf8: what keeps the texts valid UTF-8, or None where an automaton does, every token does, or nothing shall.
        repeats: for each text how often its prompt came before; None where these prompts are all there are.
        copies: how many times each prompt of the call stands here.
        batch_size: texts generated at once, at most.
        logprobs: whether each token's log-probability is wanted.
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
    batch_size: int
    logprobs: bool

    def batches(self) -> Iterator[Batch]:
        """Yield the texts in batches of like length."""
        return batching.batches(
            self.prompts,
            self.limits,
            self.seeds,
            self.batch_size,
            equal_lengths=is_hub_sampler(self.sampler),
            repeats=self.repeats,
        )

    def by_prompt(self, found: list[list[T]]) -> list[list[T]]:
        """Return what was found for each text as what was found for each prompt of the call."""
        if self.copies == 1:
            return found
        return [[one for (one,) in found[n : n + self.copies]] for n in range(0, len(found), self.copies)]


def make(
    space: TextSpace,
    prompts: Sequence[Sequence[int]],
    *,
    sampler: Any,
    max_length: int | None,
    max_new_tokens: int | None,
    stop: str | Sequence[str] | None,
    constraint: Constraint | None,
    valid_utf8: bool,
    seed: int | Sequence[int],
    num_return_sequences: int | None = None,
    batch_size: int = 1,
    part: Part = ALL,
    logprobs: bool = False,
) -> Request:
    """Return the request of a call; the arguments are those of `generate_ids`.

    Raises:
        GenerateArgumentError: the call can't be carried out as written.
        SamplerArgumentError: `sampler` is no sampler.
    """
    spec, ends = resolve(sampler), check_stop(stop)
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise GenerateArgumentError(f"`batch_size` must be a whole number of at least 1. Received: {batch_size!r}.")
    if not isinstance(valid_utf8, bool):
        raise GenerateArgumentError(f"`valid_utf8` must be True or False. Received: {valid_utf8!r}.")
    spec, copies = _with_copies(spec, num_return_sequences)
    framed = batching.frame(space, prompts, first=part.first)
    limits = batching.limits(
        space, list(map(len, framed)), max_length=max_length, max_new_tokens=max_new_tokens, first=part.first
    )
    seeds = _seeds(spec, seed, len(framed))
    framed, limits, seeds = _repeated(framed, copies), _repeated(limits, copies), _repeated(seeds, copies)
    repeats = part.repeats
    if repeats is not None:
        repeats = [count * copies + copy for count in repeats for copy in range(copies)]
    states = forms.begin(space, framed, limits, constraint)
    # An automaton's form is one of characters; of another's states nobody knows. No mask comes to KerasHub's samplers.
    is_whole = constraint is not None and type(constraint).begin is Constraint.begin
    masked = valid_utf8 and not is_whole and not is_hub_sampler(spec)
    utf8 = utf8_masks.masks_of(space.tokenizer) if masked else None
    return Request(spec, ends, framed, limits, seeds, states, utf8, repeats, copies, batch_size, logprobs)


def check_prompts(prompts: Iterable[str]) -> list[str]:
    """Return the prompts as a list.

    Raises:
        GenerateArgumentError: they are no strings, or a single one.
    """
    found = specs.strings(prompts)
    if found is None:
        raise GenerateArgumentError(f"`prompts` must be a list of strings. Received: {prompts!r:.80}.")
    return found


def _with_copies(spec: Any, num_return_sequences: int | None) -> tuple[Any, int]:
    """The spec, and how often each prompt is to be run."""
    if num_return_sequences is None:
        return spec, 1
    count = num_return_sequences
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise GenerateArgumentError(
            f"`num_return_sequences` must be a whole number of at least 1. Received: {num_return_sequences!r}."
        )
    if isinstance(spec, Beam):
        if count > spec.num_beams:
            raise GenerateArgumentError(
                f"Beam search over {spec.num_beams} texts can return as many at most. Received: "
                f"num_return_sequences={count}. Raise `num_beams`."
            )
        return dataclasses.replace(spec, num_return_sequences=count), 1
    return spec, count


def _repeated(values: list[T], copies: int) -> list[T]:
    """Each value so many times, one after the other."""
    return [value for value in values for _ in range(copies)]


def _seeds(spec: Any, seed: int | Sequence[int], count: int) -> list[int]:
    """One seed for each prompt: the spec's own, or the call's."""
    several = [seed] * count if not isinstance(seed, Iterable) or isinstance(seed, str) else list(seed)
    if len(several) != count:
        raise GenerateArgumentError(
            f"`seed` must be one number, or one for each of the {count} prompts. Received: {len(several)} of them."
        )
    for one in several:
        if not isinstance(one, numbers.Integral) or isinstance(one, bool) or not 0 <= one < 2**64:
            raise GenerateArgumentError(f"`seed` must be a whole number from 0 to 2**64 - 1. Received: seed={one!r}.")
    own = getattr(spec, "seed", None) if isinstance(spec, SamplerSpec) else None
    return [int(one) for one in several] if own is None else [own] * count
