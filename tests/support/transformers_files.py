"""Random models of GPT-2's and OPT's kind in transformers' format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny import GPT2_END, OPT_END, OPT_PAD, tiny_vocabulary

Weights = dict[str, np.ndarray]

LAYERS, HEADS, HIDDEN, INNER, POSITIONS, VOCABULARY = 3, 4, 32, 128, 24, 300


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> Weights:
    """Large enough that attention and nonlinearities matter, norms near one."""
    rng = np.random.default_rng(seed)
    weights = {name: 0.3 * rng.standard_normal(shape).astype("float32") for name, shape in shapes.items()}
    for name in weights:
        if name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
            weights[name] += 1.0
    return weights


def opt_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (VOCABULARY, HIDDEN),
        "embed_positions.weight": (POSITIONS + 2, HIDDEN),
        "final_layer_norm.weight": (HIDDEN,),
        "final_layer_norm.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        at = f"layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{at}self_attn.{name}.weight": (HIDDEN, HIDDEN), f"{at}self_attn.{name}.bias": (HIDDEN,)}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{at}{name}.weight": (HIDDEN,), f"{at}{name}.bias": (HIDDEN,)}
        shapes |= {f"{at}fc1.weight": (INNER, HIDDEN), f"{at}fc1.bias": (INNER,)}
        shapes |= {f"{at}fc2.weight": (HIDDEN, INNER), f"{at}fc2.bias": (HIDDEN,)}
    return shapes


def gpt2_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (VOCABULARY, HIDDEN),
        "wpe.weight": (POSITIONS, HIDDEN),
        "ln_f.weight": (HIDDEN,),
        "ln_f.bias": (HIDDEN,),
    }
    for layer in range(LAYERS):
        at = f"h.{layer}."
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{at}{name}.weight": (HIDDEN,), f"{at}{name}.bias": (HIDDEN,)}
        shapes |= {f"{at}attn.c_attn.weight": (HIDDEN, 3 * HIDDEN), f"{at}attn.c_attn.bias": (3 * HIDDEN,)}
        shapes |= {f"{at}attn.c_proj.weight": (HIDDEN, HIDDEN), f"{at}attn.c_proj.bias": (HIDDEN,)}
        shapes |= {f"{at}mlp.c_fc.weight": (HIDDEN, INNER), f"{at}mlp.c_fc.bias": (INNER,)}
        shapes |= {f"{at}mlp.c_proj.weight": (INNER, HIDDEN), f"{at}mlp.c_proj.bias": (HIDDEN,)}
    return shapes


OPT_CONFIG: dict[str, Any] = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "word_embed_proj_dim": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "ffn_dim": INNER,
    "max_position_embeddings": POSITIONS,
    "do_layer_norm_before": True,
    "activation_function": "relu",
    "dropout": 0.1,
}
GPT2_CONFIG: dict[str, Any] = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_inner": None,
    "n_positions": POSITIONS,
    "resid_pdrop": 0.1,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}


def write_model(directory: Path, config: dict[str, Any], weights: Weights, *, prefix: str = "") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({prefix + name: weight for name, weight in weights.items()}, directory / "model.safetensors")
    special = ("<s>", OPT_PAD, OPT_END) if config["model_type"] == "opt" else ()
    last = () if config["model_type"] == "opt" else (GPT2_END,)
    vocabulary, merges = tiny_vocabulary(VOCABULARY, first=special, last=last)
    (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory
