"""A decoder computed by NumPy: the reference for what exporters write, without Keras or a backend.

Hidden states are rows, `(tokens, features)`; one text at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from kerasgen.decoder import positions
from kerasgen.decoder.arithmetic import activate, attention_weights, gated, normalize, routing_weights, seen, soft_cap
from kerasgen.decoder.block import ROUTER, Roles, block, shared_expert
from kerasgen.decoder.config import AlibiPositions, DecoderConfig, LearnedPositions, RotaryPositions
from kerasgen.decoder.weights import Weights, map_arrays
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.end_token import EndingTokenizer

Floats = npt.NDArray[np.float32]
_ERF = np.vectorize(math.erf, otypes=[np.float32])


class _Namespace:
    """NumPy with the names that `kerasgen.decoder.arithmetic` takes beside NumPy's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def rsqrt(x: Any) -> Any:
        return 1 / np.sqrt(x)

    @staticmethod
    def relu(x: Any) -> Any:
        return np.maximum(x, 0)

    @staticmethod
    def silu(x: Any) -> Any:
        return x / (1 + np.exp(-x))

    @staticmethod
    def top_k(x: Any, k: int) -> tuple[Any, Any]:
        places = np.argsort(-x, axis=-1, kind="stable")[..., :k]
        return np.take_along_axis(x, places, axis=-1), places

    @staticmethod
    def gelu(x: Any, approximate: bool) -> Any:
        if not approximate:
            return np.float32(0.5) * x * (1 + _ERF(x * np.float32(math.sqrt(0.5))))
        cubic = x + np.float32(0.044715) * x * x * x
        return np.float32(0.5) * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * cubic))


XP = _Namespace()


class NumpyDecoder:
    """Reads one text token by token or many at a time, and keeps keys and values; the hooks of its own block.

    Args:
        config: the decoder's.
        weights: float32 NumPy arrays.
    """

    def __init__(self, config: DecoderConfig, weights: Weights) -> None:
        self._config, self._weights = config, weights
        self._past: list[tuple[Floats, Floats]] = []
        self._length = 0

    def read(self, token_ids: Sequence[int]) -> Floats:
        """Return the logits after each of these further tokens, `(tokens, vocabulary_size)`."""
        config, weights = self._config, self._weights
        hidden = self._embed(token_ids)
        for index, layer in enumerate(weights["layers"]):
            hidden = block(config, index, layer, hidden, self)
        self._length += len(token_ids)
        if config.final_norm:
            hidden = self.norm(hidden, weights["final_norm"])
        logits = hidden @ (weights["embedding"]["tokens"].T if config.tied_head else weights["head"]["kernel"])
        if config.head_bias:
            logits = logits + weights["head"]["bias"]
        if config.logit_scale != 1.0:
            logits = logits * np.float32(config.logit_scale)
        capped: Floats = soft_cap(XP, logits, config.logit_soft_cap)
        return capped

    def copy(self) -> NumpyDecoder:
        """Return a reader that stands at the same place; what was read is shared, for it is never changed."""
        copy = type(self)(self._config, self._weights)
        copy._past, copy._length = list(self._past), self._length
        return copy

    def _embed(self, token_ids: Sequence[int]) -> Any:
        config, tables = self._config, self._weights["embedding"]
        hidden = tables["tokens"][list(token_ids)]
        if config.embedding_scale != 1.0:
            hidden = hidden * np.float32(config.embedding_scale)
        if isinstance(config.positions, LearnedPositions):
            hidden = hidden + tables["positions"][self._length : self._length + len(token_ids)]
        if config.embedding_norm is not None:
            hidden = normalize(XP, hidden, config.embedding_norm, tables["norm"])
        return hidden

    def norm(self, hidden: Any, weights: Any) -> Any:
        """Return hidden states normalized."""
        return normalize(XP, hidden, self._config.norm, weights)

    def project(self, hidden: Any, layer: Mapping[str, Any], roles: Roles) -> Any:
        """Return the projection of one role, or a tuple of several."""
        projected = tuple(_affine(hidden, layer[role]) for role in roles)
        return projected[0] if len(roles) == 1 else projected

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        """Return what each token gathers from those before it and itself."""
        attention = self._config.attention
        query, key, value = self._by_heads(layer, projected)
        at = self._length + np.arange(query.shape[1])
        kind = self._config.positions_of(index)
        if isinstance(kind, RotaryPositions):
            of = positions.frequencies(kind, attention.head_dim, self._length + len(at))
            turn = positions.angles(XP, at.astype(np.float32), of)
            query, key = (positions.rotate(XP, x, *turn, kind) for x in (query, key))
        if index < len(self._past):
            key, value = (np.concatenate(pair, axis=1) for pair in zip(self._past[index], (key, value), strict=True))
            self._past[index] = (key, value)
        else:
            self._past.append((key, value))
        groups = attention.num_query_heads // attention.num_key_value_heads
        places = np.arange(key.shape[1])
        scores = query @ np.repeat(key, groups, axis=0).transpose(0, 2, 1) * np.float32(attention.score_scale)
        scores = soft_cap(XP, scores, attention.soft_cap)
        if isinstance(kind, AlibiPositions):
            slopes = positions.alibi_slopes(attention.num_query_heads) * np.float32(kind.scale)
            scores = scores + slopes[:, None, None] * (places[None, None] - at[None, :, None]).astype(np.float32)
        scores = np.where(seen(at[:, None], places, self._config.window(index)), scores, np.float32(-1e9))
        sinks = layer["sinks"][:, None, None] if attention.sinks else None
        gathered = attention_weights(XP, scores, sinks) @ np.repeat(value, groups, axis=0)
        return gathered.transpose(1, 0, 2).reshape(query.shape[1], -1)

    def _by_heads(self, layer: Mapping[str, Any], projected: Any) -> list[Any]:
        """Queries, keys and values, `(heads, tokens, head_dim)`, the first two normed where the description says so."""
        attention = self._config.attention
        norm, is_whole = attention.query_key_norm, attention.query_key_norm_axis == "all_heads"
        by_role = []
        for role, x in zip(("query", "key", "value"), projected, strict=True):
            normed = norm is not None and role != "value"
            if normed and is_whole:
                x = normalize(XP, x, cast(Any, norm), layer[f"{role}_norm"])
            x = x.reshape(len(x), -1, attention.head_dim)
            if normed and not is_whole:
                x = normalize(XP, x, cast(Any, norm), layer[f"{role}_norm"])
            by_role.append(x.transpose(1, 0, 2))
        return by_role

    def activate(self, projected: Any) -> Any:
        """Return what stands before the last kernel of the feed-forward part."""
        part = self._config.feedforward
        if not part.gated:
            return activate(XP, projected, part.activation)
        gate, up = projected
        return gated(XP, gate, up, part)

    def experts(self, hidden: Any, layer: Mapping[str, Any]) -> Any:
        """Return the sum of what each token's likeliest experts make of it, by their weights."""
        part = self._config.feedforward
        settings = part.experts
        assert settings is not None
        weights, _, _ = routing_weights(XP, self.project(hidden, layer, ROUTER), settings)
        roles = ("gate", "up") if part.gated else ("up",)
        total = np.zeros_like(hidden)
        for number in range(settings.num_experts):
            own = {role: {name: array[number] for name, array in layer[role].items()} for role in (*roles, "down")}
            made = self.project(self.activate(self.project(hidden, own, roles)), own, ("down",))
            total = total + weights[:, number, None] * made
        if settings.shared_dim:
            share = 1 / (1 + np.exp(-self.project(hidden, layer, ("shared_router",))))
            total = total + share * shared_expert(self._config, layer, hidden, self)
        return total

    def drop(self, hidden: Any, site: str) -> Any:
        """Return the hidden states as they are."""
        return hidden


class _Together(NumpyDecoder):
    """Reads one more token of each of several texts, so that all the weights are gone through once for all of them.

    Args:
        texts: readers of the same weights, one a row; they stand one token further after each reading.
    """

    def __init__(self, texts: Sequence[NumpyDecoder]) -> None:
        super().__init__(texts[0]._config, texts[0]._weights)
        self._texts = texts

    def read(self, token_ids: Sequence[int]) -> Floats:
        """Return the logits after one further token of each text, `(texts, vocabulary_size)`."""
        logits = super().read(token_ids)
        for text in self._texts:
            text._length += 1
        return logits

    def _embed(self, token_ids: Sequence[int]) -> Any:
        return np.concatenate([text._embed([token]) for text, token in zip(self._texts, token_ids, strict=True)])

    def attend(self, index: int, layer: Mapping[str, Any], projected: Any) -> Any:
        """Return what each text's token gathers from its own text."""
        rows = ([x[row : row + 1] for x in projected] for row in range(len(self._texts)))
        return np.concatenate([text.attend(index, layer, row) for text, row in zip(self._texts, rows, strict=True)])


def rounded(weights: Weights, dtype: str, *, least_rank: int = 0) -> Weights:
    """Return the weights as a file of another float type gives them back, float32 again.

    Args:
        weights: NumPy arrays.
        dtype: of the file.
        least_rank: arrays of fewer dimensions are kept as they are.
    """

    def through(array: Any) -> Any:
        return array if array.ndim < least_rank else array.astype(dtype).astype(np.float32)

    return map_arrays(through, weights)


def reader(
    config: DecoderConfig, weights: Weights, vocabulary_size: int
) -> Callable[[Sequence[int]], npt.NDArray[np.floating[Any]]]:
    """Return what reads a text at once: ids to logits after each, `(tokens, vocabulary_size)`."""
    return lambda token_ids: NumpyDecoder(config, weights).read(token_ids)[:, :vocabulary_size]


class NumpyEngine:
    """Decodes by this arithmetic wherever an engine is taken; see `kerasgen.generation.engine.Engine`.

    Args:
        config: the decoder's.
        weights: float32 NumPy arrays.
        tokenizer: whose ids the model reads.
    """

    name = "numpy"

    def __init__(self, config: DecoderConfig, weights: Weights, tokenizer: Tokenizer) -> None:
        self.config, self.weights, self.tokenizer = config, weights, tokenizer
        self.max_sequence_length = config.max_sequence_length

    def ending_at(self, end_token_id: int) -> NumpyEngine:
        """Return an engine of the same weights whose texts end at another token."""
        tokenizer = cast(Tokenizer, EndingTokenizer(self.tokenizer, end_token_id))
        return NumpyEngine(self.config, self.weights, tokenizer)

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> NumpySession:
        """Return a session whose rows are these texts."""
        return NumpySession(self, prompts)


class NumpySession:
    """One batch of texts, each read by a decoder of its own; see `kerasgen.generation.engine.Session`."""

    def __init__(self, engine: NumpyEngine, prompts: Sequence[Sequence[int]]) -> None:
        self._size = engine.tokenizer.vocabulary_size
        self._texts = [NumpyDecoder(engine.config, engine.weights) for _ in prompts]
        read = [text.read(prompt)[-1] for text, prompt in zip(self._texts, prompts, strict=True)]
        self._logits = np.stack(read)[:, : self._size]

    def logits(self) -> Floats:
        """Return the logits of each row's next token."""
        return self._logits

    def append(self, token_ids: npt.NDArray[np.integer[Any]]) -> None:
        """Add one token to each row."""
        self._logits = _Together(self._texts).read([int(token) for token in token_ids])[:, : self._size]

    def select(self, rows: npt.NDArray[np.integer[Any]]) -> None:
        """Go on with these rows, in this order."""
        self._texts = [self._texts[row].copy() for row in rows]
        self._logits = self._logits[rows]


def greedy(
    config: DecoderConfig, weights: Weights, token_ids: Sequence[int], *, new_tokens: int, end: int
) -> list[int]:
    """Return the most likely tokens after these, up to the end token, which is among them."""
    decoder = NumpyDecoder(config, weights)
    logits = decoder.read(token_ids)[-1]
    ids: list[int] = []
    while True:
        ids.append(int(logits.argmax()))
        if ids[-1] == end or len(ids) == new_tokens:
            return ids
        logits = decoder.read(ids[-1:])[-1]


def _affine(x: Any, weights: Mapping[str, Any]) -> Any:
    product = x @ weights["kernel"]
    return product + weights["bias"] if "bias" in weights else product
