"""Makes KerasHub's preprocessor from a model's exact tokenizer, so that the model generates by itself."""

from __future__ import annotations

from typing import Any

from kerasgen.errors import ModelError
from kerasgen.models import architectures, hub_import, preset_tokenizers
from kerasgen.models.base import LanguageModel
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretrained import PretrainedTokenizer

# KerasHub's preprocessors are built for this many positions where a model has no limit of its own.
DEFAULT_SEQUENCE_LENGTH = 1024


def preprocessor_of(model: LanguageModel) -> Any:
    """Return KerasHub's preprocessor with KerasHub's tokenizer, made from the exact tokenizer's vocabulary.

    It is None where KerasHub's tokenizer would do otherwise: see `preset_tokenizers.keras_hub_difference`.

    Raises:
        ModelError: KerasHub's format has no place for the tokenizer.
    """
    keras_hub: Any = hub_import.load()

    kind = type(model.causal_lm).preprocessor_cls
    tokenizer = model.tokenizer
    family = architectures.byte_level_tokens(type(model.backbone).__name__)
    keras_hub_tokenizer = getattr(tokenizer, "keras_hub_tokenizer", None)
    if family is not None and isinstance(tokenizer, ByteLevelBPE):
        if preset_tokenizers.keras_hub_difference(tokenizer, family) is not None:
            return None
        kind_of_tokenizer = getattr(keras_hub.tokenizers, family.tokenizer)
        keras_hub_tokenizer = hub_import.tokenizer_in_python(
            lambda: kind_of_tokenizer(vocabulary=tokenizer.vocabulary, merges=tokenizer.merges)
        )
    elif isinstance(tokenizer, (ByteLevelBPE, PretrainedTokenizer)) and keras_hub_tokenizer is None:
        return None  # KerasHub's class of this family may cut a text otherwise
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
        preprocessor = None
    if preprocessor is None:
        model.causal_lm.preprocessor = None
        return
    preprocessor.build(None)
    for layer in preprocessor._flatten_layers():
        if not layer.built:  # Keras quantizes no model with a layer that is not built, be it a tokenizer
            layer.build(None)
    model.causal_lm.preprocessor = preprocessor
