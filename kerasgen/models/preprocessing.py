"""The preprocessor that lets a model out of a pipeline generate by itself, made of its exact tokenizer's vocabulary."""

from __future__ import annotations

from typing import Any

from kerasgen import backend
from kerasgen.errors import ModelError
from kerasgen.models import architectures
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.bpe import ByteLevelBPE

# KerasHub's preprocessors are built for this many positions where a model has no limit of its own.
DEFAULT_SEQUENCE_LENGTH = 1024


def preprocessor_of(model: LanguageModel) -> Any:
    """Return KerasHub's preprocessor with KerasHub's tokenizer, made from the exact tokenizer's vocabulary.

    Raises:
        ModelError: KerasHub's format has no place for the tokenizer.
    """
    backend.use()
    import keras_hub

    kind = type(model.causal_lm).preprocessor_cls
    tokenizer = model.tokenizer
    family = architectures.BYTE_LEVEL_FAMILIES.get(type(model.backbone).__name__)
    keras_hub_tokenizer = getattr(tokenizer, "keras_hub_tokenizer", None)
    if family is not None and isinstance(tokenizer, ByteLevelBPE):
        missing = [token for token in family.special_tokens if token not in tokenizer.vocabulary]
        if missing:
            raise ModelError(
                f"A {family.backbone} preset needs {', '.join(map(repr, missing))} in its vocabulary, and the "
                "tokenizer has no such token. Give it one, and make it the end token."
            )
        if not tokenizer.merges:
            raise ModelError(
                "KerasHub's tokenizers can't hold a vocabulary without merges. Give the tokenizer at least one merge; "
                "whole_character_bpe makes some from any text beyond ASCII."
            )
        keras_hub_tokenizer = getattr(keras_hub.tokenizers, family.tokenizer)(
            vocabulary=tokenizer.vocabulary, merges=tokenizer.merges
        )
    elif keras_hub_tokenizer is None:
        raise ModelError(
            f"KerasHub's {type(model.backbone).__name__} presets have no place for a {type(tokenizer).__name__}: it "
            "can't be saved as a preset."
        )
    return kind(
        keras_hub_tokenizer,
        sequence_length=model.max_sequence_length or DEFAULT_SEQUENCE_LENGTH,
        add_start_token=tokenizer.start_token_id is not None,
    )


def attach_preprocessor(model: LanguageModel) -> None:
    """Give the model's task the preprocessor of its tokenizer, where KerasHub has one that can hold it.

    With it `model.causal_lm.generate("…")` works outside of a pipeline; nothing in kerasgen uses it. KerasHub writes
    blank lines in other tokens than the exact tokenizer.
    """
    try:
        preprocessor = preprocessor_of(model)
    except ModelError:
        model.causal_lm.preprocessor = None
        return
    preprocessor.build(None)
    for layer in preprocessor._flatten_layers():
        if not layer.built:  # Keras quantizes no model with a layer that is not built, be it a tokenizer
            layer.build(None)
    model.causal_lm.preprocessor = preprocessor
