"""Weights of `described` under transformers' names and in its layouts, written by hand and without a table of names."""

import numpy as np
from described import drawn

from kerasgen.decoder.config import DecoderConfig


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


def falcon(layer: dict) -> dict:
    """Of each key-value head its queries, its key and its value, one after another."""
    size = 6
    rows = {role: layer[role]["kernel"].T.reshape(-1, size, 24) for role in ("query", "key", "value")}
    groups, together = len(rows["key"]), []
    for group in range(groups):
        shared = len(rows["query"]) // groups
        together += [*rows["query"][group * shared : (group + 1) * shared], rows["key"][group], rows["value"][group]]
    fused = {"weight": np.concatenate(together)}
    if "bias" in layer["query"]:
        fused["bias"] = fused_by_head(layer, len(rows["query"]))["bias"]
    found = {
        "self_attention.query_key_value": fused,
        "self_attention.dense": transposed(layer["output"]),
        "mlp.dense_h_to_4h": transposed(layer["up"]),
        "mlp.dense_4h_to_h": transposed(layer["down"]),
    }
    if groups == 2:
        return found | {"ln_attn": norm(layer["attention_norm"]), "ln_mlp": norm(layer["feedforward_norm"])}
    found["input_layernorm"] = norm(layer["attention_norm"])
    return found | (
        {"post_attention_layernorm": norm(layer["feedforward_norm"])} if "feedforward_norm" in layer else {}
    )


def phi3(layer: dict) -> dict:
    def joined(*roles: str) -> dict:
        return {"weight": np.concatenate([layer[role]["kernel"].T for role in roles])}

    return {
        "input_layernorm": norm(layer["attention_norm"]),
        "post_attention_layernorm": norm(layer["feedforward_norm"]),
        "self_attn.qkv_proj": joined("query", "key", "value"),
        "self_attn.o_proj": transposed(layer["output"]),
        "mlp.gate_up_proj": joined("gate", "up"),
        "mlp.down_proj": transposed(layer["down"]),
    }


def starcoder2(layer: dict) -> dict:
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "output"}
    return {
        "input_layernorm": norm(layer["attention_norm"]),
        "post_attention_layernorm": norm(layer["feedforward_norm"]),
        **{f"self_attn.{name}": transposed(layer[role]) for name, role in names.items()},
        "mlp.c_fc": transposed(layer["up"]),
        "mlp.c_proj": transposed(layer["down"]),
    }


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
        found |= experts(layer)
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


def experts(layer: dict) -> dict:
    """All of a layer's together, as transformers' modules hold them; with biases they are GPT-OSS's."""
    if "bias" in layer["gate"]:
        kernel, bias = (np.stack([layer[role][leaf] for role in ("gate", "up")], -1) for leaf in ("kernel", "bias"))
        return {
            "self_attn": {"sinks": layer["sinks"]},
            "mlp.router": transposed(layer["router"]),
            "mlp.experts": {
                "gate_up_proj": kernel.reshape(*kernel.shape[:2], -1),
                "gate_up_proj_bias": bias.reshape(len(bias), -1),
                "down_proj": layer["down"]["kernel"],
                "down_proj_bias": layer["down"]["bias"],
            },
        }
    gate_up = np.concatenate([layer[role]["kernel"].transpose(0, 2, 1) for role in ("gate", "up")], 1)
    found = {
        "mlp.gate": transposed(layer["router"]),
        "mlp.experts": {"gate_up_proj": gate_up, "down_proj": layer["down"]["kernel"].transpose(0, 2, 1)},
    }
    if "shared_router" in layer:
        found["mlp.shared_expert_gate"] = transposed(layer["shared_router"])
        found |= {
            f"mlp.shared_expert.{role}_proj": transposed(layer[f"shared_{role}"]) for role in ("gate", "up", "down")
        }
    return found


def expert_by_expert(config: DecoderConfig, tensors: dict) -> dict:
    """The same as transformers 5.24's files have them, each expert by itself, but for GPT-OSS's."""
    if config.feedforward.experts is None or config.architecture == "gpt_oss":
        return tensors
    is_mixtral = config.architecture == "mixtral"
    own = ("w1", "w3", "w2") if is_mixtral else ("gate_proj", "up_proj", "down_proj")
    found = {}
    for name, array in tensors.items():
        home, is_of_experts, last = name.partition(".experts.")
        if is_mixtral:
            home = home.replace(".mlp", ".block_sparse_moe")
        if not is_of_experts:
            found[home] = array
            continue
        roles = own[:2] if last == "gate_up_proj" else own[2:]
        for number, expert in enumerate(array):
            for role, part in zip(roles, np.split(expert, len(roles)), strict=True):
                found[f"{home}.experts.{number}.{role}.weight"] = part
    return found


# For each family: tokens, layers, a layer's names, the last norm, the head.
HOMES = {
    "gpt2": ("transformer.wte", "transformer.h", gpt2, "transformer.ln_f"),
    "opt": ("model.decoder.embed_tokens", "model.decoder.layers", opt, "model.decoder.final_layer_norm"),
    "gpt_neox": ("gpt_neox.embed_in", "gpt_neox.layers", neox, "gpt_neox.final_layer_norm"),
    "bloom": ("transformer.word_embeddings", "transformer.h", bloom, "transformer.ln_f"),
    "falcon": ("transformer.word_embeddings", "transformer.h", falcon, "transformer.ln_f"),
    "phi3": ("model.embed_tokens", "model.layers", phi3, "model.norm"),
    "starcoder2": ("model.embed_tokens", "model.layers", starcoder2, "model.norm"),
    "gptj": ("transformer.wte", "transformer.h", gptj, "transformer.ln_f"),
}


def state(config: DecoderConfig, *, experts_together: bool = False) -> dict[str, np.ndarray]:
    """The weights by the names of transformers' files, or of its modules, where a layer's experts are together."""
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
    found |= {f"{name}.{key}": array for name, part in parts.items() for key, array in part.items()}
    return found if experts_together else expert_by_expert(config, found)
