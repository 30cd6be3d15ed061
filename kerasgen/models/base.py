"""The model contract: a source brings a KerasHub causal model together with its exact tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from kerasgen.errors import ModelArgumentError, ModelError
from kerasgen.keywords import Checked
from kerasgen.tokens.base import Tokenizer

Precision: TypeAlias = Literal["float32", "mixed_float16", "mixed_bfloat16"]
WeightsDtype: TypeAlias = Literal["float32", "bfloat16", "auto"]
CONTEXT_LENGTH = "max_position_embeddings"
"""In a model's metadata, the tokens that it was made for, where its positions have no limit of their own."""

CHAT_TEMPLATE = "chat_template"
"""In a model's metadata, the template (Jinja) that makes a text of a conversation."""
SPECIAL_TOKENS = "special_tokens_map"
"""In a model's metadata, the names of special tokens that its chat template knows, such as `bos_token`."""
ADDED_TOKENS = "added_tokens"
"""In a model's metadata, the special tokens that a chat template added to its vocabulary."""
BASE_MODEL = "base_model"
"""In a model's metadata, what a file says of the weights in it: name, licence, languages, types."""
KEPT = (CONTEXT_LENGTH, CHAT_TEMPLATE, SPECIAL_TOKENS, ADDED_TOKENS, BASE_MODEL)
"""What of a model's metadata is saved with it."""


class PretrainedModel:
    """A model and the tokenizer that its ids belong to: what causal and masked ones have in common."""

    tokenizer: Tokenizer
    source: str
    metadata: Mapping[str, Any]

    def __repr__(self) -> str:
        ids = f"{self.tokenizer.vocabulary_size:,} token ids"
        return f"{type(self).__name__}({self.kind}, {ids}, source={self.source!r})"

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the model's kind."""

    @property
    @abstractmethod
    def max_sequence_length(self) -> int | None:
        """Positions that the model knows, or None if it has no limit of its own (rotary positions)."""

    @property
    def default_sequence_length(self) -> int:
        """Positions that tuning and scoring use unless told otherwise: the model's own, at most 512."""
        return min(self.max_sequence_length or 512, 512)


@dataclass(repr=False)
class MaskedLanguageModel(PretrainedModel):
    """An encoder that predicts masked tokens from both sides, and the tokenizer that its ids belong to.

    Args:
        network: a `kerasgen.models.encoder_network.EncoderNetwork`, which holds the weights.
        tokenizer: the tokenizer whose `vocabulary_size` is at most the model's; it has a start token, an end token and
            a mask token.
        source: how to ask for the model again.
        metadata: what else is known, as JSON could hold it.

    Raises:
        ModelArgumentError: the tokenizer lacks a token that a masked language model needs.
    """

    network: Any
    tokenizer: Tokenizer
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if getattr(self.tokenizer, "mask_token_id", None) is None or self.tokenizer.start_token_id is None:
            raise ModelArgumentError(
                "A masked language model needs a tokenizer with a mask token and a start token. Name them in its "
                "'tokenizer_config.json' ('mask_token', 'cls_token')."
            )

    @property
    def mask_token(self) -> str:
        """The token that stands for what is to be predicted, such as `<mask>`."""
        return str(self.tokenizer.mask_token)  # type: ignore[attr-defined]

    @property
    def mask_token_id(self) -> int:
        """Its id."""
        return int(self.tokenizer.mask_token_id)  # type: ignore[attr-defined]

    @property
    def kind(self) -> str:
        """Name of the model's architecture."""
        return str(self.network.config.architecture)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table, of which the tokenizer's ids are the first."""
        return int(self.network.config.vocabulary_size)

    @property
    def hidden_dim(self) -> int:
        """Width of the hidden states."""
        return int(self.network.config.hidden_dim)

    @property
    def max_sequence_length(self) -> int:
        """Positions that the model knows, those of the start and end tokens among them."""
        return int(self.network.config.max_positions)


@dataclass(repr=False)
class LanguageModel(PretrainedModel):
    """A causal model and the tokenizer that its ids belong to.

    Args:
        causal_lm: a `keras_hub.models.CausalLM`, or None where KerasHub has no class that can hold the model. Its
            `preprocessor` is for those who take it out of here; nothing else uses it, and it may be None.
        tokenizer: the tokenizer whose `vocabulary_size` is at most the model's.
        source: how to ask for the model again, such as `"starter"` or `"hub:preset=gpt2_base_en"`.
        metadata: what else is known (licence, model card, figures), as JSON could hold it.
        container: a `kerasgen.models.container.Container` that holds the weights where `causal_lm` is None.
        hub_reason: why KerasHub can't hold the model, where it can't.
    """

    causal_lm: Any
    tokenizer: Tokenizer
    source: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    container: Any = None
    hub_reason: str = ""

    def __post_init__(self) -> None:
        if (self.causal_lm is None) == (self.container is None):
            raise ModelArgumentError(
                "A LanguageModel has either a `causal_lm` of KerasHub or a `container` of weights."
            )

    @property
    def network(self) -> Any:
        """The Keras model that is tuned and checkpointed: KerasHub's causal model, or the container of the weights."""
        return self.container if self.causal_lm is None else self.causal_lm

    @property
    def kind(self) -> str:
        """Name of KerasHub's class, or of the described architecture."""
        if self.causal_lm is None:
            return str(self.container.config.architecture)
        return type(self.causal_lm).__name__

    @property
    def backbone(self) -> Any:
        """The `keras_hub.models.Backbone` under the causal model.

        Raises:
            ModelError: KerasHub has no class that can hold the model.
        """
        if self.causal_lm is None:
            raise ModelError(
                f"This {self.kind} has no backbone of KerasHub: {self.hub_reason} Tune it, generate with it and export "
                "it by kerasgen."
            )
        return self.causal_lm.backbone

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding table, of which the tokenizer's ids are the first."""
        return int(self.container.config.vocabulary_size if self.causal_lm is None else self.backbone.vocabulary_size)

    @property
    def hidden_dim(self) -> int:
        """Width of the hidden states."""
        return int(self.container.config.hidden_dim if self.causal_lm is None else self.backbone.hidden_dim)

    @property
    def max_sequence_length(self) -> int | None:
        """Positions that the model knows, or None if it has no limit of its own (rotary positions)."""
        if self.causal_lm is None:
            return self.container.max_sequence_length  # type: ignore[no-any-return]
        length = getattr(self.backbone, "max_sequence_length", None)
        return None if length is None else int(length)


def computing_layers(causal_lm: Any) -> list[Any]:
    """Return the layers of a KerasHub task that compute logits, itself among them, but none of its preprocessor's."""
    preprocessor: Any = getattr(causal_lm, "preprocessor", None)
    apart = [id(layer) for layer in preprocessor._flatten_layers()] if hasattr(preprocessor, "_flatten_layers") else []
    return [layer for layer in causal_lm._flatten_layers() if id(layer) not in apart]


def quantization_modes(causal_lm: Any) -> list[str]:
    """Return the kinds in which a KerasHub task's layers hold their weights as codes, such as `int8`; none if plain."""
    modes = (getattr(layer, "quantization_mode", None) for layer in computing_layers(causal_lm))
    return sorted({str(mode) for mode in modes if mode is not None})


class ModelSource(metaclass=Checked):
    """Brings a model. Subclasses are frozen dataclasses whose construction loads nothing and imports no Keras."""

    contract_version: ClassVar[int]  # a plugin declares it, see kerasgen.plugins.contract_versions
    _argument_error = ModelArgumentError

    @abstractmethod
    def load(self) -> LanguageModel:
        """Return the model with float32 weights and the policy float32, on the backend that Keras runs on.

        Within `kerasgen.models.quantized_base.loading`, weights may be held in fewer bits.

        Raises:
            ModelUnavailableError: a hub or directory can't be reached; names what works offline.
            ModelFormatError: what is there can't be read.
            MissingDependencyError: a package is missing that this model needs.
        """

    def check(self) -> None:
        """Raise if what `load` reads is not there, before Keras is imported; by default do nothing.

        Networks are left alone.

        Raises:
            ModelUnavailableError: it is not.
            ModelFormatError: something else is there.
        """

    def about(self) -> Mapping[str, Any]:
        """Return what is known of the weights without loading them, for a model card; by default nothing.

        Of these names: `name`, in words; `license`; `languages`, codes of ISO 639; and `repository`, their name on the
        Hugging Face hub.
        """
        return {}

    def directory(self) -> Path | None:
        """Return the directory that `load` reads all its files from; None if there is no such directory."""
        return None

    def gguf_file(self) -> Path | None:
        """Return the GGUF file that is all that `load` reads; None if it reads anything else."""
        return None
