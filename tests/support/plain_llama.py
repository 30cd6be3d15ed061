"""A Llama's forward pass as its papers define it: head by head and token by token, in float64, and slowly.

Written without a look at the package's block; it also knows sinks (GPT-OSS) and ALiBi, where heads are a power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from oracle import probabilities


def logits(config: Any, weights: Any, token_ids: Sequence[int]) -> Any:
    """The logits after each token, `(tokens, vocabulary_size)`.

    A sink is one more key whose value is zero; rotation is multiplication of complex numbers.
    """
    attention = config.attention
    size, groups = attention.head_dim, attention.num_query_heads // attention.num_key_value_heads
    at = np.arange(len(token_ids))

    def rms(x: Any, norm: Any) -> Any:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + config.norm.epsilon) * norm["scale"]

    def turned(x: Any) -> Any:
        if not hasattr(config.positions, "base"):
            return x
        speeds = config.positions.base ** (-np.arange(size // 2) / (size // 2))
        pairs = (x[:, : size // 2] + 1j * x[:, size // 2 :]) * np.exp(1j * at[:, None] * speeds)
        return np.concatenate([pairs.real, pairs.imag], axis=1)

    hidden = weights["embedding"]["tokens"][list(token_ids)].astype(np.float64)
    for layer in weights["layers"]:
        normed, gathered = rms(hidden, layer["attention_norm"]), []
        query, key, value = (normed @ layer[role]["kernel"] for role in ("query", "key", "value"))
        for head in range(attention.num_query_heads):
            own, shared = (slice(n * size, (n + 1) * size) for n in (head, head // groups))
            rows = []
            for place in at:
                scores = turned(key[:, shared])[: place + 1] @ turned(query[:, own])[place] / np.sqrt(size)
                if not hasattr(config.positions, "base"):
                    scores = scores - 2.0 ** (-8 * (head + 1) / attention.num_query_heads) * (place - at[: place + 1])
                if attention.sinks:
                    scores = np.append(scores, layer["sinks"][head])
                likely = probabilities(scores.tolist())
                rows.append(np.array(likely[: place + 1]) @ value[: place + 1, shared])
            gathered.append(np.array(rows))
        hidden = hidden + np.concatenate(gathered, axis=1) @ layer["output"]["kernel"]
        normed = rms(hidden, layer["feedforward_norm"])
        gate = normed @ layer["gate"]["kernel"]
        wide = gate / (1 + np.exp(-gate)) * (normed @ layer["up"]["kernel"])
        hidden = hidden + wide @ layer["down"]["kernel"]
    return rms(hidden, weights["final_norm"]) @ weights["head"]["kernel"]
