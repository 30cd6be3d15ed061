"""Changes a model's vocabulary: keeps, drops and averages rows of its embedding table.

Imports Keras: import it late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kerasgen.decoder import weights as decoder_weights
from kerasgen.errors import ModelArgumentError
from kerasgen.models import described
from kerasgen.models.base import LanguageModel, quantization_modes
from kerasgen.models.preprocessing import attach_preprocessor
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.vocabulary import AdaptedVocabulary

RECORD = "vocabulary"
"""The key of `LanguageModel.metadata` under which an adaptation is written down."""


def can_adapt(model: LanguageModel) -> bool:
    """Say whether the model's vocabulary can be changed: byte-level BPE on a family that kerasgen knows.

    One that only its `tokenizer.json` says can be trimmed.
    """
    if not isinstance(model.tokenizer, ByteLevelBPE) and not (
        isinstance(model.tokenizer, PretrainedTokenizer) and model.tokenizer.is_json
    ):
        return False
    architecture = described.architecture_of(model)
    return model.causal_lm is None or (architecture is not None and architecture.tokens is not None)


def adapt(model: LanguageModel, adapted: AdaptedVocabulary, *, record: Mapping[str, Any]) -> None:
    """Give the model another vocabulary, in place: it gets a new Keras model and the new tokenizer.

    The row of a new id is the mean of the rows of the old ids that it is made of, in the output layer too; every other
    weight stays. Over texts whose pieces stay the same, the hidden states stay the same too.

    Args:
        model: the model of a family that `can_adapt` knows, without adapters.
        adapted: the new tokenizer and where its ids come from.
        record: what is written into `model.metadata["vocabulary"]`.

    Raises:
        ModelArgumentError: the model can't be changed so.
    """
    modes = quantization_modes(model.network)
    if modes:
        raise ModelArgumentError(
            f"The vocabulary of a quantized model ({', '.join(modes)}) can't be changed. Change it before "
            "causal_lm.quantize(…)."
        )
    if not can_adapt(model):
        raise ModelArgumentError(
            f"The vocabulary of a {described.name_of(model)} with a {type(model.tokenizer).__name__} can't be "
            "changed: it takes byte-level BPE on GPT-2 or OPT. Use vocabulary='keep'."
        )
    if model.causal_lm is None:
        _adapt_container(model, adapted)
    else:
        _adapt_keras_hub(model, adapted)
    model.tokenizer = adapted.tokenizer
    if model.causal_lm is not None:
        attach_preprocessor(model)
    model.metadata = dict(model.metadata) | {RECORD: dict(record)}


def _adapt_container(model: LanguageModel, adapted: AdaptedVocabulary) -> None:
    from kerasgen.models.container import Container

    old = model.container
    weights = decoder_weights.flat(old.read())
    for name in ("embedding.tokens", "head.kernel", "head.bias"):
        if name in weights:
            by_row = weights[name].T if name == "head.kernel" else weights[name]
            rows = _rows(by_row, adapted.sources)
            weights[name] = rows.T if name == "head.kernel" else rows
    config = replace(old.config, vocabulary_size=adapted.tokenizer.vocabulary_size)
    model.container = Container(config, context_length=old.context_length)
    model.container.assign(decoder_weights.nested(weights))


def _adapt_keras_hub(model: LanguageModel, adapted: AdaptedVocabulary) -> None:
    old = model.backbone
    config = old.get_config()
    config["vocabulary_size"] = adapted.tokenizer.vocabulary_size
    new = type(old).from_config(config)
    tables = {id(variable) for variable in _tables(old)}
    for before, after in zip(old.weights, new.weights, strict=True):
        if id(before) not in tables:
            after.assign(before)
    for before, after in zip(_tables(old), _tables(new), strict=True):
        table = np.asarray(before)
        by_row = table if table.shape[0] == old.vocabulary_size else table.T
        rows = _rows(by_row, adapted.sources)
        after.assign(rows if table.shape[0] == old.vocabulary_size else rows.T)
    model.causal_lm = type(model.causal_lm)(backbone=new, preprocessor=None)


def token_table(model: LanguageModel) -> Any:
    """Return the variable of the token embeddings, `(vocabulary_size, hidden_dim)`."""
    if model.causal_lm is None:
        return model.container.decoder.parts["embedding"]["tokens"]._embeddings
    return model.backbone.token_embedding._embeddings


def _tables(backbone: Any) -> list[Any]:
    embedding = backbone.token_embedding
    return [embedding._embeddings] if embedding.tie_weights else [embedding._embeddings, embedding.reverse_embeddings]


def _rows(table: NDArray[np.float32], sources: tuple[tuple[int, ...], ...]) -> NDArray[np.float32]:
    return np.stack([table[list(ids)].mean(axis=0) if len(ids) > 1 else table[ids[0]] for ids in sources])
