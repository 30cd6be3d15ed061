"""Write what transformers computes with the weights of `described`, and the configurations it saves: needs torch.

`python tests/support/write_transformers_logits.py`; the names and layouts here are transformers' own, written by hand.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from described import CONFIGS, TOKENS
from transformers_state import state

from kerasgen.decoder.config import DecoderConfig

COMMON = {
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 20,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
GEMMA = {
    "query_pre_attn_scalar": 16,
    "sliding_window": 6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
}
FALCON = {"num_attention_heads": 4, "ffn_hidden_size": 20, "rope_parameters": PLAIN, "tie_word_embeddings": True}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": PLAIN}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "truncate": False}
GPT = {"vocab_size": 37, "n_positions": 64, "n_embd": 24, "n_layer": 4, "n_head": 3, "n_inner": 20}
SETTINGS = {
    "gpt2": GPT,
    "opt": {
        **{key: COMMON[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")},
        **{key: COMMON[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
        "num_attention_heads": 3,
        "ffn_dim": 20,
        "word_embed_proj_dim": 24,
        "tie_word_embeddings": True,
        "activation_function": "relu",
    },
    "llama": {"rope_parameters": PLAIN},
    "llama_tied_with_biases": {
        "rope_parameters": PLAIN,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama_linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    "llama_dynamic": {
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 500.0, "factor": 2.0},
        "max_position_embeddings": 16,
    },
    "llama_llama3": {
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "llama_yarn": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 500.0,
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "mistral": {"sliding_window": 5},
    "qwen2": {"num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "qwen3": {"rms_norm_eps": 1e-6},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "rope_parameters": PLAIN},
    "gemma3_text": {
        **GEMMA,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 8.0},
        },
    },
    "gemma": {"num_key_value_heads": 1, "rope_parameters": PLAIN, "rms_norm_eps": 1e-6, "tie_word_embeddings": True},
    "gemma2_held": {
        **GEMMA,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "rope_parameters": PLAIN,
    },
    "gemma3_held": {
        **GEMMA,
        "num_hidden_layers": 6,
        "query_pre_attn_scalar": 8,
        "rope_parameters": {
            "sliding_attention": PLAIN,
            "full_attention": {"rope_type": "linear", "rope_theta": 1_000_000.0, "factor": 8.0},
        },
    },
    "qwen3_held": {
        "head_dim": 10,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
    },
    "gpt_neox": {
        "num_attention_heads": 3,
        "use_parallel_residual": True,
        "hidden_act": "gelu",
        "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.25},
        "layer_norm_eps": 1e-5,
    },
    "gptj": {**GPT, "rotary_dim": 4, "tie_word_embeddings": False},
    "bloom": {"vocab_size": 37, "hidden_size": 24, "n_head": 3, "n_layer": 4},
    "olmo2": {"rope_parameters": PLAIN},
    "granite": {
        "attention_multiplier": 0.2,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 4.0,
    },
    "gpt_neox_held": {
        "num_attention_heads": 3,
        "hidden_act": "gelu_new",
        "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.25},
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    "gpt_neox_in_turn": {
        "num_attention_heads": 3,
        "use_parallel_residual": False,
        "hidden_act": "gelu",
        "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.25},
        "layer_norm_eps": 1e-5,
    },
    "phi3": {
        "sliding_window": 5,
        "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.75},
        "tie_word_embeddings": True,
    },
    "phi3_held": {
        "original_max_position_embeddings": 16,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.3],
            "long_factor": [1.0, 2.0, 4.0],
        },
    },
    "falcon": FALCON,
    "falcon_40b": {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon_held": {**FALCON, "multi_query": False, "parallel_attn": False, "bias": True, "alibi": True},
    "smollm3_held": {
        "head_dim": 6,
        "no_rope_layers": [1, 1, 1, 0],
        "rope_parameters": {**PLAIN, "rope_theta": 500.0},
        "tie_word_embeddings": True,
    },
    "smollm3": {"no_rope_layers": [1, 1, 1, 0], "rope_parameters": PLAIN},
    "starcoder2": {"tie_word_embeddings": True},
    "starcoder2_windowed": {"use_bias": False, "sliding_window": 5},
    "mixtral": {**EXPERTS, "sliding_window": None, "router_aux_loss_coef": 0.5},
    "mixtral_held": {**EXPERTS, "head_dim": 6, "sliding_window": 5, "router_aux_loss_coef": 0.5},
    "qwen3_moe_held": {
        "num_experts": 6,
        "num_experts_per_tok": 3,
        "norm_topk_prob": False,
        "mlp_only_layers": [1],
        "moe_intermediate_size": 12,
        "rms_norm_eps": 1e-6,
        "rope_parameters": PLAIN,
    },
    "qwen2_moe_held": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "norm_topk_prob": True,
        "moe_intermediate_size": 12,
        "shared_expert_intermediate_size": 16,
        "head_dim": 6,
        "rope_parameters": PLAIN,
    },
    "gpt_oss": {
        **{key: EXPERTS[key] for key in ("num_local_experts", "num_experts_per_tok")},
        "sliding_window": 6,
        "swiglu_alpha": 1.5,
        "swiglu_limit": 0.75,
        "router_aux_loss_coef": 0.25,
        "rope_parameters": {**YARN, "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "gpt_oss_held": {
        **{key: EXPERTS[key] for key in ("num_local_experts", "num_experts_per_tok")},
        "sliding_window": 6,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "router_aux_loss_coef": 0.0,
        "rope_parameters": {**YARN, "factor": 8.0, "original_max_position_embeddings": 4096},
    },
}


# What the configuration of an architecture has no key for.
LEFT = {
    "gpt_neox": ("num_key_value_heads", "head_dim", "rms_norm_eps"),
    "phi3": ("head_dim",),
    "starcoder2": ("head_dim", "rms_norm_eps"),
    "falcon": ("num_key_value_heads", "head_dim", "rms_norm_eps", "intermediate_size"),
}


def model_of(name: str, *, config: DecoderConfig | None = None, **said: Any) -> transformers.PreTrainedModel:
    """The decoder as transformers' own model, with the weights that are drawn by name.

    Args:
        name: of the decoder.
        config: a description of other sizes, as `said` has them.
        **said: settings of transformers in the place of those that the decoder has.
    """
    config = config or CONFIGS[name]
    settings = SETTINGS[name]
    if config.architecture not in ("gpt2", "opt", "gptj", "bloom"):
        settings = {
            key: value for key, value in COMMON.items() if key not in LEFT.get(config.architecture, ())
        } | settings
    model_config = transformers.AutoConfig.for_model(config.architecture, **settings | said)
    # Of a Falcon with ALiBi, transformers 5.24's eager attention adds the slopes twice, and its usual one once.
    model_config._attn_implementation = "sdpa" if config.architecture == "falcon" else "eager"
    model = transformers.AutoModelForCausalLM.from_config(model_config).eval()
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array))
        for name, array in state(config, experts_together=True).items()
    }
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not (config.tied_head and name.startswith("lm_head"))]
    assert not missing, (name, missing)
    assert not unexpected, (name, unexpected)
    return model


def computed_by_transformers(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """The logits and what unbalanced routers cost, and the configuration that it saves."""
    model = model_of(name)
    saved = {**json.loads(model.config.to_json_string()), "architectures": [type(model).__name__]}
    has_experts = CONFIGS[name].feedforward.experts is not None
    with torch.no_grad():
        found = model(torch.tensor([TOKENS]), **({"output_router_logits": True} if has_experts else {}))
    arrays = {name: found.logits[0].numpy()}
    if has_experts:
        arrays[f"{name}.router_loss"] = np.asarray(found.aux_loss * model.config.router_aux_loss_coef, np.float32)
    return arrays, saved


if __name__ == "__main__":
    place = Path(__file__).parents[1] / "decoder" / "transformers_logits.npz"
    known = dict(np.load(place))
    computed = {name: computed_by_transformers(name) for name in CONFIGS}
    arrays = {name: array for found, _ in computed.values() for name, array in found.items()}
    # Numbers that differ by rounding alone stay: another processor adds them up in another order.
    kept = {name: known.get(name, found) for name, found in arrays.items()}
    for name, found in arrays.items():
        kept[name] = found if np.abs(kept[name] - found).max() > 1e-5 else kept[name]
    np.savez_compressed(place, **kept)
    place.with_name("transformers_configs.json").write_text(
        json.dumps({name: saved for name, (_, saved) in computed.items()}, sort_keys=True) + "\n", encoding="utf-8"
    )
    print(f"{place}: {len(CONFIGS)} decoders by transformers {transformers.__version__}")
