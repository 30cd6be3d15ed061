"""Prompts become texts: what `kerasgen.generation` offers."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kerasgen import specs
from kerasgen.constraints.base import Constraint, ConstraintState
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import batches as batching
from kerasgen.generation import engines, forms, loops, searches
from kerasgen.generation.batches import ALL, Batch, Continuation, Part
from kerasgen.generation.engine import Engine
from kerasgen.generation.engines import EngineSource
from kerasgen.generation.writing import Writer, check_stop, write
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec, TokenSampler
from kerasgen.samplers.resolving import is_hub_sampler, resolve
from kerasgen.samplers.searching import Beam, Contrastive


@dataclass(frozen=True)
class GeneratedText:
    """A text with what is known about its tokens.

    Args:
        text: what `generate` returns without `return_logprobs`.
        token_ids: the generated ones, up to the one that ended the text.
        logprobs: in nats, what the model itself gave each token, whatever the sampler made of it; empty for searches.
        score: as in `Continuation`.
        finished: as in `Continuation`.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    finished: bool


def generate(
    model: LanguageModel | Engine,
    prompts: Iterable[str],
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    constraint: Constraint | None = None,
    num_return_sequences: int | None = None,
    return_logprobs: bool = False,
    return_prompt: bool = True,
    seed: int | Sequence[int] = 0,
    batch_size: int = 32,
    engine: str | EngineSource = "auto",
    progress: bool | None = None,
    part: Part = ALL,
) -> list[Any]:
    """Return one text for each prompt.

    The same arguments give the same texts at every call (unless the sampler is KerasHub's own), and a prompt gives the
    same text alone and among others. A prompt that is given several times gets as many different draws.

    Args:
        model: the model and its tokenizer, or an engine.
        prompts: texts to go on from; "" where the tokenizer has a start token, which is put before each.
        sampler: a `SamplerSpec`, text such as `"top_k:k=40"`, or a `keras_hub.samplers.Sampler` instance.
        max_length: tokens of a whole text; as in KerasHub, the start token, the prompt and an end token count.
        max_new_tokens: tokens generated after the prompt, instead. With neither given, as many as the model has
            positions, or 256 in all where it has no limit.
        stop: strings at which a text ends, wherever they lie across tokens; the text is what stands before the first.
            A search (beam, contrastive) looks for them when its texts are complete.
        constraint: a form that every text has: its masks come before all that the sampler excludes, and the text is
            complete when its limit comes. Only a stop string ends it sooner.
        num_return_sequences: how many texts for each prompt, each its own draw (of beam search: the best). Given, even
            as 1, each prompt's texts come as a list.
        return_logprobs: return `GeneratedText` values instead of strings.
        return_prompt: begin each text with its prompt, exactly as it was given.
        seed: for specs that have none of their own; one, or one for each prompt.
        batch_size: texts generated at once, at most.
        engine: which engine decodes a `LanguageModel`; see `kerasgen.generation.engines.resolve`.
        progress: show a bar on standard error; None does where that is a terminal and there is more than one batch.
        part: where these prompts stand among more.

    Returns:
        Texts without start, end and padding tokens. Bytes at the end that a length limit cut off in mid-character are
        left out; where the model itself wrote bytes that are not UTF-8 there is U+FFFD.

    Raises:
        GenerateArgumentError: the call can't be carried out as written, such as a prompt that is too long.
        SamplerArgumentError: `sampler` is no sampler.
        GenerationError: the model's logits are not finite, or a limit cut a text of an unbounded form before it was
            complete.
    """
    texts = _check_prompts(prompts)
    tokenizer = model.tokenizer
    found = generate_ids(
        model,
        tokenizer.encode_batch(texts),
        sampler=sampler,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        stop=stop,
        constraint=constraint,
        num_return_sequences=num_return_sequences,
        seed=seed,
        batch_size=batch_size,
        engine=engine,
        progress=progress,
        part=part,
        logprobs=return_logprobs,
    )
    ends = check_stop(stop)

    def written(prompt: str, one: Continuation) -> Any:
        text = write(tokenizer, one.token_ids, ended=one.finished, stop=ends)
        if constraint is not None and not one.finished:
            forms.check(constraint, prompt, text)
        text = prompt + text if return_prompt else text
        return GeneratedText(text, one.token_ids, one.nats, one.score, one.finished) if return_logprobs else text

    if num_return_sequences is not None:
        return [[written(text, one) for one in several] for text, several in zip(texts, found, strict=True)]
    return [written(text, several[0]) for text, several in zip(texts, found, strict=True)]


def generate_ids(
    model: LanguageModel | Engine,
    prompts: Sequence[Sequence[int]],
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    constraint: Constraint | None = None,
    num_return_sequences: int | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int = 32,
    engine: str | EngineSource = "auto",
    progress: bool | None = None,
    part: Part = ALL,
    logprobs: bool = True,
) -> list[list[Continuation]]:
    """Return the continuations of each prompt, the best first.

    Args:
        model: the model and its tokenizer, or an engine.
        prompts: token ids without the start token, which is put before each if there is one.
        sampler: as in `generate`.
        max_length: as in `generate`.
        max_new_tokens: as in `generate`.
        stop: as in `generate`; the ids go on to the token that completed the stop string.
        constraint: as in `generate`.
        num_return_sequences: as in `generate`.
        seed: as in `generate`.
        batch_size: as in `generate`.
        engine: as in `generate`.
        progress: as in `generate`.
        part: as in `generate`.
        logprobs: whether each token's log-probability is wanted; without, a sampler's texts have no score (NaN), and an
            engine may compute fewer logits.

    Returns:
        For each prompt one continuation, or `num_return_sequences` (with beam search at most so many).

    Raises:
        GenerateArgumentError: as in `generate`.
        SamplerArgumentError: as in `generate`.
        GenerationError: as in `generate`.
    """
    spec = resolve(sampler)
    ends = check_stop(stop)
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise GenerateArgumentError(f"`batch_size` must be a whole number of at least 1. Received: {batch_size!r}.")
    spec, copies = _copies(spec, num_return_sequences)
    framed, limits = _prepare(model, prompts, max_length, max_new_tokens, part.first)
    seeds = _seeds(spec, seed, len(framed))
    if copies > 1:
        framed = [prompt for prompt in framed for _ in range(copies)]
        limits = [limit for limit in limits for _ in range(copies)]
        seeds = [one for one in seeds for _ in range(copies)]
    begun = forms.begin(model, framed, limits, constraint)
    repeats = part.repeats
    if repeats is not None:
        repeats = [count * copies + copy for count in repeats for copy in range(copies)]
    cut = batching.batches(framed, limits, seeds, batch_size, equal_lengths=is_hub_sampler(spec), repeats=repeats)
    found: list[list[Continuation]] = [[] for _ in framed]
    with _bar(len(framed), progress if len(framed) > batch_size else False) as bar:
        for batch, continuations in _run(model, cut, spec, ends, begun, engine, max(limits, default=0), logprobs):
            for place, several in zip(batch.places, continuations, strict=True):
                found[place] = several
            bar.update(len(batch.places))
    if copies > 1:
        found = [[one for (one,) in found[n : n + copies]] for n in range(0, len(found), copies)]
    return found


def stream(
    model: LanguageModel | Engine,
    prompt: str,
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    constraint: Constraint | None = None,
    return_prompt: bool = True,
    seed: int = 0,
    engine: str | EngineSource = "auto",
) -> Iterator[str]:
    """Yield a text piece by piece as it is generated; joined, the pieces are what `generate` returns.

    A piece holds whole characters only, and is never empty; what could become a stop string is held back until it is
    certain. Arguments are checked at the call, not at the first piece. Closing the iterator ends the work.

    Args:
        model: as in `generate`.
        prompt: text to go on from.
        sampler: as in `generate`, but only kinds that choose token by token.
        max_length: as in `generate`.
        max_new_tokens: as in `generate`.
        stop: as in `generate`.
        constraint: as in `generate`.
        return_prompt: yield the prompt first, in a piece of its own.
        seed: as in `generate`.
        engine: as in `generate`.

    Raises:
        GenerateArgumentError: as in `generate`, and for samplers that know a text only when it is complete.
    """
    spec = resolve(sampler)
    ends = check_stop(stop)
    (text,) = _check_prompts([prompt])
    if not isinstance(spec, (TokenSampler, Contrastive)):
        raise GenerateArgumentError(
            f"A text of {type(spec).__name__} is known only when it is complete, so it can't be streamed. Use "
            "generate, or a sampler that chooses token by token."
        )
    framed, limits = _prepare(model, [model.tokenizer.encode(text)], max_length, max_new_tokens)
    (batch,) = batching.batches(framed, limits, _seeds(spec, seed, 1), 1)
    decoder = engines.resolve(model, engine, longest=limits[0])
    states = forms.begin(model, framed, limits, constraint)
    pieces = _stream(decoder, batch, spec, states, ends, text if return_prompt else "")
    return pieces if constraint is None else forms.follow(pieces, constraint, text, return_prompt, ends)


def decode(model: LanguageModel | Engine, continuation: Continuation) -> str:
    """Return the text of a continuation, without special tokens and without a character that a limit cut in two."""
    text = write(model.tokenizer, continuation.token_ids, ended=continuation.finished)
    return text[: continuation.stopped]


def _stream(
    engine: Engine,
    batch: Batch,
    spec: TokenSampler | Contrastive,
    states: list[ConstraintState] | None,
    stop: tuple[str, ...],
    prompt: str,
) -> Iterator[str]:
    if prompt:
        yield prompt
    writer = Writer(engine.tokenizer, stop)
    finished = False
    for chosen in _choices(engine, batch, spec, loops.Texts(batch, engine.tokenizer), states, logprobs=False):
        finished = int(chosen.token_ids[0]) == engine.tokenizer.end_token_id
        piece = writer.push(int(chosen.token_ids[0]))
        if piece:
            yield piece
        if writer.stopped is not None:
            return
    rest = writer.finish(ended=finished)
    if rest:
        yield rest


def _check_prompts(prompts: Iterable[str]) -> list[str]:
    found = specs.strings(prompts)
    if found is None:
        raise GenerateArgumentError(f"`prompts` must be a list of strings. Received: {prompts!r:.80}.")
    return found


def _copies(spec: Any, num_return_sequences: int | None) -> tuple[Any, int]:
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


def _prepare(
    model: LanguageModel | Engine,
    prompts: Sequence[Sequence[int]],
    max_length: int | None,
    max_new_tokens: int | None,
    first: int = 0,
) -> tuple[list[list[int]], list[int]]:
    framed = batching.frame(model, prompts, first=first)
    lengths = [len(prompt) for prompt in framed]
    return framed, batching.limits(model, lengths, max_length=max_length, max_new_tokens=max_new_tokens, first=first)


def _bar(total: int, shown: bool | None) -> Any:
    from tqdm.auto import tqdm

    return tqdm(
        total=total, desc="generating", unit=" texts", disable=None if shown is None else not shown, leave=False
    )


def _run(
    model: LanguageModel | Engine,
    cut: Iterator[Batch],
    spec: Any,
    stop: tuple[str, ...],
    begun: Sequence[ConstraintState] | None,
    engine: str | EngineSource,
    longest: int,
    logprobs: bool,
) -> Iterator[tuple[Batch, list[list[Continuation]]]]:
    if is_hub_sampler(spec):
        if not isinstance(model, LanguageModel) or begun is not None or stop:
            raise GenerateArgumentError(
                "KerasHub's own samplers run on a Keras model, without constraints and stop strings. Use one of "
                f"kerasgen's. Received: sampler={spec!r}."
            )
        from kerasgen.generation import hub_samplers

        for batch, continuations in hub_samplers.run(model, cut, spec):
            yield batch, [[continuation] for continuation in continuations]
        return
    decoder = engines.resolve(model, engine, longest=longest)
    for batch in cut:
        states = None if begun is None else [begun[place] for place in batch.places]
        if isinstance(spec, Beam):
            found = searches.search_beams(decoder, batch, spec, states)
            yield batch, [[_stopped(decoder, one, stop) for one in several] for several in found]
        else:
            yield batch, [[one] for one in _collect(decoder, batch, spec, states, stop, logprobs)]


def _choices(
    engine: Engine,
    batch: Batch,
    spec: SamplerSpec,
    texts: loops.Texts,
    states: list[ConstraintState] | None,
    logprobs: bool,
) -> Iterator[loops.Chosen]:
    if isinstance(spec, TokenSampler):
        return loops.sample(engine, batch, spec, texts, states, nats=logprobs)
    if isinstance(spec, Contrastive):
        if states is not None:
            raise GenerateArgumentError("Contrastive search takes no constraint. Use a sampler, or beam search.")
        return loops.search_contrastively(engine, batch, spec, texts)
    raise GenerateArgumentError(
        f"No decoding loop runs a sampler of the kind {type(spec).__name__}. Subclass "
        "kerasgen.samplers.base.TokenSampler to choose token by token."
    )


def _collect(
    engine: Engine,
    batch: Batch,
    spec: SamplerSpec,
    states: list[ConstraintState] | None,
    stop: tuple[str, ...],
    logprobs: bool,
) -> list[Continuation]:
    texts = loops.Texts(batch, engine.tokenizer)
    token_ids: list[list[int]] = [[] for _ in batch.places]
    nats: list[list[float]] = [[] for _ in batch.places]
    writers = [Writer(engine.tokenizer, stop) for _ in batch.places] if stop else []
    for step in _choices(engine, batch, spec, texts, states, logprobs):
        for row, token_id, own in zip(step.rows.tolist(), step.token_ids.tolist(), step.nats.tolist(), strict=True):
            token_ids[row].append(token_id)
            nats[row].append(own)
            if stop:
                writers[row].push(token_id)
                if writers[row].stopped is not None:
                    texts.stop(row)
    end = engine.tokenizer.end_token_id
    found = []
    for row, ids in enumerate(token_ids):
        if stop and writers[row].stopped is None:
            writers[row].finish(ended=ids[-1] == end)  # what was held back may hold a stop string's last character
        stopped = writers[row].stopped if stop else None
        finished = ids[-1] == end or stopped is not None
        found.append(Continuation(tuple(ids), sum(nats[row]), finished, tuple(nats[row]) if logprobs else (), stopped))
    return found


def _stopped(engine: Engine, one: Continuation, stop: Iterable[str]) -> Continuation:
    """A complete text, cut at the first stop string in it."""
    writer = Writer(engine.tokenizer, tuple(stop))
    for count, token_id in enumerate(one.token_ids, start=1):
        writer.push(token_id)
        if writer.stopped is not None:
            return Continuation(one.token_ids[:count], one.score, True, (), writer.stopped)
    return one
