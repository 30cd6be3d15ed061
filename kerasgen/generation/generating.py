"""Prompts become texts: what `kerasgen.generation` offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kerasgen.constraints.base import Constraint
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import decoding, engines, forms, loops, requests
from kerasgen.generation.batches import ALL, Continuation, Part
from kerasgen.generation.engine import Engine
from kerasgen.generation.engines import EngineSource
from kerasgen.generation.requests import Request
from kerasgen.generation.writing import Writer, write
from kerasgen.keywords import checked
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import TokenSampler
from kerasgen.samplers.borrowed import as_sampler
from kerasgen.samplers.resolving import resolve
from kerasgen.samplers.searching import Contrastive
from kerasgen.tokens.base import Tokenizer


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


@checked(GenerateArgumentError, elsewhere=as_sampler)
def generate(
    model: LanguageModel | Engine,
    prompts: Iterable[str],
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    constraint: Constraint | None = None,
    valid_utf8: bool = True,
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
        valid_utf8: choose only tokens that keep the text valid UTF-8, as every text does whose tokens are whole
            characters. A token that would end a character in its midst, and U+FFFD, is left out before the sampler
            chooses; log-probabilities, and the scores of beams, are of the model as it is. KerasHub's own samplers
            know nothing of it.
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
        left out; with `valid_utf8=False` there is U+FFFD where the model wrote bytes that are not UTF-8.

    Raises:
        GenerateArgumentError: the call can't be carried out as written, such as a prompt that is too long.
        SamplerArgumentError: `sampler` is no sampler.
        GenerationError: the model's logits are not finite, or a limit cut a text of an unbounded form before it was
            complete.
    """
    texts = requests.check_prompts(prompts)
    tokenizer = model.tokenizer
    request = requests.make(
        model,
        tokenizer.encode_batch(texts),
        sampler=sampler,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        stop=stop,
        constraint=constraint,
        valid_utf8=valid_utf8,
        seed=seed,
        num_return_sequences=num_return_sequences,
        batch_size=batch_size,
        part=part,
        logprobs=return_logprobs,
    )
    found = decoding.decode_request(model, request, engine=engine, progress=progress)

    def written(prompt: str, one: Continuation) -> Any:
        # Where `bad_words` leave nothing that completes a character, a text ends within it.
        ended = one.finished and request.utf8 is None
        text = write(tokenizer, one.token_ids, ended=ended, stop=request.stop)
        if constraint is not None and not one.finished:
            forms.check(constraint, prompt, text)
        text = prompt + text if return_prompt else text
        return GeneratedText(text, one.token_ids, one.nats, one.score, one.finished) if return_logprobs else text

    if num_return_sequences is not None:
        return [[written(text, one) for one in several] for text, several in zip(texts, found, strict=True)]
    return [written(text, several[0]) for text, several in zip(texts, found, strict=True)]


@checked(GenerateArgumentError, elsewhere=as_sampler)
def generate_ids(
    model: LanguageModel | Engine,
    prompts: Sequence[Sequence[int]],
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    constraint: Constraint | None = None,
    valid_utf8: bool = True,
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
        valid_utf8: as in `generate`.
        num_return_sequences: as in `generate`.
        seed: as in `generate`.
        batch_size: as in `generate`.
        engine: as in `generate`.
        progress: as in `generate`.
        part: as in `generate`.
        logprobs: whether each token's log-probability is wanted; without, a sampler's texts may have NaN for a score,
            and an engine may compute fewer logits.

    Returns:
        For each prompt one continuation, or `num_return_sequences` (with beam search at most so many).

    Raises:
        GenerateArgumentError: as in `generate`.
        SamplerArgumentError: as in `generate`.
        GenerationError: as in `generate`.
    """
    request = requests.make(
        model,
        prompts,
        sampler=sampler,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        stop=stop,
        constraint=constraint,
        valid_utf8=valid_utf8,
        seed=seed,
        num_return_sequences=num_return_sequences,
        batch_size=batch_size,
        part=part,
        logprobs=logprobs,
    )
    return decoding.decode_request(model, request, engine=engine, progress=progress)


@checked(GenerateArgumentError, elsewhere=as_sampler)
def stream(
    model: LanguageModel | Engine,
    prompt: str,
    *,
    sampler: Any,
    max_length: int | None = None,
    max_new_tokens: int | None = None,
    stop: str | Sequence[str] | None = None,
    constraint: Constraint | None = None,
    valid_utf8: bool = True,
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
        valid_utf8: as in `generate`.
        return_prompt: yield the prompt first, in a piece of its own.
        seed: as in `generate`.
        engine: as in `generate`.

    Raises:
        GenerateArgumentError: as in `generate`, and for samplers that know a text only when it is complete.
    """
    spec = resolve(sampler)
    (text,) = requests.check_prompts([prompt])
    if not isinstance(spec, (TokenSampler, Contrastive)):
        raise GenerateArgumentError(
            f"A text of {type(spec).__name__} is known only when it is complete, so it can't be streamed. Use "
            "generate, or a sampler that chooses token by token."
        )
    request = requests.make(
        model,
        [model.tokenizer.encode(text)],
        sampler=spec,
        max_length=max_length,
        max_new_tokens=max_new_tokens,
        stop=stop,
        constraint=constraint,
        valid_utf8=valid_utf8,
        seed=seed,
    )
    decoder = engines.resolve(model, engine, longest=request.limits[0])
    (batch,) = request.batches()
    # Here and not at the first piece, for it says whether there is a loop for the sampler.
    steps = decoding.choices(
        decoder, batch, spec, loops.Texts(batch, decoder.tokenizer, request.utf8), request.states, logprobs=False
    )
    pieces = _pieces(steps, decoder.tokenizer, request, text if return_prompt else "")
    return pieces if constraint is None else forms.follow(pieces, constraint, text, return_prompt, request.stop)


def decode(model: LanguageModel | Engine, continuation: Continuation) -> str:
    """Return the text of a continuation, without special tokens and without a character that a limit cut in two."""
    text = write(model.tokenizer, continuation.token_ids, ended=continuation.finished)
    return text[: continuation.stopped]


def _pieces(steps: Iterator[loops.Chosen], tokenizer: Tokenizer, request: Request, prompt: str) -> Iterator[str]:
    """The pieces of the one text that these steps choose, its prompt before them."""
    if prompt:
        yield prompt
    writer = Writer(tokenizer, request.stop)
    finished = False
    for chosen in steps:
        finished = int(chosen.token_ids[0]) in tokenizer.end_token_ids
        piece = writer.push(int(chosen.token_ids[0]))
        if piece:
            yield piece
        if writer.stopped is not None:
            return
    rest = writer.finish(ended=finished and request.utf8 is None)
    if rest:
        yield rest
