"""A decoder family's arithmetic in NumPy: an independent reader of what an exporter wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kerasgen.models.families.base import DecoderLayer, DecoderShape, DecoderWeights

Floats = npt.NDArray[np.float32]


class NumpyDecoder:
    """Reads one text token by token or many at a time, and keeps keys and values.

    Args:
        weights: NumPy arrays.
        shape: of the decoder.
    """

    def __init__(self, weights: DecoderWeights, shape: DecoderShape) -> None:
        self._weights, self._shape = weights, shape
        self._past: list[tuple[Floats, Floats]] = []
        self._length = 0

    def read(self, token_ids: Sequence[int]) -> Floats:
        """Return the logits after each of these further tokens, `(tokens, vocabulary_size)`."""
        weights, shape = self._weights, self._shape
        places = slice(self._length, self._length + len(token_ids))
        hidden = weights.token_embedding[list(token_ids)] + weights.position_embedding[places]
        for index, layer in enumerate(weights.layers):
            hidden = self._block(layer, index, hidden)
        self._length += len(token_ids)
        hidden = _norm(hidden, weights.final_gamma, weights.final_beta, shape.layer_norm_epsilon)
        found: Floats = hidden @ weights.token_embedding.T
        return found

    def _block(self, layer: DecoderLayer, index: int, hidden: Any) -> Any:
        shape = self._shape
        normed = _norm(hidden, layer.attention_gamma, layer.attention_beta, shape.layer_norm_epsilon)
        together = normed @ layer.qkv_kernel + layer.qkv_bias
        queries, keys, values = (
            part.reshape(len(part), shape.num_heads, shape.head_dim).transpose(1, 0, 2)
            for part in np.split(together, 3, axis=-1)
        )
        if index < len(self._past):
            keys = np.concatenate([self._past[index][0], keys], axis=1)
            values = np.concatenate([self._past[index][1], values], axis=1)
            self._past[index] = (keys, values)
        else:
            self._past.append((keys, values))
        scores = queries @ keys.transpose(0, 2, 1) / np.float32(math.sqrt(shape.head_dim))
        seen = np.arange(keys.shape[1])[None] <= self._length + np.arange(queries.shape[1])[:, None]
        scores = np.where(seen, scores, np.float32(-1e9))
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        gathered = (odds / odds.sum(-1, keepdims=True)) @ values
        hidden = hidden + gathered.transpose(1, 0, 2).reshape(hidden.shape) @ layer.output_kernel + layer.output_bias
        normed = _norm(hidden, layer.feedforward_gamma, layer.feedforward_beta, shape.layer_norm_epsilon)
        wide = _activate(normed @ layer.up_kernel + layer.up_bias, shape.activation)
        return hidden + wide @ layer.down_kernel + layer.down_bias


def greedy(
    weights: DecoderWeights, shape: DecoderShape, token_ids: Sequence[int], *, new_tokens: int, end: int
) -> list[int]:
    """Return the most likely tokens after these, up to the end token, which is among them."""
    decoder = NumpyDecoder(weights, shape)
    logits = decoder.read(token_ids)[-1]
    found: list[int] = []
    while True:
        found.append(int(logits.argmax()))
        if found[-1] == end or len(found) == new_tokens:
            return found
        logits = decoder.read(found[-1:])[-1]


def _norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(epsilon)) * gamma + beta


def _activate(x: Any, activation: str) -> Any:
    if activation == "relu":
        return np.maximum(x, 0)
    return np.float32(0.5) * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
