"""What a model generates, for what an exporter wrote to be compared with."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kerasgen.errors import ExportArgumentError
from kerasgen.tokens.base import Tokenizer

PROBE = "昨夜雨疏风骤，浓睡不消残酒。Once upon a time there was a small house by the river,\n\nand nobody lived in it."
NEW_TOKENS = 128
LEAST_DISTINCT = 20
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


def counts(tokenizer: Tokenizer, some: Sequence[Sequence[int]], longest: int) -> list[int]:
    """Return how many new tokens after each prompt are compared: 128, or what fits into a text."""
    start = 0 if tokenizer.start_token_id is None else 1
    return [min(NEW_TOKENS, longest - start - len(prompt)) for prompt in some]


def never(tokenizer: Tokenizer) -> int:
    """Return an id that no token has: a text that would end with it goes on to its limit."""
    return tokenizer.vocabulary_size


def unending(model: Any) -> Any:
    """Return an engine of a model (or engine) whose texts go on to their limit."""
    from kerasgen.generation import engines

    engine: Any = engines.resolve(model)
    return engine.ending_at(never(engine.tokenizer))


def ids_of(model: Any, some: Sequence[Sequence[int]], sampler: str, new_tokens: int) -> list[list[int]]:
    """Return the ids that a model or an engine generates after each prompt."""
    from kerasgen.generation import generate_ids

    found = generate_ids(model, some, sampler=sampler, max_new_tokens=new_tokens)
    return [list(several[0].token_ids) for several in found]


def greedy(model: Any, some: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> list[list[int]]:
    """Return the likeliest ids after each prompt alone, as many as are asked for: no end token ends them."""
    engine = unending(model)
    return [ids_of(engine, [one], "greedy", count)[0] for one, count in zip(some, new_tokens, strict=True)]


def timed_greedy(model: Any, some: Sequence[Sequence[int]], new_tokens: Sequence[int]) -> tuple[list[list[int]], float]:
    """Return what `greedy` does, and the seconds that it took, with what had to be compiled."""
    began = time.perf_counter()
    found = greedy(model, some, new_tokens)
    return found, time.perf_counter() - began


def variety(texts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the most distinct tokens that one of these texts has, and whether all of them are degenerate."""
    distinct = max(len(set(ids)) for ids in texts)
    return {"distinct_tokens": distinct, "is_degenerate": distinct < LEAST_DISTINCT}


def first_difference(found: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> dict[str, int]:
    """Return where texts begin to differ, with what stands there, or nothing where they don't."""
    for row, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
            if one != other:
                return {"row": row, "place": place, "found": one, "wanted": other}
        if len(ours) != len(theirs):
            return {"row": row, "place": min(len(ours), len(theirs)), "found_tokens": len(ours)}
    return {}
