"""Fills the masks of a text with the likeliest tokens. Imports Keras when a model, and no artefact, predicts them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from kerasgen import specs
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.shown_lists import ShownList, shortened

if TYPE_CHECKING:
    import numpy.typing as npt


class Predicting(Protocol):
    """An object that predicts masked tokens; see `kerasgen.models.masked_predicting.Predictor`."""

    def log_probabilities(
        self, texts: Sequence[Sequence[int]], places: Sequence[Sequence[int]]
    ) -> list[npt.NDArray[Any]]:
        """Return for each text log p of every token at each of its places, float32 `(places, ids)`."""
        ...


class Filler(Protocol):
    """An object that fills masks: a masked language model, or an artefact of one."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, with a start, an end and a mask token."""
        ...

    @property
    def mask_token(self) -> str:
        """The token that stands for what is to be predicted."""
        ...

    @property
    def mask_token_id(self) -> int:
        """Its id."""
        ...

    @property
    def max_sequence_length(self) -> int | None:
        """Tokens of a text at most."""
        ...


@dataclass(frozen=True)
class FilledText:
    """A text with tokens in the place of its masks.

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

    def __repr__(self) -> str:
        filled = ", ".join(map(repr, self.tokens))
        return f"FilledText({shortened(self.text)}, {filled:.80}, {self.probability:.2%})"

    def _repr_html_(self) -> str:
        html: str = import_module("kerasgen.reports.notebook").of_texts([self])  # which stands above this module
        return html


def fill(
    model: Filler,
    text: str | Iterable[str],
    *,
    top: int = 5,
    joint: bool = True,
    batch_size: int = 16,
    predictor: Predicting | None = None,
) -> list[Any]:
    """Return the likeliest ways to fill the masks of each text; see `Generator.fill`.

    Args:
        model: the model, or an artefact of one.
        text: as there, as are the next three.
        top: as above.
        joint: as above.
        batch_size: as above.
        predictor: predicts instead of the model's network.

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
    if predictor is None:
        from kerasgen.models.masked_predicting import Predictor

        predictor = Predictor(model, batch_size)  # type: ignore[arg-type]
    found = [
        (_jointly if joint else _each)(model, predictor, each, ids, min(top, model.tokenizer.vocabulary_size))
        for each, ids in zip(texts, encoded, strict=True)
    ]
    shown = [ShownList(ways) if joint else ways for ways in found]
    return shown[0] if isinstance(text, str) else shown


def encode(model: Filler, text: str) -> list[int]:
    """Return the ids of a text with masks between start and end token.

    Raises:
        GenerateArgumentError: it has no mask, or is longer than the model's positions.
    """
    name = model.mask_token
    if name not in text:
        other = next((each for each in ("<mask>", "[MASK]") if each in text and each != name), None)
        hint = f" This model's mask is written {name!r}, and not {other!r}." if other else ""
        raise GenerateArgumentError(
            f"There is nothing to fill: the text has no {name!r}.{hint} Received: {text!r:.80}. Put {name!r} where a "
            "token is missing, or write on with generate()."
        )
    ids = encode_any(model, text)
    if model.max_sequence_length is not None and len(ids) > model.max_sequence_length:
        raise GenerateArgumentError(
            f"A text of {len(ids)} tokens is longer than the model's {model.max_sequence_length} positions. Received: "
            f"{text!r:.80}. Shorten it."
        )
    return ids


def encode_any(model: Filler, text: str) -> list[int]:
    """Return the ids of a text between start and end token, its masks as masks."""
    tokenizer = model.tokenizer
    assert tokenizer.start_token_id is not None
    return [tokenizer.start_token_id, *tokenizer.encode_with_special(text, {model.mask_token}), tokenizer.end_token_id]


def _jointly(model: Filler, predictor: Predicting, text: str, ids: list[int], top: int) -> list[FilledText]:
    """Search over the masks of a text, always filling the one that is the surest next: `top` texts are kept."""
    import numpy as np

    mask = model.mask_token_id
    beams: list[tuple[float, list[int], dict[int, float]]] = [(0.0, ids, {})]
    for filled in range(1, ids.count(mask) + 1):
        places = [[place for place, token_id in enumerate(row) if token_id == mask] for _, row, _ in beams]
        rows = predictor.log_probabilities([row for _, row, _ in beams], places)
        # A text that is reached by several orders of filling comes from as many beams at most as masks are filled.
        kept = _Best(top * filled)
        at = []
        for number, ((total, _, _), places_of_row, log_p) in enumerate(zip(beams, places, rows, strict=True)):
            log_p = log_p.copy()
            log_p[:, mask] = -np.inf  # a mask in the place of a mask fills nothing
            chosen = int(np.argmax(log_p.max(axis=1)))
            at.append(places_of_row[chosen])
            kept.add(number, total, log_p[chosen])
        unique: dict[tuple[int, ...], tuple[float, list[int], dict[int, float]]] = {}
        for number, token_id, total, value in kept.found():
            _, row, known = beams[number]
            place = at[number]
            grown = [*row[:place], token_id, *row[place + 1 :]]
            unique.setdefault(tuple(grown), (total, grown, known | {place: value}))  # counted by its likelier way
            if len(unique) == top:
                break
        beams = list(unique.values())
    return [
        _filled(model, text, [row[place] for place in sorted(known)], [known[place] for place in sorted(known)])
        for _, row, known in beams
    ]


class _Best:
    """The likeliest tokens of several beams, of which no more are held than are kept.

    Args:
        count: how many are kept.
    """

    def __init__(self, count: int) -> None:
        import numpy as np

        self._count = count
        self._totals = np.empty(0, np.float64)
        self._values = np.empty(0, np.float64)
        self._ids = np.empty((0, 2), np.int64)  # of the beam and of the token

    def add(self, beam: int, total: float, log_p: npt.NDArray[Any]) -> None:
        """Look at what may follow a beam.

        Args:
            beam: its number.
            total: its log-probability.
            log_p: the log-probability of each token in the place that is filled next.
        """
        import numpy as np

        best = np.argsort(-log_p, kind="stable")[: self._count]
        ids = np.stack([np.full(len(best), beam), best], axis=1)
        totals = np.concatenate([self._totals, total + log_p[best]])
        order = np.argsort(-totals, kind="stable")[: self._count]
        self._totals = totals[order]
        self._values = np.concatenate([self._values, log_p[best]])[order]
        self._ids = np.concatenate([self._ids, ids])[order]

    def found(self) -> Iterator[tuple[int, int, float, float]]:
        """Yield beam, token id, log-probability of the whole and of the token, the likeliest first."""
        for (beam, token_id), total, value in zip(self._ids, self._totals, self._values, strict=True):
            yield int(beam), int(token_id), float(total), float(value)


def _each(model: Filler, predictor: Predicting, text: str, ids: list[int], top: int) -> list[list[FilledText]]:
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
    model: Filler, text: str, token_ids: Sequence[int], log_p: Sequence[float], only: int | None = None
) -> FilledText:
    import math

    pieces = [model.tokenizer.token_bytes(token_id) for token_id in token_ids]
    tokens = [piece.decode("utf-8", "replace") for piece in pieces]
    return FilledText(
        text=put_in(model, text, pieces, only),
        tokens=tuple(token.strip(" ") or token for token in tokens),
        token_ids=tuple(token_ids),
        probabilities=tuple(map(math.exp, log_p)),
        probability=math.exp(sum(log_p)),
    )


def put_in(model: Filler, text: str, tokens: Sequence[bytes], only: int | None = None) -> str:
    """Return a text with tokens in the place of its masks.

    A token brings the space before it along, where its vocabulary writes one, and takes the one that stands there away
    where the vocabulary writes none: `walk <mask>` and `ing` are `walking`. Tokens side by side may be one character.

    Args:
        model: whose mask it is.
        text: with masks.
        tokens: the bytes of one for each mask, or of one for the mask `only`.
        only: which mask is filled, from 0; None for all.
    """
    written, *others = text.split(model.mask_token)
    waiting = list(tokens)
    run = b""
    for nth, following in enumerate(others):
        if only is None or nth == only:
            run += waiting.pop(0)
            if following or nth + 1 == len(others) or only is not None:
                written = _joined(model, written, run.decode("utf-8", "replace"))
                run = b""
        else:
            written += model.mask_token
        written += following
    return written


def _joined(model: Filler, before: str, token: str) -> str:
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
