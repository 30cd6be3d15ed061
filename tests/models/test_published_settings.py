"""Settings as publishers write them: keys that change nothing, and keys that transformers passes over."""

from __future__ import annotations

from typing import Any

import pytest

from kerasgen.decoder.config import DecoderConfig, RotaryPositions
from kerasgen.errors import ModelArgumentError, ModelFormatError
from kerasgen.models import architectures, transformers_settings

pytestmark = pytest.mark.one_backend

SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 12,
    "num_attention_heads": 3,
}


def read(model_type: str, **settings: Any) -> DecoderConfig:
    """The description that a directory of this `config.json` has."""
    known = architectures.named(model_type)
    assert known is not None
    sizes = SIZES | ({} if model_type == "gpt_neox" else {"num_key_value_heads": 3})
    sizes |= {"head_dim": 8} if "gemma" in model_type else {}
    return known.read_config(transformers_settings.settings("a model", {"model_type": model_type, **sizes, **settings}))


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("llama", {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}}),
        ("qwen2", {"use_mrope": False}),
        ("phi3", {"auto_map": {"AutoConfig": "code.Phi3Config", "AutoModelForCausalLM": "code.Phi3ForCausalLM"}}),
        ("phi3", {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False}),
        (
            "starcoder2",
            {"mlp_type": "default", "norm_type": "layer_norm", "rms_norm_eps": 1e-6, "residual_dropout": 0.1},
        ),
        ("gemma", {"hidden_act": "gelu"}),
        ("gemma", {"hidden_act": "gelu", "hidden_activation": None}),
    ],
    ids=str,
)
def test_a_key_that_changes_nothing_is_passed_over(model_type: str, settings: dict[str, Any]) -> None:
    assert read(model_type, **settings) == read(model_type)


@pytest.mark.parametrize(
    ("model_type", "settings", "said"),
    [
        ("llama", {"rope_interleaved": True}, "rope_interleaved=True"),
        ("qwen2", {"use_mrope": True}, "use_mrope=True"),
        ("phi3", {"interpolate_factor": 2}, "interpolate_factor=2"),
        ("starcoder2", {"mlp_type": "gated"}, "mlp_type='gated'"),
        ("llama", {"auto_map": {"AutoModelForCausalLM": "code.OtherForCausalLM"}}, "code of its own"),
        ("llama", {"auto_map": {"AutoConfig": "code.OtherConfig"}}, "code of its own"),
        *(
            (name, {"partial_rotary_factor": 0.5}, "rotates whole heads")
            for name in ("llama", "qwen2", "qwen3", "mistral")
        ),
        ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "rotates whole heads"),
        ("gpt_neox", {"partial_rotary_factor": 0.5}, "rotates 0.25 of each head"),
        ("gemma3_text", {"original_max_position_embeddings": 16}, "original_max_position_embeddings=16"),
        ("gpt_neox", {"partial_rotary_factor": 0.5, "rotary_pct": 1.0}, "rotates 1.0 of each head"),
    ],
    ids=str,
)
def test_a_key_that_transformers_computes_otherwise_is_refused(
    model_type: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelFormatError, match=said):
        read(model_type, **settings)


def test_a_falcon_whose_keys_transformers_can_not_share_out_is_refused() -> None:
    known = architectures.named("falcon")
    assert known is not None
    said = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    said |= {"model_type": "falcon", "multi_query": False}
    of_heads = known.read_config(transformers_settings.settings("a model", {**said, "num_kv_heads": 3}))
    assert of_heads.attention.num_key_value_heads == 3
    with pytest.raises(ModelArgumentError, match=r"num_kv_heads=1 .*as many as it has heads, 3"):
        known.read_config(transformers_settings.settings("a model", {**said, "num_kv_heads": 1}))


def test_the_length_that_a_scaling_starts_from_may_stand_beside_it() -> None:
    said = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    beside = read("llama", rope_scaling=said, original_max_position_embeddings=16, max_position_embeddings=64)
    within = {**said, "original_max_position_embeddings": 16}
    assert beside == read("llama", rope_scaling=within, max_position_embeddings=64)
    assert beside.positions.scaling.original_length == 16


def test_a_factor_of_yarn_that_is_null_is_the_growth_of_the_length() -> None:
    said = {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 16}
    found = read("llama", rope_scaling=said, max_position_embeddings=64)
    assert found == read("llama", rope_scaling={**said, "factor": 4.0}, max_position_embeddings=64)


@pytest.mark.parametrize(
    ("model_type", "settings", "share"),
    [
        ("phi3", {"partial_rotary_factor": 0.75}, 0.75),
        ("phi3", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.75}}, 0.75),
        ("gpt_neox", {}, 0.25),
        ("gpt_neox", {"rotary_pct": 0.5}, 0.5),
        ("gpt_neox", {"rotary_pct": 0.5, "partial_rotary_factor": 0.5}, 0.5),
        ("gpt_neox", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.75}}, 0.75),
        ("llama", {"partial_rotary_factor": 1.0}, 1.0),
    ],
    ids=str,
)
def test_the_share_of_a_head_that_is_rotated_is_transformers(
    model_type: str, settings: dict[str, Any], share: float
) -> None:
    positions = read(model_type, **settings).positions
    assert isinstance(positions, RotaryPositions)
    assert positions.fraction == share


def test_the_pattern_of_gemma_3_is_that_of_the_key_that_transformers_reads() -> None:
    def full(**settings: Any) -> list[int]:
        windows = read("gemma3_text", sliding_window=4, **settings).attention.windows
        return [layer for layer, window in enumerate(windows) if window is None]

    assert full() == full(_sliding_window_pattern=3) == [5, 11]
    assert full(sliding_window_pattern=3) == [2, 5, 8, 11]
