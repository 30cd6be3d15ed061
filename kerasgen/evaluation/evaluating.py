"""A model and documents become an `Evaluation`, or a score for each text. Imports Keras: import it late."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from kerasgen import forks, specs
from kerasgen.corpora.base import Document
from kerasgen.errors import ArgumentError
from kerasgen.evaluation.base import Evaluation, TextScore
from kerasgen.models.base import LanguageModel
from kerasgen.models.scoring import score, token_nats
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents


def evaluate(
    model: LanguageModel, encoded: EncodedDocuments, *, sequence_length: int | None = None, batch_size: int = 16
) -> Evaluation:
    """Return how well the model predicts the documents.

    Args:
        model: the model.
        encoded: at least one document.
        sequence_length: positions that the model sees at once, or None for `model.default_sequence_length`.
        batch_size: rows at once.

    Raises:
        ArgumentError: there is no document.
    """
    if not encoded.targets:
        raise ArgumentError("There is nothing to evaluate on: no document was given.")
    length = model.default_sequence_length if sequence_length is None else sequence_length
    scores = score(model, encoded, sequence_length=length, batch_size=batch_size)
    return Evaluation(
        loss=scores.loss,
        bits_per_character=scores.bits_per_character,
        documents=len(encoded),
        tokens=int(scores.tokens.sum()),
        characters=int(scores.characters.sum()),
    )


def score_texts(model: LanguageModel, texts: Iterable[str], *, batch_size: int = 16) -> list[TextScore]:
    """Return what each text costs under the model, token by token and character by character.

    A text longer than the model's positions is scored in pieces, as in `evaluate`.

    Args:
        model: the model.
        texts: any number; an empty text has a score for its end alone.
        batch_size: rows at once.

    Raises:
        ArgumentError: `texts` is a single string, or holds something else.
    """
    forks.check(forks.KERAS)
    several = specs.strings(texts)
    if several is None:
        raise ArgumentError(f"`texts` must be a list of strings. Received: {texts!r:.80}.")
    texts = several
    if not texts:
        return []
    tokenizer = model.tokenizer
    encoded = encode_documents((Document(text=text, id=str(n)) for n, text in enumerate(texts)), tokenizer)
    nats = -token_nats(model, encoded, sequence_length=model.default_sequence_length, batch_size=batch_size)
    begin = 0 if tokenizer.start_token_id is None else 1
    found = []
    for place, text in enumerate(texts):
        whole = slice(int(encoded.offsets[place]) + begin, int(encoded.offsets[place + 1]))
        token_ids = tuple(encoded.token_ids[whole].tolist())[:-1]
        log_p = nats[whole].tolist()
        tokens = tuple(map(tokenizer.token_bytes, token_ids))
        found.append(
            TextScore(
                text=text,
                token_ids=token_ids,
                tokens=tokens,
                token_log_probabilities=tuple(log_p[:-1]),
                character_log_probabilities=_by_character(tokenizer, text, tokens, log_p[:-1]),
                end_log_probability=log_p[-1],
            )
        )
    return found


def _by_character(
    tokenizer: Tokenizer, text: str, tokens: Sequence[bytes], log_p: Sequence[float]
) -> tuple[float, ...]:
    sizes = [len(character.encode("utf-8", "surrogatepass")) for character in text]
    begins = np.cumsum([0, *map(len, tokens)])[:-1]
    if sum(sizes) != sum(map(len, tokens)):
        raise ArgumentError(
            f"{type(tokenizer).__name__} doesn't write the bytes of this text, so its tokens can't be laid beside its "
            f"characters: {text!r:.80}."
        )
    characters = np.searchsorted(np.cumsum(sizes), begins, side="right")
    summed = np.zeros(len(text))
    np.add.at(summed, characters, np.nan_to_num(np.asarray(log_p)))
    return tuple(summed.tolist())
