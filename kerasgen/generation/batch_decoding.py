"""Decodes a request batch by batch, and returns the continuations of its prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from kerasgen.constraints.base import ConstraintState
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import beam_loop, engine_registry, loops, proposing
from kerasgen.generation.batches import Batch, Continuation
from kerasgen.generation.detokenize import Writer
from kerasgen.generation.engine import Engine, QueueingEngine, SharingEngine, SizingEngine
from kerasgen.generation.engine_registry import EngineSource
from kerasgen.generation.proposing import Speculation
from kerasgen.generation.request import USUAL_BATCH_SIZE, Request
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec, TokenSampler
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.resolving import is_hub_sampler
from kerasgen.terminal import size_for_bars

_FEWEST_SLOTS = 8  # of a queue; fewer texts at once are asked for by who has little memory, or wants one at a time


def decode_request(
    model: LanguageModel | Engine, request: Request, *, engine: str | EngineSource, progress: bool | None
) -> list[list[Continuation]]:
    """Return the continuations of each prompt of the call, the best first.

    Args:
        model: the model and its tokenizer, or an engine.
        request: the request of the call.
        engine: what decodes, by its name or as a value.
        progress: whether a bar is shown; None for where standard error is a terminal.

    Raises:
        GenerateArgumentError: the sampler asks for what the engine doesn't do.
        GenerationError: the model's logits are not finite.
    """
    by_text: list[list[Continuation]] = [[] for _ in request.prompts]
    shown = progress if len(request.prompts) > (request.batch_size or USUAL_BATCH_SIZE) else False
    with _bar(len(request.prompts), shown) as bar:
        for places, continuations in _decode_batches(model, request, engine):
            for place, of_prompt in zip(places, continuations, strict=True):
                by_text[place] = of_prompt
            bar.update(len(places))
    return request.by_prompt(by_text)


def choices(
    engine: Engine,
    batch: Batch,
    spec: SamplerSpec,
    texts: loops.Texts,
    states: list[ConstraintState] | None,
    *,
    logprobs: bool,
    speculation: Speculation | None = None,
    in_pieces: bool = True,
) -> Iterator[loops.Chosen]:
    """Return the decoding loop of a sampler that chooses token by token, which yields each step's tokens.

    Raises:
        GenerateArgumentError: no loop runs this sampler, or not under a constraint, or not with proposed tokens.
    """
    if isinstance(spec, TokenSampler):
        if speculation is not None:
            return proposing.sample(engine, batch, spec, texts, states, speculation)
        return loops.sample(engine, batch, spec, texts, states, logprobs=logprobs, in_pieces=in_pieces)
    if isinstance(spec, Contrastive):
        if states is not None:
            raise GenerateArgumentError("Contrastive search takes no constraint. Use a sampler, or beam search.")
        return loops.search_contrastively(engine, batch, spec, texts)
    raise GenerateArgumentError(
        f"No decoding loop runs a sampler of the kind {type(spec).__name__}. Subclass "
        "kerasgen.samplers.base.TokenSampler to choose token by token."
    )


def _bar(total: int, shown: bool | None) -> Any:
    from tqdm.auto import tqdm

    disable = None if shown is None else not shown
    return tqdm(total=total, desc="generating", unit=" texts", disable=disable, leave=False, **size_for_bars())


def _decode_batches(
    model: LanguageModel | Engine, request: Request, engine: str | EngineSource
) -> Iterator[tuple[Sequence[int], list[list[Continuation]]]]:
    spec = request.sampler
    if is_hub_sampler(spec):
        if not isinstance(model, LanguageModel) or request.states is not None or request.stop:
            raise GenerateArgumentError(
                "KerasHub's own samplers run on a Keras model, without constraints and stop strings. Use one of "
                f"kerasgen's. Received: sampler={spec!r}."
            )
        from kerasgen.generation import hub_samplers

        for batch, continuations in hub_samplers.run(model, request.batches(), spec):
            yield batch.places, [[continuation] for continuation in continuations]
        return
    decoder = engine_registry.resolve(model, engine, longest=max(request.limits, default=0))
    usual = decoder.texts_at_once(max(request.limits, default=1)) if isinstance(decoder, SizingEngine) else None
    usual = usual or USUAL_BATCH_SIZE
    queued = _queued(decoder, request, usual)
    if queued is not None:
        for place, continuation in queued:
            yield (place,), [[continuation]]
        return
    batches = list(request.batches(usual))
    with _sharing(decoder, batches):
        for batch in batches:
            states = None if request.states is None else [request.states[place] for place in batch.places]
            if isinstance(spec, Beam):
                searched = beam_loop.search_beams(decoder, batch, spec, states, utf8=request.utf8)
                yield (
                    batch.places,
                    [[_cut_at_stop(decoder, text, request.stop) for text in beams] for beams in searched],
                )
            else:
                yield batch.places, [[text] for text in _collect(decoder, batch, request, states)]


def _queued(engine: Engine, request: Request, usual_size: int) -> Iterator[tuple[int, Continuation]] | None:
    """Return the texts as they end, in slots that texts take one after another; None where batches are to be made."""
    is_plain = request.states is None and not request.stop and request.speculation is None
    if not isinstance(engine, QueueingEngine) or not is_plain:
        return None
    slots = 1 << ((request.batch_size or usual_size).bit_length() - 1)
    whole = next(request.batches(whole=True), None)
    if whole is None or slots < _FEWEST_SLOTS or not engine.can_queue(whole, request.sampler, slots):
        return None
    return _collect_queued(engine, whole, request, slots)


def _collect_queued(
    engine: QueueingEngine, batch: Batch, request: Request, slots: int
) -> Iterator[tuple[int, Continuation]]:
    ends = engine.tokenizer.end_token_ids
    for row, block in engine.queue(batch, request.sampler, request.utf8, slots, logprobs=request.logprobs):
        ids, own = block.token_ids[:, 0].tolist(), block.logprobs[:, 0].tolist()
        kept = tuple(own) if request.logprobs else ()
        yield batch.places[row], Continuation(tuple(ids), sum(own), ids[-1] in ends, kept)


def _sharing(engine: Engine, batches: list[Batch]) -> AbstractContextManager[None]:
    """Return a context in which what prompts of several batches begin with is read once; a session sees to its own."""
    if len(batches) < 2 or not isinstance(engine, SharingEngine):
        return nullcontext()
    return engine.sharing([prompt for batch in batches for prompt in batch.prompts])


def _collect(
    engine: Engine,
    batch: Batch,
    request: Request,
    states: list[ConstraintState] | None,
) -> list[Continuation]:
    """Return the continuation of each row from the steps of its decoding loop."""
    stop, logprobs = request.stop, request.logprobs
    texts = loops.Texts(batch, engine.tokenizer, request.utf8)
    token_ids: list[list[int]] = [[] for _ in batch.places]
    own_logprobs: list[list[float]] = [[] for _ in batch.places]
    writers = [Writer(engine.tokenizer, stop) for _ in batch.places] if stop else []
    steps = choices(
        engine,
        batch,
        request.sampler,
        texts,
        states,
        logprobs=logprobs,
        speculation=request.speculation,
        in_pieces=bool(stop),  # which may come soon
    )
    for step in steps:
        for row, token_id, own in zip(step.rows.tolist(), step.token_ids.tolist(), step.logprobs.tolist(), strict=True):
            token_ids[row].append(token_id)
            own_logprobs[row].append(own)
            if stop:
                writers[row].push(token_id)
                if writers[row].stopped is not None:
                    texts.stop(row)
    ends = engine.tokenizer.end_token_ids
    continuations = []
    for row, ids in enumerate(token_ids):
        if stop and writers[row].stopped is None:
            writers[row].finish(ended=ids[-1] in ends)  # what was held back may hold a stop string's last character
        stopped = writers[row].stopped if stop else None
        finished = ids[-1] in ends or stopped is not None
        continuations.append(
            Continuation(
                tuple(ids),
                sum(own_logprobs[row]),
                finished,
                tuple(own_logprobs[row]) if logprobs else (),
                stopped,
                texts.proposed,
                texts.accepted,
            )
        )
    return continuations


def _cut_at_stop(engine: Engine, continuation: Continuation, stop: tuple[str, ...]) -> Continuation:
    """Cut a complete text at the first stop string in it."""
    writer = Writer(engine.tokenizer, stop)
    for count, token_id in enumerate(continuation.token_ids, start=1):
        writer.push(token_id)
        if writer.stopped is not None:
            return Continuation(continuation.token_ids[:count], continuation.score, True, (), writer.stopped)
    return continuation
