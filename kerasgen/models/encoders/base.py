"""The table of an encoder's architecture: names of its weights elsewhere, and what its `config.json` says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kerasgen.encoder.config import EncoderConfig
from kerasgen.errors import ModelFormatError
from kerasgen.models.architectures.config_rules import FIXED, IRRELEVANT

# transformers' names of activations, and what they are here.
ACTIVATIONS: Final = {
    "gelu": "gelu",
    "gelu_new": "gelu_approximate",
    "gelu_pytorch_tanh": "gelu_approximate",
    "gelu_fast": "gelu_approximate",
    "relu": "relu",
}
# What no masked language model's logits depend on, besides what no decoder's do.
_NO_LOGITS: Final = """
    hidden_dropout_prob attention_probs_dropout_prob classifier_dropout classifier_dropout_prob is_decoder
    use_cache pooler_dropout pooler_hidden_act pooler_hidden_size pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooler_type directionality net_structure_type gap_size
    num_memory_blocks down_scale_factor sinusoidal_pos_embds tie_weights_ qa_dropout seq_classif_dropout dropout
    gradient_checkpointing max_relative_positions output_past mlm_loss embedding_dropout summary_activation
    vocab_file
"""
_FURTHER: Final = frozenset(_NO_LOGITS.split())


class Names(NamedTuple):
    """Names of a part in other programs.

    Args:
        transformers: its name there without `.weight` and `.bias`, the head's bias's whole; empty where it has none.
        keras: the attribute path from KerasHub's task, in which `{}` is a number; empty where it has none.
    """

    transformers: str
    keras: str = ""


@dataclass(frozen=True)
class EncoderArchitecture:
    """One architecture of masked language models, as data.

    Args:
        name: transformers' `model_type`.
        model_class: the class in transformers whose weights are read.
        task: KerasHub's class.
        prefix: what transformers puts before the names of the encoder's tensors.
        parts: the names of every part but the blocks'.
        layer_parts: the names of a block's parts, by role.
        layer: transformers' prefix of a block, of its number; of group and number where blocks share weights.
        keras_layer: KerasHub's attribute path of a block.
        keys: transformers' key of each setting of a description.
        head_table: transformers' name of the head's table, which is that of the tokens.
        defaults: transformers' values of keys that are absent.
        fixed: values that keys must have.
        position_offset: rows of transformers' table of positions before that of a text's first token.
        folds_segments: whether a table of one token type is added into the positions.
        head_activation: of the head, or None for that of the blocks.
        ignored: regular expressions of tensors that no logit depends on.
        hub: settings of a description that KerasHub's class has whatever it is told.
        tokens: the names of the start, end, padding and mask tokens and of the unknown one.
        constants: settings of a description that no key of transformers says.
        writes: further keys of a `config.json`.
    """

    name: str
    model_class: str
    task: str
    prefix: str
    parts: Mapping[str, Names]
    layer_parts: Mapping[str, Names]
    layer: str
    keras_layer: str
    keys: Mapping[str, str]
    defaults: Mapping[str, Any]
    head_table: str
    hub: Mapping[str, Any]
    tokens: SpecialNames
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    position_offset: int = 0
    folds_segments: bool = False
    head_activation: str | None = None
    ignored: tuple[str, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    writes: Callable[[EncoderConfig], Mapping[str, Any]] = lambda config: {}

    def read_config(self, what: str, config: Mapping[str, Any]) -> EncoderConfig:
        """Return the description of a model whose `config.json` this is.

        Args:
            what: the model, for messages.
            config: the content of the file.

        Raises:
            ModelFormatError: a key is unknown, or says what is not computed here.
        """
        known = set(self.keys.values()) | set(self.defaults) | set(self.fixed) | IRRELEVANT | _FURTHER
        for key, value in config.items():
            allowed = self.fixed.get(key, None if key in known else FIXED.get(key))
            if allowed is not None and value not in allowed:
                raise ModelFormatError(
                    f"{what} has {key}={value!r}; what is read is only {' or '.join(map(repr, allowed))}."
                )
            if key not in known and key not in FIXED:
                raise ModelFormatError(
                    f"{what} has the setting {key}={value!r}, which is not known. If it changes nothing in what the "
                    "model computes, take it out of its 'config.json'."
                )
        said = {**self.defaults, **config}
        settings: dict[str, Any] = {}
        for name, key in self.keys.items():
            if key not in said:
                raise ModelFormatError(f"{what} does not say its {key!r}. Complete its 'config.json'.")
            settings[name] = said[key]
        activation = ACTIVATIONS.get(settings.get("activation", ""))
        if activation is None:
            raise ModelFormatError(
                f"{what} has the activation {settings.get('activation')!r}; what is read is {', '.join(ACTIVATIONS)}."
            )
        settings["activation"] = activation
        settings["head_activation"] = self.head_activation or activation
        settings.setdefault("embedding_dim", settings["hidden_dim"])
        settings.setdefault("num_groups", settings["num_layers"])
        settings["max_positions"] -= self.position_offset
        if self.folds_segments and settings.get("num_segments") == 1:
            settings["num_segments"] = 0
        settings["head_norm_epsilon"] = settings.setdefault("norm_epsilon", 1e-12)
        return EncoderConfig(architecture=self.name, **settings | dict(self.constants))

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        """Return transformers' `config.json` of a description.

        Raises:
            ModelFormatError: transformers' class would compute another model.
        """
        names = {"gelu": "gelu", "gelu_approximate": "gelu_new", "relu": "relu"}
        written: dict[str, Any] = {"architectures": [self.model_class], "model_type": self.name}
        for name, key in self.keys.items():
            written[key] = getattr(config, name)
        written[self.keys["activation"]] = names[config.activation]
        written[self.keys["max_positions"]] = config.max_positions + self.position_offset
        if self.folds_segments and not config.num_segments:
            written[self.keys["num_segments"]] = 1
        return {**written, **{key: values[0] for key, values in self.fixed.items()}, **self.writes(config)}

    def difference_in_transformers(self, config: EncoderConfig) -> str | None:
        """Return which trait transformers' class would compute otherwise, or None."""
        wanted = self.read_config("The model", self.write_config(config))
        return _difference(config, wanted)

    def hub_difference(self, config: EncoderConfig) -> str | None:
        """Return which trait KerasHub's class would compute otherwise, or None."""
        return _difference(config, self.described(hub_arguments(config), config.dropout))

    def described(self, arguments: Mapping[str, Any], dropout: float) -> EncoderConfig:
        """Return what KerasHub's class computes that is built with these arguments."""
        names = ("vocabulary_size", "num_layers", "num_heads", "hidden_dim", "intermediate_dim")
        settings = {name: arguments[name] for name in names}
        settings["max_positions"] = arguments["max_sequence_length"]
        settings["embedding_dim"] = arguments.get("embedding_dim", arguments["hidden_dim"])
        settings["num_groups"] = arguments.get("num_groups", arguments["num_layers"])
        settings["layers_per_group"] = arguments.get("num_inner_repetitions", 1)
        if "num_segments" in arguments:
            settings["num_segments"] = arguments["num_segments"]
        if "bucket_size" in arguments:
            settings["relative_buckets"] = arguments["bucket_size"]
        return EncoderConfig(architecture=self.name, dropout=dropout, **{**settings, **self.hub})


class SpecialNames(NamedTuple):
    """The names of an architecture's special tokens."""

    start: str
    end: str
    pad: str
    mask: str
    unknown: str


def _difference(config: EncoderConfig, other: EncoderConfig) -> str | None:
    for name, value in vars(config).items():
        theirs = getattr(other, name)
        if value != theirs and name != "dropout":
            return f"{name}={theirs!r} instead of {value!r}"
    return None


def hub_arguments(config: EncoderConfig) -> dict[str, Any]:
    """Return the arguments of KerasHub's backbone that any of its classes takes, and of those that only some take."""
    arguments: dict[str, Any] = {
        "vocabulary_size": config.vocabulary_size,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "hidden_dim": config.hidden_dim,
        "intermediate_dim": config.intermediate_dim,
        "dropout": config.dropout,
        "max_sequence_length": config.max_positions,
    }
    if config.num_segments:
        arguments["num_segments"] = config.num_segments
    if config.relative_buckets:
        arguments["bucket_size"] = config.relative_buckets
    if config.projects_embeddings:
        arguments |= {
            "embedding_dim": config.embedding_dim,
            "num_groups": config.num_groups,
            "num_inner_repetitions": config.layers_per_group,
        }
    return arguments
