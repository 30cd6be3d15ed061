"""`Live`: a KerasHub causal model that a person built or loaded becomes a `LanguageModel`, in place."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelArgumentError, ModelFormatError, TokenizerError
from kerasgen.files import temporary
from kerasgen.models.base import LanguageModel, ModelSource

INPUTS = {"token_ids", "padding_mask"}
PREFIX = "live:"


def is_keras(value: object) -> bool:
    """Return whether the value is a layer or model of Keras, or a class of them, without importing Keras."""
    layers = getattr(sys.modules.get("keras"), "layers", None)
    if layers is None:
        return False
    return isinstance(value, layers.Layer) or (isinstance(value, type) and issubclass(value, layers.Layer))


@dataclass(frozen=True, eq=False)
class Live(ModelSource):
    """Bring a `keras_hub.models.CausalLM` that is in memory already.

    The model itself is used and tuned, not a copy. Its optimizer, loss and sampler stay as it was compiled, and its
    preprocessor is asked for its vocabulary alone.

    Args:
        causal_lm: with float32 weights and a preprocessor; it may be compiled, carry adapters, be quantized.

    Raises:
        ModelArgumentError: it is no such model.
    """

    causal_lm: Any

    def __post_init__(self) -> None:
        _check(self.causal_lm)

    def __str__(self) -> str:
        return f"a live {type(self.causal_lm).__name__}"

    def load(self) -> LanguageModel:
        """Return the model with its exact tokenizer, read from its preprocessor.

        Raises:
            ModelFormatError: the preprocessor's tokenizer can't be read exactly, or has more ids than the model.
            MissingDependencyError: the tokenizer needs a package that is not installed.
        """
        causal_lm = self.causal_lm
        try:
            tokenizer = _tokenizer(causal_lm)
        except TokenizerError as cause:
            raise ModelFormatError(f"The tokenizer of the {type(causal_lm).__name__} can't be used: {cause}") from cause
        if tokenizer.vocabulary_size > causal_lm.backbone.vocabulary_size:
            raise ModelFormatError(
                f"The tokenizer of the {type(causal_lm).__name__} has {tokenizer.vocabulary_size} ids and its backbone "
                f"only {causal_lm.backbone.vocabulary_size}: they don't belong together."
            )
        source = f"{PREFIX}{type(causal_lm).__name__}:{_digest(causal_lm)}"
        return LanguageModel(causal_lm=causal_lm, tokenizer=tokenizer, source=source)


def is_live(model: LanguageModel) -> bool:
    """Return whether the model was handed over in memory, so that nobody else could ask its source for it again."""
    return model.source.startswith(PREFIX)


def _check(causal_lm: Any) -> None:
    models = getattr(sys.modules.get("keras_hub"), "models", None)
    kind = type(causal_lm).__name__
    if isinstance(causal_lm, type):
        raise ModelArgumentError(f"A model is asked for, not its class. Write {causal_lm.__name__}.from_preset(…).")
    if models is not None and isinstance(causal_lm, models.Backbone):
        task = kind.replace("Backbone", "CausalLM")
        name = task if hasattr(models, task) else "GPT2CausalLM"
        raise ModelArgumentError(
            f"A {kind} gives hidden states, and no text without a head and a tokenizer. Put it into its task: "
            f"keras_hub.models.{name}(backbone=backbone, preprocessor=keras_hub.models.{name}Preprocessor(tokenizer, "
            "sequence_length=…))."
        )
    if models is None or not isinstance(causal_lm, models.CausalLM):
        raise ModelArgumentError(
            f"A {kind} is no keras_hub.models.CausalLM, whose tokenizer and logits are what a pipeline needs. "
            f"Received: {causal_lm!r}. Pass a CausalLM, such as keras_hub.models.CausalLM.from_preset('gpt2_base_en')."
        )
    inputs = causal_lm.backbone.input
    if not isinstance(inputs, dict) or set(inputs) != INPUTS:
        raise ModelArgumentError(
            f"A {kind} reads more than one text (its inputs: {', '.join(sorted(inputs))}), and a pipeline goes on with "
            "one. Pass a decoder, such as a GPT2CausalLM."
        )
    tokenizer = getattr(causal_lm.preprocessor, "tokenizer", None)
    if tokenizer is None:
        received = "None" if causal_lm.preprocessor is None else f"a {type(causal_lm.preprocessor).__name__}"
        raise ModelArgumentError(
            f"The {kind} has no preprocessor with a tokenizer, so nobody knows which text its ids stand for. Received: "
            f"preprocessor={received}. Give it one: causal_lm.preprocessor = "
            f"keras_hub.models.{_stock_name(causal_lm)}Preprocessor(tokenizer, sequence_length=…)."
        )
    rounded = {weight.dtype for weight in causal_lm.weights} & {"bfloat16", "float16", "float64"}
    if rounded:
        raise ModelArgumentError(
            f"The {kind} holds weights in {' and '.join(sorted(rounded))}, and a pipeline's are float32: what is "
            "tuned, saved and proved is equal to the bit. Build it with dtype='float32', or 'mixed_bfloat16' to "
            "compute in bfloat16."
        )
    embedding = getattr(causal_lm.backbone, "token_embedding", None)
    if getattr(embedding, "lora_enabled", False):
        raise ModelArgumentError(
            f"The {kind} carries an adapter on its token embeddings, which is neither saved nor merged here. Leave "
            "'token_embedding' out of enable_lora's target_layer_names."
        )


def _stock_name(causal_lm: Any) -> str:
    """Return the name of the KerasHub class from which a user's subclass derives."""
    return next(kind.__name__ for kind in type(causal_lm).__mro__ if kind.__module__.startswith("keras_hub."))


def _tokenizer(causal_lm: Any) -> Any:
    from kerasgen.models import architectures, preset_tokenizers
    from kerasgen.models.hub_tokenizer import KerasHubTokenizer
    from kerasgen.tokens.bpe import ByteLevelBPE

    preprocessor = causal_lm.preprocessor
    family = next(filter(None, map(architectures.byte_level_tokens, _backbone_names(causal_lm))), None)
    if family is None or getattr(preprocessor.tokenizer, "merges", None) is None:
        return KerasHubTokenizer(preprocessor.tokenizer)
    if not preprocessor.tokenizer.vocabulary:
        raise TokenizerError("it has no vocabulary")
    with temporary.folder() as folder:
        preprocessor.tokenizer.save_assets(folder)
        return ByteLevelBPE.from_files(
            Path(folder, Path(preset_tokenizers.VOCABULARY_FILE).name),
            Path(folder, Path(preset_tokenizers.MERGES_FILE).name),
            start_token=family.start_token if getattr(preprocessor, "add_start_token", True) else None,
            end_token=family.end_token,
            pad_token=family.pad_token,
        )


def _backbone_names(causal_lm: Any) -> Iterator[str]:
    """Return the names of the backbone's class and its base classes."""
    return (kind.__name__ for kind in type(causal_lm.backbone).__mro__)


def _digest(causal_lm: Any) -> str:
    """Return a digest of all weights, because two models of one class are not one source of an interrupted run."""
    import keras
    import numpy as np

    digest = hashlib.blake2b(digest_size=16)
    for variable in causal_lm.weights:
        if not variable.path.endswith("seed_generator_state"):
            digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)).data)
    return digest.hexdigest()
