"""Fills the masks of a text with the likeliest tokens. Imports Keras when it runs."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kerasgen import specs
from kerasgen.errors import GenerateArgumentError
from kerasgen.models.base import MaskedLanguageModel

if TYPE_CHECKING:
    from kerasgen.models.masked_predicting import Predictor


@dataclass(frozen=True)
class FilledText:
    """A text whose masks are filled.

    Args:
        text: as it was given, with tokens in the place of its masks.
        tokens: what stands in the place of each mask, in the order of the text.
        token_ids: their ids.
        probabilities: of each, given the text and the tokens that were filled in before it.
        probability: of all together: their product.
    """

    text: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    probabilities: tuple[float, ...]
    probability: float


def fill(
    model: MaskedLanguageModel, text: str | Iterable[str], *, top: int = 5, joint: bool = True, batch_size: int = 16
) -> list[Any]:
    """Return the likeliest ways to fill the masks of each text; see `Generator.fill`.

    Raises:
        GenerateArgumentError: a text has no mask or is too long, or an argument is out of range.
    """
    specs.check_whole("top", top, least=1)
    specs.check_whole("batch_size", batch_size, least=1)
    if not isinstance(joint, bool):
        raise GenerateArgumentError(f"`joint` must be True or False. Received: {joint!r}.")
    texts = [text] if isinstance(text, str) else specs.strings(text)
    if texts is None:
        raise GenerateArgumentError(f"`text` must be a string or a list of strings. Received: {text!r:.80}.")
    encoded = [encode(model, each) for each in texts]
    from kerasgen.models.masked_predicting import Predictor

    predictor = Predictor(model, batch_size)
    found = [
        (_jointly if joint else _each)(model, predictor, each, ids, min(top, model.tokenizer.vocabulary_size))
        for each, ids in zip(texts, encoded, strict=True)
    ]
    return found[0] if isinstance(text, str) else found


def encode(model: MaskedLanguageModel, text: str) -> list[int]:
    """Return the ids of a text with masks between start and end token.

    Raises:
        GenerateArgumentError: it has no mask, or is longer than the model's positions.
    """
    tokenizer, name = model.tokenizer, model.mask_token
    assert tokenizer.start_token_id is not None
    if name not in text:
        other = next((each for each in ("<mask>", "[MASK]") if each in text and each != name), None)
        hint = f" This model's mask is written {name!r}, and not {other!r}." if other else ""
        raise GenerateArgumentError(
            f"There is nothing to fill: the text has no {name!r}.{hint} Received: {text!r:.80}. Put {name!r} where a "
            "token is missing, or write on with generate()."
        )
    ids = [tokenizer.start_token_id, *tokenizer.encode_with_special(text, {name}), tokenizer.end_token_id]
    if len(ids) > model.max_sequence_length:
        raise GenerateArgumentError(
            f"A text of {len(ids)} tokens is longer than the model's {model.max_sequence_length} positions. Received: "
            f"{text!r:.80}. Shorten it."
        )
    return ids


def _jointly(model: MaskedLanguageModel, predictor: Predictor, text: str, ids: list[int], top: int) -> list[FilledText]:
    """Search over the masks of a text, always filling the one that is the surest next: `top` texts are kept."""
    import numpy as np

    mask = model.mask_token_id
    beams: list[tuple[float, list[int], dict[int, float]]] = [(0.0, ids, {})]
    for _ in range(ids.count(mask)):
        places = [[place for place, token_id in enumerate(row) if token_id == mask] for _, row, _ in beams]
        rows = predictor.log_probabilities([row for _, row, _ in beams], places)
        grown: list[tuple[float, list[int], dict[int, float]]] = []
        for (total, row, known), at, log_p in zip(beams, places, rows, strict=True):
            log_p = log_p.copy()
            log_p[:, mask] = -np.inf  # a mask in the place of a mask fills nothing
            chosen = int(np.argmax(log_p.max(axis=1)))
            best = np.argsort(-log_p[chosen], kind="stable")[:top]
            for token_id in best.tolist():
                value = float(log_p[chosen, token_id])
                filled = [*row[: at[chosen]], token_id, *row[at[chosen] + 1 :]]
                grown.append((total + value, filled, known | {at[chosen]: value}))
        # Two orders of filling may come to the same text, which counts once, by its likelier way.
        unique: dict[tuple[int, ...], tuple[float, list[int], dict[int, float]]] = {}
        for each in grown:
            key = tuple(each[1])
            if key not in unique or each[0] > unique[key][0]:
                unique[key] = each
        beams = heapq.nlargest(top, unique.values(), key=lambda each: each[0])
    return [
        _filled(model, text, [row[place] for place in sorted(known)], [known[place] for place in sorted(known)])
        for _, row, known in beams
    ]


def _each(
    model: MaskedLanguageModel, predictor: Predictor, text: str, ids: list[int], top: int
) -> list[list[FilledText]]:
    """Return for each mask the likeliest tokens of it alone, the other masks left as they are."""
    import numpy as np

    mask = model.mask_token_id
    places = [place for place, token_id in enumerate(ids) if token_id == mask]
    (log_p,) = predictor.log_probabilities([ids], [places])
    log_p = log_p.copy()
    log_p[:, mask] = -np.inf
    found = []
    for nth, of_mask in enumerate(log_p):
        best = np.argsort(-of_mask, kind="stable")[:top].tolist()
        found.append([_filled(model, text, [token_id], [float(of_mask[token_id])], nth) for token_id in best])
    return found


def _filled(
    model: MaskedLanguageModel, text: str, token_ids: Sequence[int], log_p: Sequence[float], only: int | None = None
) -> FilledText:
    import math

    tokens = tuple(model.tokenizer.token_bytes(token_id).decode("utf-8", "replace") for token_id in token_ids)
    return FilledText(
        text=put_in(model, text, tokens, only),
        tokens=tuple(token.strip(" ") or token for token in tokens),
        token_ids=tuple(token_ids),
        probabilities=tuple(map(math.exp, log_p)),
        probability=math.exp(sum(log_p)),
    )


def put_in(model: MaskedLanguageModel, text: str, tokens: Sequence[str], only: int | None = None) -> str:
    """Return a text with tokens in the place of its masks.

    A token brings the space before it along, where its vocabulary writes one, and takes the one that stands there away
    where the vocabulary writes none: `walk <mask>` and `ing` are `walking`.

    Args:
        model: whose mask it is.
        text: with masks.
        tokens: one for each mask, or one for the mask `only`.
        only: which mask is filled, from 0; None for all.
    """
    first, *others = text.split(model.mask_token)
    written = first
    waiting = list(tokens)
    for nth, following in enumerate(others):
        if only is None or nth == only:
            written = _joined(model, written, waiting.pop(0))
        else:
            written += model.mask_token
        written += following
    return written


def _joined(model: MaskedLanguageModel, before: str, token: str) -> str:
    bare = before.rstrip()
    blank = before[len(bare) :]
    if token.startswith(" "):
        return bare + (blank or (" " if bare else "")) + token[1:]
    glues = blank.strip(" ") == "" and not _stands_alone(token)
    return (bare if glues else before) + token


def _stands_alone(token: str) -> bool:
    """Return whether a token that is written without a space is no continuation of a word: a Chinese character."""
    from kerasgen.tokens.json_codec import is_chinese

    return is_chinese(token[:1])
