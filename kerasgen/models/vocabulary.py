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
from kerasgen.errors import ModelArgumentError, TokenArgumentError
from kerasgen.models import architectures, described, forward, quantized_base
from kerasgen.models.architectures import keras_weights
from kerasgen.models.base import LanguageModel, quantization_modes
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.models.preprocessing import attach_preprocessor
from kerasgen.tokens import pretrained_vocabulary
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.vocabulary import AdaptedVocabulary

RECORD = "vocabulary"
"""The key of `LanguageModel.metadata` under which an adaptation is written down."""


def can_adapt(model: LanguageModel) -> bool:
    """Say whether the model's vocabulary can be changed: of a described architecture, with pieces that can be."""
    return described.architecture_of(model) is not None and adaptable(model.tokenizer) is not None


def adaptable(tokenizer: Tokenizer) -> ByteLevelBPE | PretrainedTokenizer | None:
    """Return a tokenizer in the form in which its vocabulary can be changed, or None where it can't be.

    KerasHub's own becomes the byte-level BPE, the `tokenizer.json` or the SentencePiece model that gives its ids.
    """
    if isinstance(tokenizer, KerasHubTokenizer):
        tokenizer = tokenizer.as_byte_level() or tokenizer.as_pretrained()
    if isinstance(tokenizer, PretrainedTokenizer):
        try:
            pretrained_vocabulary.editable(tokenizer)
        except TokenArgumentError:
            return None
        return tokenizer
    return tokenizer if isinstance(tokenizer, ByteLevelBPE) else None


def why_not(model: LanguageModel) -> str:
    """Return why the vocabulary of a model that `can_adapt` refuses can't be changed."""
    if described.architecture_of(model) is None:
        return f"it takes an architecture that kerasgen computes by itself ({architectures.listed()})"
    return "it takes byte-level BPE, a tokenizer.json with BPE or Unigram, or a SentencePiece model of those"


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
            f"changed: {why_not(model)}. Use vocabulary='keep'."
        )
    scheme = quantized_base.scheme_of(model.network)
    for layer in model.network._flatten_layers():
        if quantized_base.is_on(layer):
            quantized_base.release(layer)
    if model.causal_lm is None:
        _adapt_container(model, adapted)
    else:
        _adapt_keras_hub(model, adapted)
    if scheme is not None:
        quantized_base.hold(quantized_base.targets(forward.decoder_of(model)), scheme)
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
    architecture = described.architecture_of(model)
    assert architecture is not None
    description = keras_weights.describe(architecture, old)
    settings = old.get_config() | architecture.backbone_arguments(description)  # Llama's config omits the tie
    new = type(old).from_config(settings | {"vocabulary_size": adapted.tokenizer.vocabulary_size})
    tables = {id(variable) for variable in _tables(old)}
    for before, after in zip(old.weights, new.weights, strict=True):
        if id(before) not in tables:
            after.assign(before)
    for n, (before, after) in enumerate(zip(_tables(old), _tables(new), strict=True)):
        table = np.asarray(before)
        rows = _rows(table.T if n else table, adapted.sources)  # an output layer of its own is (hidden_dim, vocabulary)
        after.assign(rows.T if n else rows)
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
