"""Write `transformers_logits.npz`, what transformers computes with the weights of `described`: needs torch.

`python tests/support/write_transformers_logits.py`; the names and layouts here are transformers' own, written by hand.
"""

from pathlib import Path

import numpy as np
import torch
import transformers
from described import CONFIGS, TOKENS, drawn

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
SMALL = {"num_attention_heads": 3, "num_key_value_heads": 3}
GPT = {"vocab_size": 37, "n_positions": 64, "n_embd": 24, "n_layer": 4, "n_head": 3, "n_inner": 20}
SETTINGS = {
    "gpt2": GPT,
    "opt": {
        **COMMON,
        **SMALL,
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
    "qwen3": {},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "rope_parameters": PLAIN},
    "gemma3_text": {
        **GEMMA,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 8.0},
        },
    },
    "gpt_neox": {
        **SMALL,
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
    "smollm3": {"no_rope_layers": [1, 1, 1, 0], "rope_parameters": PLAIN},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None, "rope_parameters": PLAIN},
}


def transposed(part: dict) -> dict:
    return {"weight": part["kernel"].T} | ({"bias": part["bias"]} if "bias" in part else {})


def norm(part: dict) -> dict:
    return {"weight": part["scale"]} | ({"bias": part["bias"]} if "bias" in part else {})


def fused_by_head(layer: dict, heads: int) -> dict:
    """Queries, keys and values of a head side by side, head by head, as GPT-NeoX and Bloom keep them."""
    parts = [layer[role] for role in ("query", "key", "value")]
    kernels = np.stack([part["kernel"].T.reshape(heads, -1, part["kernel"].shape[0]) for part in parts], 1)
    biases = np.stack([part["bias"].reshape(heads, -1) for part in parts], 1)
    return {"weight": kernels.reshape(-1, kernels.shape[-1]), "bias": biases.reshape(-1)}


def gpt2(layer: dict) -> dict:
    parts = [layer[role] for role in ("query", "key", "value")]
    kernel = np.concatenate([part["kernel"] for part in parts], 1)
    as_is = {"attn.c_proj": "output", "mlp.c_fc": "up", "mlp.c_proj": "down"}
    return {
        "ln_1": norm(layer["attention_norm"]),
        "ln_2": norm(layer["feedforward_norm"]),
        "attn.c_attn": {"weight": kernel, "bias": np.concatenate([part["bias"] for part in parts])},
        **{name: {"weight": layer[role]["kernel"], "bias": layer[role]["bias"]} for name, role in as_is.items()},
    }


def opt(layer: dict) -> dict:
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return {
        "self_attn_layer_norm": norm(layer["attention_norm"]),
        "final_layer_norm": norm(layer["feedforward_norm"]),
        **{f"self_attn.{name}": transposed(layer[role]) for name, role in names.items()},
        "fc1": transposed(layer["up"]),
        "fc2": transposed(layer["down"]),
    }


def neox(layer: dict) -> dict:
    return {
        "input_layernorm": norm(layer["attention_norm"]),
        "post_attention_layernorm": norm(layer["feedforward_norm"]),
        "attention.query_key_value": fused_by_head(layer, 3),
        "attention.dense": transposed(layer["output"]),
        "mlp.dense_h_to_4h": transposed(layer["up"]),
        "mlp.dense_4h_to_h": transposed(layer["down"]),
    }


def bloom(layer: dict) -> dict:
    return {name.replace("attention.", "self_attention."): part for name, part in neox(layer).items()}


def gptj(layer: dict) -> dict:
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "out_proj": "output"}
    return {
        "ln_1": norm(layer["attention_norm"]),
        **{f"attn.{name}": transposed(layer[role]) for name, role in names.items()},
        "mlp.fc_in": transposed(layer["up"]),
        "mlp.fc_out": transposed(layer["down"]),
    }


def llama(layer: dict) -> dict:
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
    found = {f"self_attn.{name}": transposed(layer[role]) for name, role in names.items()}
    found |= {f"self_attn.{role[0]}_norm": norm(layer[role]) for role in ("query_norm", "key_norm") if role in layer}
    if "router" in layer:
        gate_up = np.concatenate([layer[role]["kernel"].transpose(0, 2, 1) for role in ("gate", "up")], 1)
        found["mlp.gate"] = transposed(layer["router"])
        found["mlp.experts"] = {"gate_up_proj": gate_up, "down_proj": layer["down"]["kernel"].transpose(0, 2, 1)}
    else:
        found |= {f"mlp.{role}_proj": transposed(layer[role]) for role in ("gate", "up", "down")}
    if "attention_norm" in layer:
        found["input_layernorm"] = norm(layer["attention_norm"])
    if "attention_post_norm" in layer:
        found["post_attention_layernorm"] = norm(layer["attention_post_norm"])
        found["post_feedforward_layernorm"] = norm(layer["feedforward_post_norm"])
        if "feedforward_norm" in layer:
            found["pre_feedforward_layernorm"] = norm(layer["feedforward_norm"])
    else:
        found["post_attention_layernorm"] = norm(layer["feedforward_norm"])
    return found


# For each family: tokens, layers, a layer's names, the last norm, the head.
HOMES = {
    "gpt2": ("transformer.wte", "transformer.h", gpt2, "transformer.ln_f"),
    "opt": ("model.decoder.embed_tokens", "model.decoder.layers", opt, "model.decoder.final_layer_norm"),
    "gpt_neox": ("gpt_neox.embed_in", "gpt_neox.layers", neox, "gpt_neox.final_layer_norm"),
    "bloom": ("transformer.word_embeddings", "transformer.h", bloom, "transformer.ln_f"),
    "gptj": ("transformer.wte", "transformer.h", gptj, "transformer.ln_f"),
}


def state(config: DecoderConfig) -> dict[str, np.ndarray]:
    """The weights by transformers' names."""
    weights = drawn(config)
    home = HOMES.get(config.architecture, ("model.embed_tokens", "model.layers", llama, "model.norm"))
    tokens, layers, of_layer, final = home
    found = {f"{tokens}.weight": weights["embedding"]["tokens"]}
    if config.architecture == "gpt2":
        found["transformer.wpe.weight"] = weights["embedding"]["positions"]
    if config.architecture == "opt":
        nobody = np.full((2, config.hidden_dim), 9.0, np.float32)
        found["model.decoder.embed_positions.weight"] = np.concatenate([nobody, weights["embedding"]["positions"]])
    parts = {final: norm(weights["final_norm"])}
    if config.embedding_norm is not None:
        parts["transformer.word_embeddings_layernorm"] = norm(weights["embedding"]["norm"])
    for index, layer in enumerate(weights["layers"]):
        parts |= {f"{layers}.{index}.{name}": part for name, part in of_layer(layer).items()}
    if not config.tied_head:
        parts["lm_head"] = transposed(weights["head"])
    return found | {f"{name}.{key}": array for name, part in parts.items() for key, array in part.items()}


def logits(name: str) -> np.ndarray:
    config = CONFIGS[name]
    settings = SETTINGS[name]
    if config.architecture not in ("gpt2", "opt", "gptj", "bloom"):
        settings = {**COMMON, **settings}
    model_config = transformers.AutoConfig.for_model(config.architecture, **settings)
    model_config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(model_config).eval()
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in state(config).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not (config.tied_head and name.startswith("lm_head"))]
    assert not missing, (name, missing)
    assert not unexpected, (name, unexpected)
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0].numpy()


if __name__ == "__main__":
    place = Path(__file__).parents[1] / "decoder" / "transformers_logits.npz"
    np.savez_compressed(place, **{name: logits(name) for name in CONFIGS})
    print(f"{place}: {len(CONFIGS)} decoders by transformers {transformers.__version__}")
