"""Prompts become texts: what `kerasgen.generation` offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import batches as batching
from kerasgen.generation import hub_samplers, loops
from kerasgen.generation.batches import Batch, Continuation
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec, TokenSampler
from kerasgen.samplers.resolving import is_hub_sampler, resolve
from kerasgen.samplers.searching import Beam, Contrastive


def generate(
    model: LanguageModel,
    prompts: Sequence[str],
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    return_prompt: bool = True,
    seed: int = 0,
    batch_size: int = 32,
) -> list[str]:
    """Return one text for each prompt.

    The same arguments give the same texts at every call (unless the sampler is KerasHub's own), and a prompt gives the
    same text alone and among others. A prompt that is given several times gets as many different draws.

    Args:
        model: the model and its tokenizer.
        prompts: texts to go on from; "" where the tokenizer has a start token, which is put before each.
        sampler: a `SamplerSpec`, text such as `"top_k:k=40"`, or a `keras_hub.samplers.Sampler` instance.
        max_length: tokens of a whole text; as in KerasHub, the start token, the prompt and an end token count.
        max_new_tokens: tokens generated after the prompt, instead. With neither given, as many as the model has
            positions, or 256 in all where it has no limit.
        return_prompt: begin each text with its prompt, exactly as it was given.
        seed: for specs that have none of their own.
        batch_size: prompts generated from at once, at most.

    Returns:
        Texts without start, end and padding tokens. Bytes at the end that a length limit cut off in mid-character are
        left out; where the model itself wrote bytes that are not UTF-8 there is U+FFFD.

    Raises:
        GenerateArgumentError: the call can't be carried out as written, such as a prompt that is too long.
        SamplerArgumentError: `sampler` is no sampler.
        GenerationError: the model's logits are not finite.
    """
    texts = _check_prompts(prompts)
    found = generate_ids(
        model,
        model.tokenizer.encode_batch(texts),
        sampler=sampler,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        seed=seed,
        batch_size=batch_size,
    )
    best = [decode(model, continuations[0]) for continuations in found]
    return [prompt + text for prompt, text in zip(texts, best, strict=True)] if return_prompt else best


def generate_ids(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> list[list[Continuation]]:
    """Return the continuations of each prompt, the best first.

    Args:
        model: the model and its tokenizer.
        prompts: token ids without the start token, which is put before each if there is one.
        sampler: as in `generate`.
        max_length: as in `generate`.
        max_new_tokens: as in `generate`.
        seed: as in `generate`.
        batch_size: as in `generate`.

    Returns:
        For each prompt one continuation, or up to `num_return_sequences` with beam search.

    Raises:
        GenerateArgumentError: as in `generate`.
        SamplerArgumentError: as in `generate`.
        GenerationError: as in `generate`.
    """
    spec = resolve(sampler)
    framed, limits = _prepare(model, prompts, max_length, max_new_tokens, seed)
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise GenerateArgumentError(f"`batch_size` must be a whole number of at least 1. Received: {batch_size!r}.")
    cut = batching.batches(model, framed, limits, batch_size, equal_lengths=is_hub_sampler(spec))
    found: list[list[Continuation]] = [[] for _ in framed]
    for batch, continuations in _run(model, cut, spec, seed):
        for place, several in zip(batch.places, continuations, strict=True):
            found[place] = several
    return found


def stream(
    model: LanguageModel,
    prompt: str,
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    return_prompt: bool = True,
    seed: int = 0,
) -> Iterator[str]:
    """Yield a text piece by piece as it is generated; joined, the pieces are what `generate` returns.

    A piece holds whole characters only, and is never empty. Arguments are checked at the call, not at the first piece.

    Args:
        model: as in `generate`.
        prompt: as in `generate`.
        sampler: as in `generate`; a spec that chooses token by token, or contrastive search.
        max_length: as in `generate`.
        max_new_tokens: as in `generate`.
        return_prompt: yield the prompt first.
        seed: as in `generate`.

    Raises:
        GenerateArgumentError: as in `generate`, and for samplers that know a text only when it is complete.
    """
    spec = resolve(sampler)
    (text,) = _check_prompts([prompt])
    if not isinstance(spec, (TokenSampler, Contrastive)):
        raise GenerateArgumentError(
            f"A text of {type(spec).__name__} is known only when it is complete, so it can't be streamed. Use "
            "generate, or a sampler that chooses token by token."
        )
    framed, limits = _prepare(model, [model.tokenizer.encode(text)], max_length, max_new_tokens, seed)
    (batch,) = batching.batches(model, framed, limits, 1)
    return _stream(model, batch, spec, seed, text if return_prompt else "")


def decode(model: LanguageModel, continuation: Continuation) -> str:
    """Return the text of a continuation, without special tokens and without a character that a limit cut in two."""
    decoder = model.tokenizer.decoder(skip_special_tokens=True)
    text = "".join(map(decoder.push, continuation.token_ids))
    rest = decoder.finish()
    # What is left over are the first bytes of a character. The next token might have completed it, unless the model
    # has ended the text there.
    return text + (rest if continuation.finished else rest.rstrip("\ufffd"))


def _stream(
    model: LanguageModel, batch: Batch, spec: TokenSampler | Contrastive, seed: int, prompt: str
) -> Iterator[str]:
    if prompt:
        yield prompt
    decoder = model.tokenizer.decoder(skip_special_tokens=True)
    finished = False
    for chosen in _choices(model, batch, spec, seed):
        finished = int(chosen.token_ids[0]) == model.tokenizer.end_token_id
        piece = decoder.push(int(chosen.token_ids[0]))
        if piece:
            yield piece
    rest = decoder.finish()
    rest = rest if finished else rest.rstrip("\ufffd")
    if rest:
        yield rest


def _check_prompts(prompts: Sequence[str]) -> list[str]:
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise GenerateArgumentError(f"`prompts` must be a list of strings. Received: {prompts!r}.")
    return list(prompts)


def _prepare(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_length: int | None,
    max_new_tokens: int | None,
    seed: int,
) -> tuple[list[list[int]], list[int]]:
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise GenerateArgumentError(f"`seed` must be a whole number from 0 to 2**64 - 1. Received: seed={seed!r}.")
    framed = batching.frame(model, prompts)
    lengths = [len(prompt) for prompt in framed]
    return framed, batching.limits(model, lengths, max_length=max_length, max_new_tokens=max_new_tokens)


def _run(
    model: LanguageModel, cut: Iterator[Batch], spec: Any, seed: int
) -> Iterator[tuple[Batch, list[list[Continuation]]]]:
    if is_hub_sampler(spec):
        for batch, continuations in hub_samplers.run(model, cut, spec):
            yield batch, [[continuation] for continuation in continuations]
        return
    for batch in cut:
        if isinstance(spec, Beam):
            yield batch, loops.search_beams(model, batch, spec)
        else:
            yield batch, [[one] for one in _collect(model, batch, _choices(model, batch, spec, seed))]


def _choices(model: LanguageModel, batch: Batch, spec: SamplerSpec, seed: int) -> Iterator[loops.Chosen]:
    if isinstance(spec, TokenSampler):
        return loops.sample(model, batch, spec, seed if spec.seed is None else spec.seed)
    if isinstance(spec, Contrastive):
        return loops.search_contrastively(model, batch, spec)
    raise GenerateArgumentError(
        f"No decoding loop runs a sampler of the kind {type(spec).__name__}. Subclass "
        "kerasgen.samplers.base.TokenSampler to choose token by token."
    )


def _collect(model: LanguageModel, batch: Batch, steps: Iterable[loops.Chosen]) -> list[Continuation]:
    token_ids: list[list[int]] = [[] for _ in batch.places]
    scores = [0.0 for _ in batch.places]
    for step in steps:
        for row, token_id, nats in zip(step.rows, step.token_ids, step.nats, strict=True):
            token_ids[row].append(int(token_id))
            scores[row] += float(nats)
    end = model.tokenizer.end_token_id
    return [Continuation(tuple(ids), score, ids[-1] == end) for ids, score in zip(token_ids, scores, strict=True)]
