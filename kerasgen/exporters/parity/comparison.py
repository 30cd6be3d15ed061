"""Computes what a model generates, so that an exported artefact can be compared with it.

Ids that an artefact chose greedily are read by the model at once: they are the model's own if each is the likeliest
after those before it. So the model generates nothing, and what reads is KerasHub's forward pass, which shares nothing
with the loops and caches of a runtime; of a model that KerasHub has no class for, it is NumPy's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.decoder import numpy
from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ExportArgumentError, ExportError, TokenArgumentError
from kerasgen.exporters.parity.forward import Forward
from kerasgen.models import described
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.arithmetic import log_softmax
from kerasgen.tokens.base import Tokenizer

Read = Callable[[Sequence[int]], npt.NDArray[Any]]
"""Logits after each token of a text, `(tokens, vocabulary_size)`."""
PROBE = "昨夜雨疏风骤，浓睡不消残酒。Once upon a time there was a small house by the river,\n\nand nobody lived in it."
NEW_TOKENS = 128
GENERATE, COMPARE = "generate in a fresh process", "compare with the model"
"""Names of the steps of every proof, for `kerasgen.exporters.progress`."""
LEAST_DISTINCT = 20
TEXTS = ("昨夜雨疏风骤，浓睡不消残酒。", " two  spaces\n\nand a blank line", "it's 10 , don 't . 🚀 é ६", "a\0b")
"""Texts that tokenizers are asked to encode."""
RAW = {"valid_utf8": False}
"""Settings of a call whose ids are the model's own choice, whatever bytes they are."""
_LARGE = 4e9  # weights times tokens, which are multiplied in a tenth of a second
_LEAST_POSITIONS = 8  # below which there is no text to compare


def require_positions(positions: int | None) -> None:
    """Check, before any work, that a model's texts are long enough for a proof.

    Raises:
        ExportArgumentError: they are not.
    """
    if positions is not None and positions < _LEAST_POSITIONS:
        raise ExportArgumentError(
            f"A proof compares texts of {_LEAST_POSITIONS} tokens at the least, and this model has fewer positions. "
            f"Received: max_sequence_length={positions}."
        )


def require_finite(model: LanguageModel) -> None:
    """Check, before any work, that a model's weights are numbers.

    Raises:
        ExportError: one is not; `.figures` names the variables.
    """
    wrong = [
        variable.path for variable in model.network.weights if not np.isfinite(np.asarray(variable, np.float32)).all()
    ]
    figures: dict[str, Any] = {"not_finite": wrong}
    if wrong:
        raise ExportError(
            f"The model's weights hold NaN or infinity, as after a training that diverged: {', '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}. Nothing was written. Load earlier weights.",
            figures=figures,
        )


def probe(tokenizer: Tokenizer, length: int) -> list[int]:
    """Return this many ids of the probe text, which is repeated where it is too short."""
    ids = tokenizer.encode(PROBE)
    while len(ids) < length:
        ids = tokenizer.encode(PROBE * (1 + 2 * length // len(ids)))
    return ids[:length]


def prompts(tokenizer: Tokenizer, *, chunks: Sequence[int], longest: int) -> list[list[int]]:
    """Return ids of different prompts around the lengths that an artefact reads at once, as far as they fit.

    A prompt's last token is read with the first new one: to fill a chunk, it is a token longer. There is one shorter
    than the smallest chunk, one that fills it, one longer, one that the largest can't read alone, and a short one.

    Args:
        tokenizer: the tokenizer whose ids are returned.
        chunks: tokens that one call reads, the start token counted; of several sizes, each.
        longest: tokens of a whole text; a quarter of it at least is left for new ones.
    """
    start = 0 if tokenizer.start_token_id is None else 1
    small, large = min(chunks, default=2), max(chunks, default=2)
    wanted = (max(small // 2, 2), small + 1, small + 6, large + small // 2 + 3, 3)
    lengths = dict.fromkeys(min(length, longest * 3 // 4) - start for length in wanted)
    ids = probe(tokenizer, max(lengths) + len(lengths))
    return [ids[place : place + length] for place, length in enumerate(lengths) if length > 0]


def counts(tokenizer: Tokenizer, prompt_ids: Sequence[Sequence[int]], longest: int) -> list[int]:
    """Return how many new tokens after each prompt are compared: 128, or what fits into a text."""
    start = 0 if tokenizer.start_token_id is None else 1
    return [min(NEW_TOKENS, longest - start - len(prompt)) for prompt in prompt_ids]


def read_length(tokenizer: Tokenizer, prompt_ids: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> int:
    """Return how many tokens of the longest text are read: all but its last, after which nothing comes.

    Args:
        tokenizer: the model's.
        prompt_ids: prompts.
        new_tokens: new tokens after each.
    """
    start = 0 if tokenizer.start_token_id is None else 1
    return max(start + len(prompt) + count - 1 for prompt, count in zip(prompt_ids, new_tokens, strict=True))


def never(tokenizer: Tokenizer) -> int:
    """Return an id that no token has: a text that would end with it goes on to its limit."""
    return tokenizer.vocabulary_size


def reader(model: LanguageModel, length: int, *, ahead: Executor | None = None) -> Read:
    """Return a function from a text's ids to its logits: KerasHub's forward pass, or NumPy's where KerasHub has none.

    For KerasHub each is filled up to this length, so that they share what a backend compiles; no token sees those
    after it. Where half of it takes longer to compute than to compile anew, shorter texts are filled up to half of it.
    NumPy's decoder is held to transformers' logits, and knows none of the graphs that are compared with it.

    Args:
        model: the model.
        length: tokens of the longest text.
        ahead: compiles in a thread what the texts will need; None to compile when the first of them comes.
    """
    if model.causal_lm is None:
        return numpy.reader(*described.decoder_of(model), model.tokenizer.vocabulary_size)

    forward = Forward(model)
    half = -(-length // 2)
    is_large = half * sum(math.prod(variable.shape) for variable in model.network.weights) >= _LARGE
    if ahead is not None:
        ahead.submit(forward.compile, *([half] if is_large else []), length)

    def read(token_ids: Sequence[int]) -> npt.NDArray[Any]:
        size = half if is_large and len(token_ids) <= half else length
        filled = [*token_ids, *[0] * (size - len(token_ids))]
        return forward(filled)[: len(token_ids)]

    return read


def with_weights(model: LanguageModel, weights: Weights) -> LanguageModel:
    """Return a second model of the same kind and tokenizer, of weights as a file gives them back.

    Args:
        model: the model of a known architecture.
        weights: by the names of `kerasgen.decoder.weights`; those of fewer ids than the model has are its first.
    """
    if model.causal_lm is None:
        from kerasgen.models.container import Container

        old: DecoderConfig = model.container.config
        container = Container(dataclasses.replace(old, vocabulary_size=len(weights["embedding"]["tokens"])))
        container.assign(weights)
        return dataclasses.replace(model, container=container)
    architecture = keras_weights.architecture_of(model.causal_lm)
    assert architecture is not None
    causal_lm = keras_weights.with_weights(architecture, model.causal_lm, weights)
    return LanguageModel(causal_lm=causal_lm, tokenizer=model.tokenizer, source=model.source)


def likeliest(
    read: Read,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    new_tokens: Sequence[int],
    *,
    known: dict[tuple[int, ...], list[int]] | None = None,
) -> list[list[int]]:
    """Return the likeliest id at each place of greedy texts: the texts themselves, if the model would write them.

    A text that another one begins with is read once, with that one.

    Args:
        read: gives a text's logits, the start token with it.
        tokenizer: the model's.
        prompt_ids: prompts.
        texts: what was generated after each of them.
        new_tokens: tokens that there should be of each text; of a shorter one, the token that is missing comes last.
        known: the likeliest id after each token of texts that `read` has read before, to which those of this call are
            added.
    """
    start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
    after = {} if known is None else known  # the likeliest id after each token of a text that was read
    whole = []
    for prompt, ids, count in zip(prompt_ids, texts, new_tokens, strict=True):
        ids_before = np.clip(np.asarray(ids[: count - 1], np.int64), 0, tokenizer.vocabulary_size - 1).tolist()
        whole.append((*start, *prompt, *ids_before))
    for text in sorted(set(whole), key=len, reverse=True):
        longer = next((other for other in after if other[: len(text)] == text), None)
        after[text] = np.asarray(read(text)).argmax(-1).tolist() if longer is None else after[longer][: len(text)]
    return [after[text][len(start) + len(prompt) - 1 :] for text, prompt in zip(whole, prompt_ids, strict=True)]


def greedily(
    read: Read,
    tokenizer: Tokenizer,
    prompt_ids: Sequence[Sequence[int]],
    answer: Mapping[str, Any],
    new_tokens: Sequence[int],
) -> dict[str, Any]:
    """Return whether greedy texts of a fresh process are those that the model chooses, and where they first are not.

    Args:
        read: gives a text's logits.
        tokenizer: the model's.
        prompt_ids: the prompts of all texts.
        answer: the texts `alone`, of the first prompts, and `together`, of one batch of all.
        new_tokens: new tokens after each prompt alone; a batch gives as many to each as the fewest.
    """
    figures: dict[str, Any] = {}
    for what, counts in (("alone", new_tokens), ("together", [min(new_tokens)] * len(prompt_ids))):
        texts, asked = answer[what], slice(len(answer[what]))
        figures |= compared(what, texts, likeliest(read, tokenizer, prompt_ids[asked], texts, counts[asked]))
    figures["greedy_equal"] = figures["alone_equal"] and figures["together_equal"]
    return figures


def compared(what: str, texts: list[list[int]], wanted: list[list[int]]) -> dict[str, Any]:
    """Return under `what` whether texts are equal, and where they first are not."""
    figures: dict[str, Any] = {f"{what}_equal": texts == wanted}
    if texts != wanted:
        figures[f"{what}_first_difference"] = first_difference(texts, wanted)
    return figures


def require(figures: Mapping[str, Any], otherwise: str, *, tolerance: float | None = None) -> None:
    """Check that all that should be equal is.

    Args:
        figures: the figures of a proof; names that end in `_equal` are those of verdicts.
        otherwise: what is wrong if one is false, in words.
        tolerance: the most that `difference_in_nats_per_token` may be; None for a proof that has no such figure.

    Raises:
        ExportError: something is not as it should be; the message and `.figures` hold the figures.
    """
    wrong = [name for name, value in figures.items() if name.endswith("_equal") and not value]
    if tolerance is not None and not figures["difference_in_nats_per_token"] <= tolerance:
        wrong.append(f"difference_in_nats_per_token above {tolerance:g}")
    if wrong:
        raise ExportError(f"{otherwise} ({', '.join(wrong)}): {dict(figures)}. Nothing was kept.", figures=figures)


def encodable(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Return the texts that the vocabulary can encode."""
    spelled = []
    for text in texts:
        with contextlib.suppress(TokenArgumentError):
            tokenizer.encode(text)
            spelled.append(text)
    return spelled


def greedy(model: Any, prompt_ids: Sequence[Sequence[int]], new_tokens: int) -> list[list[int]]:
    """Return the likeliest ids after each prompt of a batch, as many as are asked for: no end token ends them."""
    from kerasgen.generation import engine_registry, generate_ids
    from kerasgen.models import precision

    engine: Any = engine_registry.resolve(model)
    engine = engine.ending_at(never(engine.tokenizer))
    with precision.whole_float32():
        generated = generate_ids(engine, prompt_ids, sampler="greedy", max_new_tokens=new_tokens, valid_utf8=False)
    return [list(choices[0].token_ids) for choices in generated]


def answers(model: Any, texts: Sequence[str], new_tokens: int) -> list[list[int]]:
    """Return the likeliest ids after what a chat template wrote, at most so many, to the first end token with it."""
    from kerasgen.generation import generate
    from kerasgen.models import precision

    with precision.whole_float32():
        written = generate(
            model,
            texts,
            start=False,
            allowed_special="all",
            sampler="greedy",
            max_new_tokens=new_tokens,
            valid_utf8=False,
            return_logprobs=True,
        )
    return [list(text.token_ids) for text in written]


def variety(texts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the highest number of distinct tokens in a text, and how many of the texts are degenerate."""
    distinct = [len(set(ids)) for ids in texts]
    degenerate = sum(count < LEAST_DISTINCT for count in distinct)
    return {
        "distinct_tokens": max(distinct),
        "degenerate_texts": degenerate,
        "is_degenerate": degenerate == len(distinct),
    }


def logits(model: LanguageModel, token_ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return a model's logits after each of these tokens, float64 `(tokens, vocabulary_size)`."""
    return _forward(model, token_ids).astype(np.float64)


def _forward(model: LanguageModel, token_ids: Sequence[int]) -> npt.NDArray[Any]:
    return (reader(model, len(token_ids)) if model.causal_lm is None else Forward(model))(token_ids)


def nats_per_token(rows: npt.NDArray[Any], token_ids: Sequence[int]) -> float:
    """Return the mean loss of a text's tokens after the first; a row is the logits after one of them."""
    predicted = log_softmax(np, rows[:-1].astype(np.float64))
    return float(-predicted[np.arange(len(predicted)), list(token_ids[1:])].mean())


def distances(rows: npt.NDArray[np.float64], written: npt.NDArray[Any], token_ids: Sequence[int]) -> dict[str, float]:
    """Measure how far apart the model's and the artefact's logits of one text are; return its loss too."""
    before, after = (nats_per_token(array, token_ids) for array in (rows, written))
    return {
        "nats_per_token": before,
        "difference_in_nats_per_token": abs(before - after),
        "largest_logit_difference": float(np.abs(rows - written).max()),
    }


def first_difference(generated: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> dict[str, int]:
    """Return the first place at which texts differ, with both ids; empty if they are equal."""
    for row, (ours, theirs) in enumerate(zip(generated, wanted, strict=True)):
        for place, (our_id, their_id) in enumerate(zip(ours, theirs, strict=False)):
            if our_id != their_id:
                return {"row": row, "place": place, "found": our_id, "wanted": their_id}
        if len(ours) != len(theirs):
            return {"row": row, "place": min(len(ours), len(theirs)), "found_tokens": len(ours)}
    return {}
