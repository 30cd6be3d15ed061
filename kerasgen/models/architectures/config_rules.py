"""Rules for the keys of transformers' `config.json`: read, of one fixed value, or irrelevant.

Imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

# Training, bookkeeping, labels, and how texts are drawn: none of it changes the logits.
_BOOKKEEPING: Final = """
    architectures model_type transformers_version torch_dtype dtype _name_or_path _commit_hash name_or_path use_cache
    output_hidden_states output_attentions return_dict return_dict_in_generate output_scores torchscript use_bfloat16
    attn_implementation _attn_implementation _attn_implementation_autoset chunk_size_feed_forward initializer_range
    initializer_factor attention_dropout hidden_dropout gradient_checkpointing id2label label2id num_labels
    problem_type finetuning_task task_specific_params tokenizer_class prefix bos_token_id eos_token_id pad_token_id
    sep_token_id decoder_start_token_id tf_legacy_loss pretraining_tp router_aux_loss_coef output_router_logits
    cache_implementation is_decoder unsloth_fixed unsloth_version do_sample temperature top_k top_p typical_p max_length
    min_length num_beams num_beam_groups num_return_sequences diversity_penalty repetition_penalty length_penalty
    no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids early_stopping suppress_tokens
    begin_suppress_tokens forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty
    is_llama_config transformers.js_config
"""
IRRELEVANT: Final = frozenset(_BOOKKEEPING.split())

# What a key of any architecture must say, where it is there at all.
FIXED: Final[Mapping[str, tuple[Any, ...]]] = {
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "compression_config": (None,),
    "rope_interleaved": (False, None),
    "use_mrope": (False, None),
    "full_attn_mod": (1, None),
    "interpolate_factor": (1, None),
    "lm_head_bias": (False, None),
}

ROTARY: Final = "rotary"
"""The key of checked settings under which `RotaryPositions` stand, by kind of layer; `""` is every kind."""

SIZES: Final = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


@dataclass(frozen=True)
class ConfigRules:
    """Which keys of a `config.json` of one `model_type` are handed over, must have one value, or change no logits.

    Args:
        name: what its classes in transformers begin with.
        sizes: whole numbers, handed over, that a configuration must hold.
        defaults: what is handed over, with transformers' value for a key that is absent.
        fixed: the values that KerasHub's layers compute.
        irrelevant: keys that change no logits, besides those of every architecture.
        aliases: other names of keys.
        rope_theta: transformers' base of the rotary positions, or the base for each kind of layer; None if there are
            no rotary positions.
        partial_rotary_factor: transformers' share of a head that is rotated.
        partial_rotary_key: under which name the share stands beside the rotary positions; None where transformers
            rotates whole heads whatever is said.
        rope_parameters: transformers' own scaling where the configuration has neither `rope_parameters` nor
            `rope_scaling`; none if empty.
        rope_aliases: other names of kinds of scaling.
        rope_types: the kinds of scaling of rotary positions that are handed over.
        further: says what is wrong with a configuration, or None.
    """

    name: str
    sizes: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    irrelevant: tuple[str, ...] = ("max_position_embeddings",)
    aliases: Mapping[str, str] = field(default_factory=dict)
    rope_theta: float | Mapping[str, float] | None = None
    partial_rotary_factor: float = 1.0
    partial_rotary_key: str | None = None
    rope_parameters: Mapping[str, Any] = field(default_factory=dict)
    rope_aliases: Mapping[str, str] = field(default_factory=dict)
    rope_types: tuple[str, ...] = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
    further: Callable[[Mapping[str, Any]], str | None] = lambda config: None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes whose weights these are."""
        return tuple(self.name + ending for ending in ("LMHeadModel", "ForCausalLM", "DoubleHeadsModel", "Model"))
