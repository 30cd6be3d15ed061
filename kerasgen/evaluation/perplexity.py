"""Evaluates a model on documents, and scores single texts. Imports Keras: import it late."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kerasgen import fork_safety, specs
from kerasgen.corpora.base import Document
from kerasgen.errors import ArgumentError, ModelError, TokenArgumentError
from kerasgen.evaluation.base import Evaluation, TextScore, TokenChoice
from kerasgen.models import chat
from kerasgen.models.base import LanguageModel
from kerasgen.models.scoring import Scores, score, token_nll
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.encoding import EncodedDocuments, encode_documents

RESAMPLES: Final = 1_000


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
    return evaluate_each(model, encoded, sequence_length=sequence_length, batch_size=batch_size)[0]


def evaluate_each(
    model: LanguageModel,
    encoded: EncodedDocuments,
    *,
    sequence_length: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> tuple[Evaluation, Scores]:
    """Return how well the model predicts the documents, and what each costs.

    Args:
        model: the model.
        encoded: at least one document.
        sequence_length: positions that the model sees at once, or None for `model.default_sequence_length`.
        batch_size: rows at once.
        seed: the seed of the bootstrap.

    Raises:
        ArgumentError: there is no document, or nothing of them is learned.
        ModelError: the model's log-probabilities are not finite.
    """
    counted = encoded.targets_by_document > 0
    if not counted.any():
        if len(encoded) and encoded.parts is not None:
            raise ArgumentError(
                f"There is nothing to evaluate on: all parts of the {len(encoded):,} documents are only read (weight "
                "0). Give what the model shall predict a weight."
            )
        raise ArgumentError("There is nothing to evaluate on: no document was given.")
    length = model.default_sequence_length if sequence_length is None else sequence_length
    scores = score(model, encoded, sequence_length=length, batch_size=batch_size)
    _check_finite(model, scores.nll)
    evaluation = Evaluation(
        loss=scores.loss,
        bits_per_character=scores.bits_per_character,
        documents=int(counted.sum()),
        tokens=int(scores.tokens.sum()),
        characters=int(scores.characters.sum()),
        interval=interval(scores.nll[counted], scores.characters[counted], seed=seed),
        sequence_length=length,
        precision=model.network.dtype_policy.name,
        pair_accuracy=_pair_accuracy(model, encoded, scores, sequence_length=length, batch_size=batch_size),
    )
    return evaluation, scores


def _pair_accuracy(
    model: LanguageModel, encoded: EncodedDocuments, better: Scores, *, sequence_length: int, batch_size: int
) -> float | None:
    """Return the share of pairs of which the better answer is the likelier one, equal ones half; None without pairs."""
    rejected = encoded.rejected
    if rejected is None:
        return None
    is_pair = rejected.lengths > 0
    worse = score(model, rejected, sequence_length=sequence_length, batch_size=batch_size)
    return float(0.5 * (1.0 + np.sign(worse.nll - better.nll)[is_pair]).mean())


def interval(nll: NDArray[np.float64], characters: NDArray[np.int64], *, seed: int) -> tuple[float, float] | None:
    """Return the bounds of the bits per character with 95 % confidence, or None for fewer than two documents.

    Documents are drawn with replacement a thousand times, as many as there are, and the bounds are percentiles of what
    their figures are.

    Args:
        nll: float64 `(documents,)`, what each document costs.
        characters: int64 `(documents,)`, code points of each.
        seed: the seed of the draws.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    count = len(nll)
    if count < 2:
        return None
    draws = np.random.default_rng(seed)
    figures = np.empty(RESAMPLES)
    for n in range(RESAMPLES):
        times = np.bincount(draws.integers(count, size=count), minlength=count)
        figures[n] = (times @ nll) / np.log(2.0) / max(int(times @ characters), 1)
    low, high = np.percentile(figures, (2.5, 97.5))
    return float(low), float(high)


def score_texts(
    model: LanguageModel, texts: Iterable[str], *, batch_size: int = 16, top_logprobs: int = 0
) -> list[TextScore]:
    """Score each text under the model, token by token and character by character.

    A text longer than the model's positions is scored in pieces, as in `evaluate`.

    Args:
        model: the model.
        texts: any number; an empty text has a score for its end alone.
        batch_size: rows at once.
        top_logprobs: tokens that each score tells of each place, the likeliest ones.

    Raises:
        ArgumentError: `texts` is a single string, or holds something else.
        ModelError: the model's log-probabilities are not finite.
    """
    fork_safety.check(fork_safety.KERAS)
    text_list = specs.strings(texts)
    if text_list is None:
        raise ArgumentError(f"`texts` must be a list of strings. Received: {texts!r:.80}.")
    texts = text_list
    if not texts:
        return []
    tokenizer = model.tokenizer
    encoded = encode_documents((Document(text=text, id=str(n)) for n, text in enumerate(texts)), tokenizer)
    nll = -token_nll(model, encoded, sequence_length=model.default_sequence_length, batch_size=batch_size)
    choices = _choices(model, encoded, top_logprobs, batch_size)
    begin = 0 if tokenizer.start_token_id is None else 1
    text_scores = []
    for place, text in enumerate(texts):
        whole = slice(int(encoded.offsets[place]) + begin, int(encoded.offsets[place + 1]))
        token_ids = tuple(encoded.token_ids[whole].tolist())[:-1]
        log_p = nll[whole].tolist()
        _check_finite(model, nll[whole][1 - begin :])  # without a start token, nothing predicts a text's first token
        tokens = tuple(map(tokenizer.token_bytes, token_ids))
        text_scores.append(
            TextScore(
                text=text,
                token_ids=token_ids,
                tokens=tokens,
                token_log_probabilities=tuple(log_p[:-1]),
                character_log_probabilities=_by_character(tokenizer, text, log_p[:-1]),
                end_log_probability=log_p[-1],
                top_logprobs=tuple(choices[whole][:-1]),
            )
        )
    return text_scores


def score_documents(
    model: LanguageModel, documents: Iterable[Document], *, batch_size: int = 16, top_logprobs: int = 0
) -> list[TextScore]:
    """Score documents as a tuner reads them: a conversation as the model's chat template writes it.

    The names of special tokens stand in the text of such a score. All tokens are scored, also those that are only read.

    Args:
        model: the model.
        documents: any number.
        batch_size: rows at once.
        top_logprobs: tokens that each score tells of each place, the likeliest ones.

    Raises:
        ChatTemplateError: a document is a conversation, and the model has no template or it refuses the document.
        ModelError: the model's log-probabilities are not finite.
    """
    fork_safety.check(fork_safety.KERAS)
    tokenizer = model.tokenizer
    encoded = encode_documents(documents, tokenizer, chat.template_of(model)).learning_all()
    if not len(encoded):
        return []
    nll = -token_nll(model, encoded, sequence_length=model.default_sequence_length, batch_size=batch_size)
    choices = _choices(model, encoded, top_logprobs, batch_size)
    scores = []
    for place, ids in enumerate(encoded):
        first = int(len(ids) > 0 and ids[0] == tokenizer.start_token_id)
        last = len(ids) - int(len(ids) > first and ids[-1] == tokenizer.end_token_id)
        begin = int(encoded.offsets[place])
        log_p = nll[begin : begin + len(ids)]
        _check_finite(model, log_p[1:])  # nothing predicts the first id
        tokens = tuple(map(tokenizer.token_bytes, ids[first:last].tolist()))
        scores.append(
            TextScore(
                text=b"".join(tokens).decode("utf-8", "replace"),
                token_ids=tuple(ids[first:last].tolist()),
                tokens=tokens,
                token_log_probabilities=tuple(log_p[first:last].tolist()),
                character_log_probabilities=_by_bytes(tokens, log_p[first:last].tolist()),
                end_log_probability=float(log_p[last]) if last < len(ids) else 0.0,
                top_logprobs=tuple(choices[begin + first : begin + last]),
            )
        )
    return scores


def _by_bytes(tokens: Sequence[bytes], log_p: Sequence[float]) -> tuple[float, ...]:
    """Return the cost of each character of the tokens' text; a token's goes to the character in which it begins."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    starts, characters = [], 0
    for token in tokens:
        starts.append(characters)
        characters += len(decoder.decode(token))
    characters += len(decoder.decode(b"", final=True))
    summed = np.zeros(characters)
    if characters:
        np.add.at(summed, np.minimum(starts, characters - 1), np.nan_to_num(np.asarray(log_p)))
    return tuple(summed.tolist())


def _choices(
    model: LanguageModel, encoded: EncodedDocuments, top: int, batch_size: int
) -> list[tuple[TokenChoice, ...]]:
    """Return what is the likeliest at the place of each token; nothing where none was asked for."""
    if not top:
        return []
    from kerasgen.models.top_tokens import top_tokens

    ids, log_p = top_tokens(
        model, encoded, top=top, sequence_length=model.default_sequence_length, batch_size=batch_size
    )
    token_bytes = {token_id: model.tokenizer.token_bytes(token_id) for token_id in np.unique(ids[ids >= 0]).tolist()}
    return [
        tuple(
            TokenChoice(token_id, token_bytes[token_id], value)
            for token_id, value in zip(of_place, values, strict=True)
            if token_id >= 0
        )
        for of_place, values in zip(ids.tolist(), log_p.tolist(), strict=True)
    ]


def _check_finite(model: LanguageModel, nll: NDArray[np.float64]) -> None:
    if not np.isfinite(nll).all():
        raise ModelError(
            "The model gives log-probabilities that are NaN or infinite: its weights hold such a number, or it "
            f"overflows in {model.network.dtype_policy.name}. Load weights from before that, or compute in float32."
        )


def _by_character(tokenizer: Tokenizer, text: str, log_p: Sequence[float]) -> tuple[float, ...]:
    """Return the cost of each character; a token's whole cost goes to the character in which it begins."""
    if not text:
        return ()
    try:
        _, starts = tokenizer.encode_with_starts(text)
    except TokenArgumentError as cause:
        raise ArgumentError(str(cause)) from cause
    summed = np.zeros(len(text))
    np.add.at(summed, np.minimum(starts, len(text) - 1), np.nan_to_num(np.asarray(log_p)))
    return tuple(summed.tolist())
