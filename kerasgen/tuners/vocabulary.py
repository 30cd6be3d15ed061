"""Changes a model's vocabulary to fit the texts that it shall be tuned on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from kerasgen.corpora.base import Document
from kerasgen.errors import TuneArgumentError
from kerasgen.models import chat, described
from kerasgen.models import vocabulary as models
from kerasgen.models.base import LanguageModel, Precision
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.tokens import vocabulary as tokens
from kerasgen.tokens.corpus_scan import Survey, Surveyed
from kerasgen.tokens.vocabulary_cache import (
    Adaptable,
    CandidateVocabularies,
    candidate_vocabularies,
    tokens_per_character,
)
from kerasgen.tuners.report import TuneReport

# `auto` extends if that makes texts at least a quarter shorter, else trims if that saves a tenth of the weights.
SHORTER = 0.75
# A piece must be frequent to earn a row, so all texts earn a few more rows than a sample. Texts that the sample's rows
# make this much shorter are counted in full.
PROMISING = 0.85
LIGHTER = 0.10


def adapt(
    model: LanguageModel,
    texts: tokens.Texts,
    held_out: tokens.Texts | None,
    *,
    asked: tokens.Vocabulary | None,
    bits_per_character: Callable[[tokens.Texts], float | None] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Mapping[str, Any]:
    """Change the model's vocabulary in place as asked and return what was done, as JSON can hold it.

    A model that carries the record of the same request over the same texts is left as it is, so a run that goes on
    finds the vocabulary that it began with. Adapters that the model carries are merged before a change.

    Args:
        model: its tokenizer and embeddings change.
        texts: gives the training texts anew at each call.
        held_out: gives texts whose bits per character are measured before the change, or None.
        asked: `"trim"`, `"extend"` or `"auto"`; for `"keep"` nothing is done. None extends a vocabulary that spells the
            texts badly, if the model's family allows it, and keeps any other, as a sample of the texts says alone.
        bits_per_character: of texts under the model, or None for the model's own length and precision.
        cache: the directory in which what was counted is kept for later runs, or None to keep nothing.

    Returns:
        `asked`, `choice`, `reason`, `first_added` (the first id that is new), and `before` and `after`, each with
        `vocabulary_size`, `tokens_per_character` of the training texts and `parameters`; `before` also with
        `bits_per_character` of the held-out texts. Empty for `"keep"`.

    Raises:
        TuneArgumentError: the model's family or tokenizer can't be changed so.
    """
    if asked == "keep":
        return {}
    old = models.adaptable(model.tokenizer) if models.can_adapt(model) else None
    if old is None:
        kind, tokenizer = described.name_of(model), type(model.tokenizer).__name__
        if asked in ("auto", None):
            reason = f"the vocabulary of a {kind} with a {tokenizer} can't be changed: {models.why_not(model)}"
            return {"asked": asked, "choice": "keep", "reason": reason}
        raise TuneArgumentError(
            f"vocabulary={asked!r} can't change that of a {kind} with a {tokenizer}: {models.why_not(model)}. Use "
            "vocabulary='keep'."
        )
    if asked is None and isinstance(model.tokenizer, KerasHubTokenizer):
        return {"asked": asked, "choice": "keep", "reason": "KerasHub's own tokenizer is changed only if it is asked"}
    survey = texts if isinstance(texts, Survey) else _survey(texts)
    digest = survey.found.training_digest
    record = model.metadata.get(models.RECORD)
    if record and (record["asked"], record["texts"], record["tokenizer"]) == (asked, digest, old.digest()):
        return dict(record)
    if asked is None and (well := _spelt_well(survey.found, old, cache)):
        return {"asked": asked, "choice": "keep", "reason": well}
    extending = asked in ("extend", "auto", None)
    candidates = candidate_vocabularies(texts, old, digest=digest, extending=extending, directory=cache)
    if not candidates.use.characters:
        raise TuneArgumentError(f"vocabulary={asked!r} needs training texts. Received: none.")
    choice, reason = _choose(model, asked, candidates)
    before: dict[str, Any] = _figures(model, candidates.use.tokens_per_character)
    if held_out is not None and choice != "keep":
        measure = bits_per_character or (lambda texts: measured(model, texts))
        before["bits_per_character"] = measure(held_out)
    record = {"asked": asked, "choice": choice, "reason": reason, "texts": digest, "before": before}
    if choice == "keep":
        record |= {"tokenizer": old.digest(), "first_added": old.vocabulary_size, "after": before}
        model.metadata = dict(model.metadata) | {models.RECORD: record}  # rows added earlier are no longer new
        return record
    from kerasgen.tuners import adapters

    adapters.merge(model)
    chosen = candidates.trimmed if choice == "trim" or candidates.extended is None else candidates.extended
    models.adapt(model, chosen, record={})
    record |= {"tokenizer": chosen.tokenizer.digest(), "first_added": chosen.first_added}
    record |= {"after": _figures(model, chosen.tokens_per_character)}
    model.metadata = dict(model.metadata) | {models.RECORD: record}
    return record


def _survey(texts: tokens.Texts) -> Survey:
    return Survey(lambda tally: (Document(text, "") for text in texts()), held_out=0.0)


def _spelt_well(texts: Surveyed, tokenizer: Adaptable, cache: str | os.PathLike[str] | None) -> str:
    """Say why a sample of the texts gives no reason to count all of them; empty if it does."""
    if not any(texts.training_sample):
        return "there are no texts to fit it to"
    longer, shorter = tokens_per_character(
        texts.training_sample, tokenizer, digest=texts.training_digest, directory=cache
    )
    if shorter <= PROMISING * longer:
        return ""
    return (
        f"{longer:.2f} tokens a character in a sample, and with whole characters and frequent pieces still "
        f"{shorter:.2f}"
    )


def added_rows(model: LanguageModel, asked: tokens.Vocabulary) -> int | None:
    """Return the first row of the embedding table that this request or a chat template added, or None for none.

    Rows of an earlier request over other texts are old ones: beside adapters they stay as they are.
    """
    of_chat = chat.first_added(model)
    record = model.metadata.get(models.RECORD)
    if asked == "keep" or not record or record["asked"] != asked:
        return of_chat
    first = int(record["first_added"])
    rows = [row for row in (first, of_chat) if row is not None and row < model.tokenizer.vocabulary_size]
    return min(rows, default=None)


def record_validation(model: LanguageModel, record: Mapping[str, Any], report: TuneReport) -> Mapping[str, Any]:
    """Return the record with what a run's first validation after the change found; the model keeps it too.

    Args:
        model: the model whose vocabulary was changed.
        record: what `adapt` returned.
        report: the report of the run that followed.
    """
    if not record or record["choice"] == "keep" or not report.validations:
        return record
    if "bits_per_character" in record["after"]:  # of an earlier run over the same texts
        return record
    after = {**record["after"], "bits_per_character": report.validations[0].bits_per_character}
    record = {**record, "after": after}
    model.metadata = {**model.metadata, models.RECORD: record}
    return record


def _choose(
    model: LanguageModel, asked: tokens.Vocabulary | None, candidates: CandidateVocabularies
) -> tuple[Literal["keep", "trim", "extend"], str]:
    if asked == "trim" or asked == "extend":
        return asked, "asked for"
    assert candidates.extended is not None
    use = candidates.use
    longer, size = use.tokens_per_character, len(use.counts)
    shorter = candidates.extended.tokens_per_character
    saved = (model.vocabulary_size - candidates.trimmed.tokenizer.vocabulary_size) * model.hidden_dim
    share = saved / _parameters(model)
    figures = (
        f"{longer:.2f} tokens a character against {shorter:.2f} with whole characters and frequent pieces; "
        f"{use.used:,} of {size:,} ids are used, and the rows of the others are {share:.0%} of all weights"
    )
    if shorter <= SHORTER * longer:
        return "extend", figures
    if share >= LIGHTER and asked is not None:  # what a vocabulary knows is given up only if somebody asks
        return "trim", figures
    return "keep", figures


def _figures(model: LanguageModel, tokens_per_character: float) -> dict[str, Any]:
    return {
        "vocabulary_size": model.tokenizer.vocabulary_size,
        "tokens_per_character": tokens_per_character,
        "parameters": _parameters(model),
    }


def _parameters(model: LanguageModel) -> int:
    return int(sum(np.prod(weight.shape) for weight in model.network.weights))


def measured(
    model: LanguageModel,
    texts: tokens.Texts,
    *,
    sequence_length: int | None = None,
    batch_size: int = 16,
    precision: Precision | None = None,
    tokens: int | None = None,
) -> float | None:
    """Return the bits per character of texts, or None without a token, as a run's validations measure them.

    Args:
        model: the model; its dtype policies are restored afterwards.
        texts: gives them anew at each call.
        sequence_length: positions of a row, or None for the model's own.
        batch_size: rows at once.
        precision: the dtype policy, or None for the model's own.
        tokens: the bound of a validation, or None for all texts.
    """
    from kerasgen.models.forward import computing_in
    from kerasgen.models.scoring import score
    from kerasgen.tokens.encoding import encode_documents
    from kerasgen.tuners.held_out import sampled

    encoded = encode_documents((Document(text, "") for text in texts()), model.tokenizer)
    if not encoded.targets:
        return None
    with computing_in(model.network, precision or model.network.dtype_policy.name):
        length = sequence_length or model.default_sequence_length
        return score(model, sampled(encoded, tokens), sequence_length=length, batch_size=batch_size).bits_per_character
