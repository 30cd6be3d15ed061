"""Generates texts from prompts: the functions that `kerasgen.generation` offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Unpack, cast

from kerasgen.constraints.base import Constraint
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import batch_decoding, engine_registry, guided, loops
from kerasgen.generation.batches import NO_OFFSET, Continuation, PromptOffset
from kerasgen.generation.config import (
    GenerationConfig,
    GenerationSettings,
    IdsSettings,
    StreamSettings,
    configured,
    takes,
)
from kerasgen.generation.detokenize import Writer, write
from kerasgen.generation.encoding import encode_prompts
from kerasgen.generation.engine import Engine
from kerasgen.generation.request import Request, check_prompts, make_request
from kerasgen.generation.shown_lists import ShownList, shortened
from kerasgen.keywords import checked
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import TokenSampler
from kerasgen.samplers.foreign_arguments import as_sampler
from kerasgen.samplers.lookahead import Contrastive
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
        proposed: as in `Continuation`.
        accepted: as in `Continuation`.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    score: float
    finished: bool
    proposed: int = 0
    accepted: int = 0

    def __repr__(self) -> str:
        figures = f", {self.logprob:.3f} nats a token" if self.logprobs else ""
        end = "finished" if self.finished else "cut at its length"
        return f"GeneratedText({shortened(self.text)}, {len(self.token_ids):,} tokens{figures}, {end})"

    def _repr_html_(self) -> str:
        html: str = import_module("kerasgen.reports.notebook").of_generated(self)  # which stands above this module
        return html

    @property
    def logprob(self) -> float:
        """Mean of `logprobs`, in nats a token; NaN without them."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else float("nan")


@checked(GenerateArgumentError, elsewhere=as_sampler)
@takes(GenerationSettings)
def generate(
    model: LanguageModel | Engine,
    prompts: Iterable[str],
    config: GenerationConfig | None = None,
    *,
    offset: PromptOffset = NO_OFFSET,
    start: bool = True,
    **settings: Unpack[GenerationSettings],
) -> list[Any]:
    """Return one text for each prompt.

    The same arguments give the same texts at every call (unless the sampler is KerasHub's own), and a prompt gives the
    same text alone and among others. A prompt that is given several times gets as many different draws.

    Sums are made in another order where another number of texts is computed at once. So a number that lies between two
    tokens to within rounding (1e-6) may fall on the other one: of 1,024 texts of 32 tokens, drawn from all 8,192
    tokens, 5 to 8 differed between batches of other sizes, and none with `top_k`.

    Args:
        model: the model and its tokenizer, or an engine.
        prompts: texts to go on from; "" where the tokenizer has a start token, which is put before each.
        config: the settings, a sampler among them; those that are given by name come first.
        offset: where these prompts stand among more.
        start: whether the start token is put before each; not before what a chat template wrote.
        **settings: keyword arguments of `GenerationConfig`.

    Returns:
        Texts without start, end and padding tokens. Bytes at the end that a length limit cut off in mid-character are
        left out; with `valid_utf8=False` there is U+FFFD where the model wrote bytes that are not UTF-8.

    Raises:
        GenerateArgumentError: the call can't be carried out as written, such as a prompt that is too long.
        SamplerArgumentError: `sampler` is no sampler.
        GenerationError: the model's logits are not finite, or a limit cut a text of an unbounded form before it was
            complete.
    """
    texts = check_prompts(prompts)
    config = configured("generate()", GenerationSettings, config, settings, needs=("sampler",))
    constraint = cast(Constraint | None, config.constraint)
    tokenizer = model.tokenizer
    encoded = encode_prompts(tokenizer, texts, config.allowed_special, start=start)
    request = make_request(model, encoded, config, offset=offset, logprobs=config.return_logprobs, start=start)
    continuations = batch_decoding.decode_request(model, request, engine=config.engine, progress=config.progress)

    def written(prompt: str, continuation: Continuation) -> Any:
        # Where `bad_words` leave nothing that completes a character, a text ends within it.
        ended = continuation.finished and request.utf8 is None
        begins = not prompt and constraint is None  # a constraint decides itself whether a space comes first
        text = write(tokenizer, continuation.token_ids, ended=ended, stop=request.stop, begins=begins)
        if constraint is not None and not continuation.finished:
            guided.check(constraint, prompt, text)
        text = prompt + text if config.return_prompt else text
        return (
            GeneratedText(
                text,
                continuation.token_ids,
                continuation.logprobs,
                continuation.score,
                continuation.finished,
                continuation.proposed,
                continuation.accepted,
            )
            if config.return_logprobs
            else text
        )

    kind: type[list[Any]] = ShownList if config.return_logprobs else list
    if config.num_return_sequences is not None:
        return [
            kind(written(text, continuation) for continuation in choices)
            for text, choices in zip(texts, continuations, strict=True)
        ]
    return kind(written(text, choices[0]) for text, choices in zip(texts, continuations, strict=True))


@checked(GenerateArgumentError, elsewhere=as_sampler)
@takes(IdsSettings)
def generate_ids(
    model: LanguageModel | Engine,
    prompts: Sequence[Sequence[int]],
    config: GenerationConfig | None = None,
    *,
    offset: PromptOffset = NO_OFFSET,
    logprobs: bool = True,
    **settings: Unpack[IdsSettings],
) -> list[list[Continuation]]:
    """Return the continuations of each prompt, the best first; with `stop`, up to the token that completed the string.

    Args:
        model: the model and its tokenizer, or an engine.
        prompts: token ids without the start token, which is put before each if there is one.
        config: the settings, a sampler among them; those that are given by name come first.
        offset: where these prompts stand among more.
        logprobs: whether each token's log-probability is wanted; without, a sampler's texts may have NaN for a score,
            and an engine may compute fewer logits.
        **settings: keyword arguments of `GenerationConfig`.

    Returns:
        For each prompt one continuation, or `num_return_sequences` (with beam search at most so many).

    Raises:
        GenerateArgumentError: the call can't be carried out as written, such as a prompt that is too long.
        SamplerArgumentError: `sampler` is no sampler.
        GenerationError: the model's logits are not finite.
    """
    config = configured("generate_ids()", IdsSettings, config, settings, needs=("sampler",))
    request = make_request(model, prompts, config, offset=offset, logprobs=logprobs)
    return batch_decoding.decode_request(model, request, engine=config.engine, progress=config.progress)


def require_streaming(spec: Any) -> None:
    """Refuse a sampler that does not choose token by token.

    Raises:
        GenerateArgumentError: `spec` is one.
    """
    if not isinstance(spec, (TokenSampler, Contrastive)):
        raise GenerateArgumentError(
            f"A text of {type(spec).__name__} is known only when it is complete, so it can't be streamed. Use "
            "generate, or a sampler that chooses token by token."
        )


@checked(GenerateArgumentError, elsewhere=as_sampler)
@takes(StreamSettings)
def stream(
    model: LanguageModel | Engine,
    prompt: str,
    config: GenerationConfig | None = None,
    *,
    start: bool = True,
    **settings: Unpack[StreamSettings],
) -> Iterator[str]:
    """Yield a text piece by piece as it is generated; joined, the pieces are what `generate` returns.

    A piece holds whole characters only, and is never empty; what could become a stop string is held back until it is
    certain. Arguments are checked at the call, not at the first piece. Closing the iterator ends the work.

    Args:
        model: the model and its tokenizer, or an engine.
        prompt: text to go on from; it comes first, in a piece of its own, where `return_prompt` asks for it.
        config: the settings, a sampler that chooses token by token among them; those given by name come first.
        start: whether the start token is put before it; not before what a chat template wrote.
        **settings: keyword arguments of `GenerationConfig`.

    Raises:
        GenerateArgumentError: the call can't be carried out as written, or the sampler is of a kind that knows a text
            only when it is complete.
        SamplerArgumentError: `sampler` is no sampler.
        GenerationError: the model's logits are not finite.
    """
    config = configured("stream()", StreamSettings, config, settings, needs=("sampler",))
    spec, constraint = config.sampler, cast(Constraint | None, config.constraint)
    (text,) = check_prompts([prompt])
    require_streaming(spec)
    encoded = encode_prompts(model.tokenizer, [text], config.allowed_special, start=start)
    request = make_request(model, encoded, config, start=start)
    decoder = engine_registry.resolve(model, config.engine, longest=request.limits[0])
    (batch,) = request.batches()
    # Called here and not at the first piece, because it raises if no loop fits the sampler.
    steps = batch_decoding.choices(
        decoder,
        batch,
        spec,
        loops.Texts(batch, decoder.tokenizer, request.utf8),
        request.states,
        logprobs=False,
        speculation=request.speculation,
    )
    begins = not text and constraint is None
    pieces = _pieces(steps, decoder.tokenizer, request, text if config.return_prompt else "", begins=begins)
    if constraint is None:
        return pieces
    return guided.follow(pieces, constraint, text, config.return_prompt, request.stop)


def decode(model: LanguageModel | Engine, continuation: Continuation) -> str:
    """Return the text of a continuation, without special tokens and without a character that a limit cut in two."""
    text = write(model.tokenizer, continuation.token_ids, ended=continuation.finished)
    return text[: continuation.stopped]


def _pieces(
    steps: Iterator[loops.Chosen], tokenizer: Tokenizer, request: Request, prompt: str, *, begins: bool
) -> Iterator[str]:
    """Yield the pieces of the text that these steps choose, its prompt first."""
    if prompt:
        yield prompt
    writer = Writer(tokenizer, request.stop, begins=begins)
    finished = False
    for chosen in steps:
        finished = int(chosen.token_ids[0]) in tokenizer.end_token_ids
        piece = writer.push(int(chosen.token_ids[0]))
        if piece:
            yield piece
        if writer.stopped is not None:
            return
    last_piece = writer.finish(ended=finished and request.utf8 is None)
    if last_piece:
        yield last_piece
