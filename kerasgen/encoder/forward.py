"""Token ids become hidden states and logits, once for every executor: Keras, TensorFlow's graphs, NumPy.

A bidirectional encoder of post-norm blocks. Documents that share a row are kept apart by their segment ids.

Source: Devlin et al. 2019 (arXiv 1810.04805); Lan et al. 2020 (arXiv 1909.11942) for shared blocks and factorised
embeddings; He et al. 2021 (arXiv 2111.09543) for disentangled relative positions.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from kerasgen.decoder.arithmetic import attention_weights
from kerasgen.encoder.config import EncoderConfig

NEVER = -1e9


class Hooks(Protocol):
    """The operations with weights that an executor supplies.

    Attributes:
        xp: the array namespace: `reshape`, `transpose`, `einsum`, `where`, `cast`, `expand_dims`, `equal` and those of
            `kerasgen.decoder.arithmetic`.
    """

    xp: Any

    def lookup(self, part: str, ids: Any) -> Any:
        """Return the rows of a table, `ids`' shape and the table's width."""
        ...

    def project(self, part: str, x: Any) -> Any:
        """Return a projection with its bias, `(…, out)`."""
        ...

    def norm(self, part: str, x: Any) -> Any:
        """Return a layer norm along the last axis."""
        ...

    def activate(self, x: Any, *, head: bool) -> Any:
        """Return the activation of the feed-forward part, or of the head."""
        ...

    def drop(self, x: Any) -> Any:
        """Return `x` with dropout while training, and `x` unchanged otherwise."""
        ...

    def whole(self, part: str) -> Any:
        """Return a table or a bias as it is."""
        ...


def hidden_states(config: EncoderConfig, hooks: Hooks, token_ids: Any, positions: Any, segment_ids: Any) -> Any:
    """Return the last hidden states, float `(batch, length, hidden_dim)`.

    Args:
        config: the description.
        hooks: how the parts are computed.
        token_ids: int32 `(batch, length)`.
        positions: int32 `(batch, length)`, counted from 0 in each document.
        segment_ids: int32 `(batch, length)`; the documents of a row are numbered from 1, and 0 is padding. A position
            sees those of its own number.
    """
    xp = hooks.xp
    x = hooks.lookup("embedding.tokens", token_ids)
    if not config.relative_buckets:
        x = x + hooks.lookup("embedding.positions", positions)
    if config.num_segments:
        x = x + hooks.whole("embedding.segments")[0]
    x = hooks.drop(hooks.norm("embedding.norm", x))
    if config.projects_embeddings:
        x = hooks.project("embedding.projection", x)
    seen = xp.equal(xp.expand_dims(segment_ids, 2), xp.expand_dims(segment_ids, 1))
    seen = xp.expand_dims(seen, 1)  # (batch, 1, queries, keys)
    distances = None
    if config.relative_buckets:
        distances = xp.expand_dims(positions, 2) - xp.expand_dims(positions, 1)
    for index in config.schedule:
        layer = f"layers.{index}"
        attended = hooks.project(f"{layer}.output", _attended(config, hooks, layer, x, seen, distances))
        x = hooks.norm(f"{layer}.attention_norm", x + hooks.drop(attended))
        inner = hooks.activate(hooks.project(f"{layer}.up", x), head=False)
        x = hooks.norm(f"{layer}.feedforward_norm", x + hooks.drop(hooks.project(f"{layer}.down", inner)))
    return x


def head_states(hooks: Hooks, hidden: Any) -> Any:
    """Return what the table of tokens makes logits of, float `(…, embedding_dim)`."""
    return hooks.norm("head.norm", hooks.activate(hooks.project("head.dense", hidden), head=True))


def _attended(config: EncoderConfig, hooks: Hooks, layer: str, x: Any, seen: Any, distances: Any) -> Any:
    """Return what each position gathers from those that it sees, `(batch, length, hidden_dim)`."""
    xp, heads, size = hooks.xp, config.num_heads, config.head_dim
    batch, length = _shape(xp, x)

    def apart(y: Any) -> Any:
        return xp.reshape(y, (batch, length, heads, size))

    query, key, value = (apart(hooks.project(f"{layer}.{role}", x)) for role in ("query", "key", "value"))
    scores = xp.cast(xp.einsum("bqhd,bkhd->bhqk", query, key), "float32")
    parts = 1
    if distances is not None:
        scores, parts = scores + _relative(config, hooks, layer, query, key, distances), 3
    scores = xp.where(seen, scores / math.sqrt(size * parts), NEVER)
    weights = hooks.drop(xp.cast(attention_weights(xp, scores), x.dtype))
    return xp.reshape(xp.einsum("bhqk,bkhd->bqhd", weights, value), (batch, length, config.hidden_dim))


def _relative(config: EncoderConfig, hooks: Hooks, layer: str, query: Any, key: Any, distances: Any) -> Any:
    """Return the scores of content with positions and of positions with content, float32 `(batch, heads, q, k)`."""
    xp, buckets = hooks.xp, config.relative_buckets
    table = hooks.norm("relative.norm", hooks.whole("relative.table"))
    table = xp.cast(xp.expand_dims(hooks.drop(table), 0), query.dtype)
    shape = (2 * buckets, config.num_heads, config.head_dim)
    position_query, position_key = (
        xp.reshape(hooks.project(f"{layer}.{role}", table), shape) for role in ("query", "key")
    )
    places = buckets_of(xp, distances, buckets, config.max_positions)
    forward = xp.minimum(xp.maximum(places + buckets, 0), 2 * buckets - 1)
    by_query = xp.cast(xp.einsum("bqhd,phd->bhqp", query, position_key), "float32")
    by_key = xp.cast(xp.einsum("bkhd,phd->bhkp", key, position_query), "float32")
    spread = xp.expand_dims(forward, 1)
    # Of a query and a key both take the row of their distance, the second from the key's side.
    first = xp.take_along_axis(by_query, _as_wide(xp, spread, by_query), axis=-1)
    backward = xp.transpose(spread, (0, 1, 3, 2))
    second = xp.take_along_axis(by_key, _as_wide(xp, backward, by_key), axis=-1)
    return first + xp.transpose(second, (0, 1, 3, 2))


def _as_wide(xp: Any, places: Any, scores: Any) -> Any:
    """Return places `(batch, 1, length, length)` for each head of scores."""
    return places + xp.zeros_like(scores[..., :1], dtype="int32")


def buckets_of(xp: Any, distances: Any, buckets: int, max_positions: int) -> Any:
    """Return the bucket of each distance, int32 of the same shape: near ones exact, far ones by their logarithm.

    Source: He et al. 2021, as transformers' `make_log_bucket_position` computes it.
    """
    middle = buckets // 2
    far = xp.cast(xp.maximum(xp.abs(distances), middle), "float32")
    span = math.log((max_positions - 1) / middle)
    logarithmic = xp.ceil(xp.log(far / middle) / span * (middle - 1)) + middle
    sign = xp.where(distances < 0, -1.0, xp.ones_like(far))
    near = xp.abs(distances) <= middle
    return xp.cast(xp.where(near, xp.cast(distances, "float32"), logarithmic * sign), "int32")


def _shape(xp: Any, x: Any) -> tuple[Any, Any]:
    """Return the sizes of the first two axes, those that are only known when a graph runs as that graph says."""
    if None in x.shape[:2]:
        own = xp.shape(x)
        return own[0], own[1]
    return x.shape[0], x.shape[1]
