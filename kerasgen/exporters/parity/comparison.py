"""What a model generates, for what an exporter wrote to be compared with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.errors import ExportArgumentError, ExportError, TokenArgumentError
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.arithmetic import log_softmax
from kerasgen.tokens.base import Tokenizer

PROBE = "昨夜雨疏风骤，浓睡不消残酒。Once upon a time there was a small house by the river,\n\nand nobody lived in it."
NEW_TOKENS = 128
LEAST_DISTINCT = 20
RAW = {"valid_utf8": False}
"""Settings of a call whose ids are the model's own choice, whatever bytes they are."""
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
    wrong = [one.path for one in model.causal_lm.weights if not np.isfinite(np.asarray(one, np.float32)).all()]
    figures: dict[str, Any] = {"not_finite": wrong}
    if wrong:
        raise ExportError(
            f"The model's weights hold NaN or infinity, as after a training that diverged: {', '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}. Nothing was written. Load earlier weights.",
            figures=figures,
        )


def probe(tokenizer: Tokenizer, length: int) -> list[int]:
    """Return so many ids of the probe text, which is repeated where it is too short."""
    ids = tokenizer.encode(PROBE)
    while len(ids) < length:
        ids = tokenizer.encode(PROBE * (1 + 2 * length // len(ids)))
    return ids[:length]


def prompts(tokenizer: Tokenizer, *, chunks: Sequence[int], longest: int) -> list[list[int]]:
    """Return ids of different prompts around the lengths that an artefact reads at once, as far as they fit.

    A prompt's last token is read with the first new one: to fill a chunk, it is a token longer. There is one shorter
    than the smallest chunk, one that fills it, one longer, one that the largest can't read alone, and a short one.

    Args:
        tokenizer: whose ids.
        chunks: tokens that one call reads, the start token counted; of several sizes, each.
        longest: tokens of a whole text; a quarter of it at least is left for new ones.
    """
    start = 0 if tokenizer.start_token_id is None else 1
    small, large = min(chunks, default=2), max(chunks, default=2)
    wanted = (max(small // 2, 2), small + 1, small + 6, large + small // 2 + 3, 3)
    lengths = dict.fromkeys(min(length, longest * 3 // 4) - start for length in wanted)
    ids = probe(tokenizer, max(lengths) + len(lengths))
    return [ids[place : place + length] for place, length in enumerate(lengths) if length > 0]


def begun(tokenizer: Tokenizer) -> list[int]:
    """Return ids of a prompt that ends within a character, where the vocabulary can spell such a one."""
    for character in ("🐉", "驫", "é"):
        with contextlib.suppress(TokenArgumentError):
            ids = tokenizer.encode(f"a {character}")
            if len(ids) > len(tokenizer.encode("a ")) + 1:
                return ids[:-1]
    return probe(tokenizer, 2)


def counts(tokenizer: Tokenizer, some: Sequence[Sequence[int]], longest: int) -> list[int]:
    """Return how many new tokens after each prompt are compared: 128, or what fits into a text."""
    start = 0 if tokenizer.start_token_id is None else 1
    return [min(NEW_TOKENS, longest - start - len(prompt)) for prompt in some]


def never(tokenizer: Tokenizer) -> int:
    """Return an id that no token has: a text that would end with it goes on to its limit."""
    return tokenizer.vocabulary_size


def end_in(ids: Sequence[int]) -> int | None:
    """Return a token that comes first in the midst of a text, for it to be the one that ends it; None if none does."""
    return next((token for place, token in enumerate(ids) if place > 3 and token not in ids[:place]), None)


def ended(texts: Sequence[Sequence[int]], end: int | None) -> list[list[int]]:
    """Return the texts up to the end token, which is among them."""
    return [list(ids[: ids.index(end) + 1] if end in ids else ids) for ids in texts]


def greedily(answer: Mapping[str, Any], expected: list[list[int]], end: int | None) -> dict[str, Any]:
    """Return whether greedy texts of a fresh process are the expected ones, and where they first are not.

    Args:
        answer: its texts `alone`, of one batch `together`, and of that batch `ended` by the end token.
        expected: what `greedy` returns for the same prompts; texts of a batch may be cut shorter.
        end: the token that ended `ended`, or None if there was none: then that is not compared.
    """
    cut = [ids[: len(found)] for ids, found in zip(expected, answer["together"], strict=True)]
    wanted = {"alone": expected, "together": cut} | ({} if end is None else {"ended": ended(cut, end)})
    figures: dict[str, Any] = {f"{what}_equal": answer[what] == ids for what, ids in wanted.items()}
    figures["greedy_equal"] = all(figures.values())
    for what, ids in wanted.items():
        if answer[what] != ids:
            figures[f"{what}_first_difference"] = first_difference(answer[what], ids)
    return figures


def require(figures: Mapping[str, Any], otherwise: str, *, tolerance: float | None = None) -> None:
    """Check that all that should be equal is, reproduces itself, or is distributed as it should be.

    Args:
        figures: of a proof; names that end in `_equal`, `_reproduces` and `_distributed` are those of verdicts.
        otherwise: what is wrong if one is false, in words.
        tolerance: the most that `difference_in_nats_per_token` may be; None for a proof that has no such figure.

    Raises:
        ExportError: something is not as it should be; the message and `.figures` hold the figures.
    """
    verdicts = ("_equal", "_reproduces", "_distributed")
    wrong = [name for name, value in figures.items() if name.endswith(verdicts) and not value]
    if tolerance is not None and not figures["difference_in_nats_per_token"] <= tolerance:
        wrong.append(f"difference_in_nats_per_token above {tolerance:g}")
    if wrong:
        raise ExportError(f"{otherwise} ({', '.join(wrong)}): {dict(figures)}. Nothing was kept.", figures=figures)


def encodable(tokenizer: Tokenizer, texts: Sequence[str]) -> list[str]:
    """Return those of the texts that the vocabulary has tokens for."""
    found = []
    for text in texts:
        with contextlib.suppress(TokenArgumentError):
            tokenizer.encode(text)
            found.append(text)
    return found


def unending(model: Any) -> Any:
    """Return an engine of a model (or engine) whose texts go on to their limit."""
    from kerasgen.generation import engines

    engine: Any = engines.resolve(model)
    return engine.ending_at(never(engine.tokenizer))


def ids_of(
    model: Any, some: Sequence[Sequence[int]], sampler: str, new_tokens: int, *, valid_utf8: bool = False
) -> list[list[int]]:
    """Return the ids that a model or an engine generates after each prompt."""
    from kerasgen.generation import generate_ids

    found = generate_ids(model, some, sampler=sampler, max_new_tokens=new_tokens, valid_utf8=valid_utf8)
    return [list(several[0].token_ids) for several in found]


def greedy(model: Any, some: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> list[list[int]]:
    """Return the likeliest ids after each prompt alone, as many as are asked for: no end token ends them."""
    engine = unending(model)
    return [ids_of(engine, [one], "greedy", count)[0] for one, count in zip(some, new_tokens, strict=True)]


def variety(texts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the most distinct tokens that one of these texts has, and how many are degenerate: all, or some."""
    distinct = [len(set(ids)) for ids in texts]
    few = sum(one < LEAST_DISTINCT for one in distinct)
    return {"distinct_tokens": max(distinct), "degenerate_texts": few, "is_degenerate": few == len(distinct)}


def logits(model: LanguageModel, token_ids: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return a model's logits after each of these tokens, float64 `(tokens, vocabulary_size)`."""
    ids = np.asarray([token_ids], np.int32)
    outputs = model.causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)}, training=False)
    return np.asarray(outputs, np.float64)[0, :, : model.tokenizer.vocabulary_size]


def nats_per_token(rows: npt.NDArray[Any], token_ids: Sequence[int]) -> float:
    """Return the mean loss of a text's tokens after the first; a row is the logits after one of them."""
    predicted = log_softmax(np, rows[:-1].astype(np.float64))
    return float(-predicted[np.arange(len(predicted)), list(token_ids[1:])].mean())


def distances(rows: npt.NDArray[np.float64], written: npt.NDArray[Any], token_ids: Sequence[int]) -> dict[str, float]:
    """Return how far apart the model's and the artefact's logits of one text are, and what the model loses on it."""
    before, after = (nats_per_token(one, token_ids) for one in (rows, written))
    return {
        "nats_per_token": before,
        "difference_in_nats_per_token": abs(before - after),
        "largest_logit_difference": float(np.abs(rows - written).max()),
    }


def first_difference(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> dict[str, int]:
    """Return where texts begin to differ, with what stands there, or nothing where they don't."""
    for row, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            if one != other:
                return {"row": row, "place": place, "found": one, "wanted": other}
        if len(ours) != len(theirs):
            return {"row": row, "place": min(len(ours), len(theirs)), "found_tokens": len(ours)}
    return {}
