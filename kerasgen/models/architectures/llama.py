"""Llama. Sources: Touvron et al. 2023, arXiv 2302.13971; Grattafiori et al. 2024, arXiv 2407.21783 (Llama 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.decoder.rotary_scaling import Llama3Scaling
from kerasgen.models.architectures import gated, rotary_keys
from kerasgen.models.architectures.base import Architecture


def describe(settings: Mapping[str, Any]) -> DecoderConfig:
    """Return the description of a decoder from the settings of KerasHub's backbone."""
    scaling, factor = None, settings.get("rope_frequency_adjustment_factor")
    if factor is not None:
        scaling = Llama3Scaling(
            factor=float(factor),
            low_frequency_factor=float(settings["rope_low_freq_factor"]),
            high_frequency_factor=float(settings["rope_high_freq_factor"]),
            original_length=int(settings["rope_pretraining_sequence_length"]),
        )
    # KerasHub's layers take a `rope_position_scaling_factor` and compute without it.
    positions = RotaryPositions(float(settings["rope_max_wavelength"]), scaling=scaling)
    return gated.read("llama", gated.of_keras_hub(settings), positions=positions)


def _scaling(config: DecoderConfig) -> dict[str, Any]:
    scaling = config.positions.scaling if isinstance(config.positions, RotaryPositions) else None
    if not isinstance(scaling, Llama3Scaling):
        return {}
    return {
        "rope_frequency_adjustment_factor": scaling.factor,
        "rope_low_freq_factor": scaling.low_frequency_factor,
        "rope_high_freq_factor": scaling.high_frequency_factor,
        "rope_pretraining_sequence_length": scaling.original_length,
    }


ARCHITECTURE = Architecture(
    name="llama",
    parts=gated.PARTS,
    layer_parts=gated.LAYER_PARTS,
    read_config=lambda settings: gated.read("llama", settings),
    keys=gated.KEYS,
    further_keys=lambda config: {
        "hidden_act": gated.activation(config),
        "attention_bias": config.attention.query_bias,
        "mlp_bias": config.feedforward.up_bias,
        **rotary_keys.write(config),
    },
    config_rules=gated.rules("Llama", rms_norm_eps=1e-6, attention_bias=False, mlp_bias=False),
    transformers_class="LlamaForCausalLM",
    transformers_prefixes=("model.",),  # `LlamaForCausalLM` writes it, `LlamaModel` none
    transformers_ignored=gated.IGNORED,
    gguf="llama",
    gguf_interleaves_rotary=True,
    backbone="Llama3Backbone",  # which is Llama's under another name
    describe=describe,
    arguments=gated.ARGUMENTS | {"tie_word_embeddings": "tied_head"},
    further_arguments=_scaling,
    layer="LlamaTransformerDecoder",
    activation="activation",
)
