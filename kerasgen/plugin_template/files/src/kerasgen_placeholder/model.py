"""A model source: a small GPT-2 with weights at random, to be tuned from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kerasgen.errors import ModelArgumentError
from kerasgen.models.base import LanguageModel, ModelSource


@dataclass(frozen=True)
class PlaceholderModel(ModelSource):
    """A GPT-2 that nobody has trained, whose tokens are bytes.

    Args:
        layers: how many it has.
        width: of its hidden states, in eights.
        seed: of its weights.
    """

    contract_version: ClassVar[int] = 1

    layers: int = 2
    width: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("layers", 1), ("width", 8), ("seed", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                what = f"{name} must be a whole number of at least {least}"
                raise ModelArgumentError(f"{what}. Received: {name}={value!r}.")
        if self.width % 8:
            raise ModelArgumentError(f"width must be a multiple of 8. Received: width={self.width}.")

    def load(self) -> LanguageModel:
        """Return the model, the same one at each call."""
        import keras
        from keras_hub.models import GPT2Backbone, GPT2CausalLM
        from kerasgen.tokens.characters import whole_character_bpe

        keras.utils.set_random_seed(self.seed)
        tokenizer = whole_character_bpe([], vocabulary_size=257)
        backbone = GPT2Backbone(
            vocabulary_size=tokenizer.vocabulary_size,
            num_layers=self.layers,
            num_heads=8,
            hidden_dim=self.width,
            intermediate_dim=4 * self.width,
            max_sequence_length=256,
            dtype="float32",
        )
        return LanguageModel(
            causal_lm=GPT2CausalLM(backbone=backbone, preprocessor=None),
            tokenizer=tokenizer,
            source=f"placeholder:layers={self.layers},width={self.width},seed={self.seed}",
        )
