"""A decoder family's arithmetic in NumPy: an independent reader of what an exporter wrote."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kerasgen.models.families.base import DecoderLayer, DecoderShape, DecoderWeights, map_weights
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.ending import EndingTokenizer

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

    def copy(self) -> NumpyDecoder:
        """Return a reader that stands at the same place; what was read is shared, for it is never changed."""
        found = NumpyDecoder(self._weights, self._shape)
        found._past, found._length = list(self._past), self._length
        return found

    def activate(self, hidden: Floats) -> Floats:
        """Return what stands between the kernels of the feed-forward part."""
        found: Floats = _activate(hidden, self._shape.activation)
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
        wide = self.activate(normed @ layer.up_kernel + layer.up_bias)
        return hidden + wide @ layer.down_kernel + layer.down_bias


def rounded(weights: DecoderWeights, dtype: str, *, least_rank: int = 0) -> DecoderWeights:
    """Return the weights as a file of another float type gives them back, float32 again.

    Args:
        weights: NumPy arrays.
        dtype: of the file.
        least_rank: arrays of fewer dimensions are kept as they are.
    """

    def through(array: Any) -> Any:
        return array if array.ndim < least_rank else array.astype(dtype).astype(np.float32)

    return map_weights(through, weights)


class NumpyEngine:
    """Decodes by this arithmetic wherever an engine is taken; see `kerasgen.generation.engine.Engine`.

    Args:
        weights: NumPy arrays.
        shape: of the decoder.
        tokenizer: whose ids the model reads.
    """

    name = "numpy"

    def __init__(self, weights: DecoderWeights, shape: DecoderShape, tokenizer: Tokenizer) -> None:
        self.weights, self.shape, self.tokenizer = weights, shape, tokenizer
        self.max_sequence_length = shape.max_sequence_length

    def ending_at(self, end_token_id: int) -> NumpyEngine:
        """Return an engine of the same weights whose texts end at another token."""
        tokenizer = cast(Tokenizer, EndingTokenizer(self.tokenizer, end_token_id))
        return NumpyEngine(self.weights, self.shape, tokenizer)

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> NumpySession:
        """Return a session whose rows are these texts."""
        return NumpySession(self, prompts)


class NumpySession:
    """One batch of texts, each read by a decoder of its own; see `kerasgen.generation.engine.Session`."""

    def __init__(self, engine: NumpyEngine, prompts: Sequence[Sequence[int]]) -> None:
        self._size = engine.tokenizer.vocabulary_size
        self._texts = [NumpyDecoder(engine.weights, engine.shape) for _ in prompts]
        read = [text.read(prompt)[-1] for text, prompt in zip(self._texts, prompts, strict=True)]
        self._logits = np.stack(read)[:, : self._size]

    def logits(self) -> Floats:
        """Return the logits of each row's next token."""
        return self._logits

    def append(self, token_ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add one token to each row."""
        read = [text.read([int(token)])[-1] for text, token in zip(self._texts, token_ids, strict=True)]
        self._logits = np.stack(read)[:, : self._size]

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Go on with these rows, in this order."""
        self._texts = [self._texts[row].copy() for row in rows]
        self._logits = self._logits[rows]


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
