"""What an architecture is, as data: the description of its decoder, and what other programs call each of its weights.

Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ModelArgumentError
from kerasgen.models.architectures.config_rules import ConfigRules


class Part(NamedTuple):
    """One part of a decoder that holds weights, under the names of four programs.

    Parts of one layer that share a name elsewhere are one tensor there, in the order of the table.

    Args:
        name: by `kerasgen.decoder.weights`, such as `query`, whose weights are `query.kernel` and `query.bias`.
        keras: where KerasHub's backbone, or its layer, holds the Keras layer: attributes joined by dots. Queries, keys
            and values may be in one, head by head.
        transformers: transformers' name, without `.weight` and `.bias`; with `{}` for an expert's number where each
            expert has a tensor of its own. Tensors of all experts together have their part's name alone, and `_bias`.
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


def _not_in_keras_hub(settings: Mapping[str, Any]) -> DecoderConfig:
    raise ModelArgumentError("KerasHub has no class of this architecture.")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A kind of decoder that kerasgen computes by itself.

    What stands between its many names is a `DecoderConfig`: transformers' settings and KerasHub's become one, and are
    written from one.

    Args:
        name: transformers' `model_type`.
        parts: what stands outside of the layers.
        layer_parts: what each layer holds.
        dense_parts: what a layer without experts holds in the place of the parts of these names, where others have
            experts.
        renamed: returns the names of parts, in transformers and llama.cpp, that a description gives others.
        read_config: returns the description of a decoder from transformers' settings, as `config_rules` let them
            through, with their `rotary` positions by kind of layer (`config_rules.ConfigRules`).
        keys: of transformers' `config.json`, and for each where a description has its value: attributes joined by dots.
        further_keys: returns others of them from a description; raises `ModelArgumentError` for what can't be said.
        config_rules: which keys of transformers' `config.json` are read, and what they may say.
        transformers_class: that transformers' `config.json` names.
        transformers_settings: what else it says, whatever the sizes are.
        transformers_same: keys that repeat another one.
        transformers_dropout: the key of transformers' dropout that KerasHub's backbone class takes, if it does.
        transformers_prefixes: what the whole model puts before a tensor's name, but the output layer's; the first is
            written.
        transformers_layer: the name of a layer, `{}` for its number.
        transformers_kernels: how transformers keeps a kernel.
        transformers_by_group: whether queries, keys and values that are one tensor stand there group by group of the
            queries that share a key, and not all queries, all keys, all values.
        transformers_experts: under which names transformers' own modules hold parts that its files have expert by
            expert; a file may have either.
        transformers_expert_kernels: how transformers keeps the kernels of all experts together.
        transformers_gate_in_turn: whether the columns of an expert's gate and of the other factor stand there in turn.
        transformers_other_names: what some versions of transformers call a part.
        transformers_ignored: regular expressions of tensors that change nothing.
        gguf: what llama.cpp calls it, or None where llama.cpp doesn't run it.
        not_in_gguf: why there is no file of llama.cpp's, if llama.cpp does run something of that kind.
        gguf_interleaves_rotary: whether llama.cpp rotates neighbours of a head where transformers rotates its halves,
            so that its queries' and keys' columns stand in another order.
        gguf_settings: returns what llama.cpp computes with whatever a file says, in transformers' settings: given
            those that the file says, and its tensors by name.
        backbone: the name of KerasHub's backbone class, of several that of which a transformers directory becomes one;
            None where KerasHub has none.
        describe: returns the description of a decoder from KerasHub's settings of its backbone, `layer_norm_epsilon`
            and `tie_word_embeddings` among them; raises `ModelArgumentError` for what a description can't say.
        arguments: of KerasHub's backbone class, and for each where a description has its value.
        further_arguments: returns others of them from a description.
        length_argument: of KerasHub's backbone class, which takes the tokens that a model was made for, though its
            positions have no limit.
        layer_norm_epsilon: of the backbone class where its settings don't say one.
        layer: the name of KerasHub's layer class.
        activation: where such a layer holds its activation: attributes joined by dots; empty where it is fixed.
        keras_gate_in_turn: whether the columns of a gate and of the other factor that are one variable of KerasHub's
            stand there in turn rather than in halves.
        heads_first: whether KerasHub's kernels of queries, keys and values are `(heads, width, size)`, and not
            `(width, heads, size)`.
        dropouts: where a layer holds those of the attention's probabilities, of what the attention adds and of what
            the feed-forward part adds; empty where KerasHub puts them elsewhere.
        stored: for each of `parts`, where KerasHub's weights file holds it.
        stored_layer: the same of the first layer; the others have their number behind it.
        tokens: of the byte-level tokenizer, if it has one.
    """

    name: str
    parts: tuple[Part, ...]
    layer_parts: tuple[Part, ...]
    dense_parts: tuple[Part, ...] = ()
    renamed: Callable[[DecoderConfig], Mapping[str, tuple[str, str]]] = lambda config: {}
    read_config: Callable[[Mapping[str, Any]], DecoderConfig]
    keys: Mapping[str, str]
    further_keys: Callable[[DecoderConfig], Mapping[str, Any]] = lambda config: {}
    config_rules: ConfigRules
    transformers_class: str
    transformers_settings: Mapping[str, Any] = field(default_factory=dict)
    transformers_same: Mapping[str, str] = field(default_factory=dict)
    transformers_dropout: str | None = None
    transformers_prefixes: tuple[str, ...]
    transformers_layer: str = "layers.{}"
    transformers_kernels: Literal["in_out", "out_in"] = "out_in"
    transformers_by_group: bool = False
    transformers_experts: Mapping[str, str] = field(default_factory=dict)
    transformers_expert_kernels: Literal["in_out", "out_in"] = "out_in"
    transformers_gate_in_turn: bool = False
    transformers_other_names: Mapping[str, str] = field(default_factory=dict)
    transformers_ignored: tuple[str, ...] = ()
    gguf: str | None = None
    not_in_gguf: str = ""
    gguf_interleaves_rotary: bool = False
    gguf_settings: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]] = lambda settings, tensors: {}
    backbone: str | None = None
    describe: Callable[[Mapping[str, Any]], DecoderConfig] = _not_in_keras_hub
    arguments: Mapping[str, str] = field(default_factory=dict)
    further_arguments: Callable[[DecoderConfig], Mapping[str, Any]] = lambda config: {}
    length_argument: str | None = None
    layer_norm_epsilon: float = 1e-5
    layer: str = ""
    activation: str = ""
    keras_gate_in_turn: bool = False
    heads_first: bool = False
    dropouts: tuple[str, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict)
    stored_layer: str = ""
    tokens: ByteLevelTokens | None = None

    @property
    def causal_lm(self) -> str:
        """The name of KerasHub's causal model class."""
        assert self.backbone is not None
        return self.backbone.removesuffix("Backbone") + "CausalLM"

    @property
    def has_experts(self) -> bool:
        """Whether it is a mixture of experts."""
        return any(part.name == "router" for part in self.layer_parts)

    def parts_of(self, config: DecoderConfig, index: int) -> tuple[Part, ...]:
        """Return what a layer holds."""
        if config.has_experts(index):
            return self.layer_parts
        dense = {part.name: part for part in self.dense_parts}
        return tuple(dense.get(part.name, part) for part in self.layer_parts)

    def with_experts_together(self) -> Architecture:
        """Return the same whose files hold all experts of a layer in one tensor, as transformers' modules do."""
        names = self.transformers_experts
        parts = (part._replace(transformers=names.get(part.name, part.transformers)) for part in self.layer_parts)
        return replace(self, layer_parts=tuple(parts))

    def settings(self, config: DecoderConfig) -> dict[str, Any]:
        """Return what transformers' `config.json` says of a decoder, beside its class.

        Raises:
            ModelArgumentError: it has no key for something.
        """
        keys = {key: attrgetter(path)(config) for key, path in self.keys.items()}
        keys |= {key: keys[other] for key, other in self.transformers_same.items()}
        return {**keys, **self.transformers_settings, **self.further_keys(config)}

    def backbone_arguments(self, config: DecoderConfig) -> dict[str, Any]:
        """Return the arguments of KerasHub's backbone class that come nearest to a description."""
        arguments = {name: attrgetter(path)(config) for name, path in self.arguments.items()}
        return {**arguments, **self.further_arguments(config)}

    def hub_reason(self, config: DecoderConfig) -> str:
        """Return why KerasHub's class can't hold a decoder, a sentence; empty if it can."""
        if self.backbone is None:
            return f"KerasHub has no class for the architecture {self.name!r}."
        try:
            arguments = {"layer_norm_epsilon": self.layer_norm_epsilon, **self.backbone_arguments(config)}
            missing = list(differing(config, self.describe(arguments)))
        except ModelArgumentError as cause:
            return f"KerasHub's {self.backbone} can't be told of it: {cause}"
        return f"KerasHub's {self.backbone} can't compute {'; '.join(missing)}." if missing else ""


def differing(config: Any, nearest: Any, level: str = "") -> Iterator[str]:
    """Yield in which fields a description differs from another one's, such as `attention.soft_cap=2.0 (not None)`."""
    for each in fields(config):
        name, one, other = f"{level}{each.name}", getattr(config, each.name), getattr(nearest, each.name)
        if one == other:
            continue
        if is_dataclass(one) and type(one) is type(other):
            yield from differing(one, other, f"{name}.")
        else:
            yield f"{name}={one!r} (not {other!r})"
