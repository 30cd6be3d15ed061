"""What an architecture is, as data: the description of its decoder, and what other programs call each of its weights.

Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from kerasgen.decoder.config import DecoderConfig
from kerasgen.models.architectures.config_rules import ConfigRules


class Part(NamedTuple):
    """One part of a decoder that holds weights, under the names of four programs.

    Parts of one layer that share a name elsewhere are one tensor there, side by side in the order of the table.

    Args:
        name: by `kerasgen.decoder.weights`, such as `query`, whose weights are `query.kernel` and `query.bias`.
        keras: where KerasHub's backbone, or its layer, holds the Keras layer: attributes joined by dots.
        transformers: transformers' name, without `.weight` and `.bias`.
        gguf: llama.cpp's name, without them.
    """

    name: str
    keras: str
    transformers: str
    gguf: str


@dataclass(frozen=True)
class ByteLevelTokens:
    """Tokens of an architecture whose texts are read by GPT-2's byte-level BPE.

    Args:
        backbone: the name of its `keras_hub.models.Backbone` class.
        tokenizer: the name of its `keras_hub.tokenizers.Tokenizer` class.
        start_token: put before a document.
        end_token: put after a document.
        pad_token: fills masked positions, on which nothing depends. (KerasHub fills GPT-2's with id 0, a `!`.)
    """

    backbone: str
    tokenizer: str
    start_token: str
    end_token: str
    pad_token: str

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Tokens that a vocabulary of this architecture must hold."""
        return tuple(dict.fromkeys((self.start_token, self.end_token, self.pad_token)))


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A kind of decoder that kerasgen computes by itself.

    Args:
        name: transformers' `model_type`.
        backbone: the name of KerasHub's backbone class, of several that of which a transformers directory becomes one.
        describe: returns the description of a decoder from KerasHub's settings of its backbone, `layer_norm_epsilon`
            and `tie_word_embeddings` among them.
        layer_norm_epsilon: of the backbone class where its settings don't say one.
        parts: what stands outside of the layers.
        layer_parts: what each layer holds.
        layer: the name of KerasHub's layer class.
        activation: where such a layer holds its activation: attributes joined by dots.
        dropouts: where it holds those of the attention's probabilities, of what the attention adds and of what the
            feed-forward part adds; empty where KerasHub puts them elsewhere.
        arguments: of KerasHub's backbone class, and the key of transformers' `config.json` for each.
        further_arguments: returns others of them from transformers' settings, or completes those.
        config_rules: which keys of transformers' `config.json` are read, and what they may say.
        transformers_class: that transformers' `config.json` names.
        transformers_settings: what else it says, whatever the sizes are.
        transformers_same: keys that repeat another one.
        transformers_prefixes: what the whole model puts before a tensor's name, but the output layer's; the first is
            written.
        transformers_layer: the name of a layer, `{}` for its number.
        transformers_kernels: how transformers keeps a kernel.
        transformers_ignored: regular expressions of tensors that change nothing.
        gguf: what llama.cpp calls it, or None where llama.cpp doesn't run it.
        gguf_interleaves_rotary: whether llama.cpp rotates neighbours of a head where transformers rotates its halves,
            so that its queries' and keys' columns stand in another order.
        stored: for each of `parts`, where KerasHub's weights file holds it.
        stored_layer: the same of the first layer; the others have their number behind it.
        tokens: of the byte-level tokenizer, if it has one.
    """

    name: str
    backbone: str
    describe: Callable[[Mapping[str, Any]], DecoderConfig]
    layer_norm_epsilon: float
    parts: tuple[Part, ...]
    layer_parts: tuple[Part, ...]
    layer: str
    activation: str
    dropouts: tuple[str, ...] = ()
    arguments: Mapping[str, str]
    further_arguments: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda settings: {}
    config_rules: ConfigRules
    transformers_class: str
    transformers_settings: Mapping[str, Any] = field(default_factory=dict)
    transformers_same: Mapping[str, str] = field(default_factory=dict)
    transformers_prefixes: tuple[str, ...]
    transformers_layer: str = "layers.{}"
    transformers_kernels: Literal["in_out", "out_in"] = "out_in"
    transformers_ignored: tuple[str, ...] = ()
    gguf: str | None = None
    gguf_interleaves_rotary: bool = False
    stored: Mapping[str, str] = field(default_factory=dict)
    stored_layer: str = ""
    tokens: ByteLevelTokens | None = None

    @property
    def causal_lm(self) -> str:
        """The name of KerasHub's causal model class."""
        return self.backbone.removesuffix("Backbone") + "CausalLM"
