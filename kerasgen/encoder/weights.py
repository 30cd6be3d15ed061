"""Names and shapes of an encoder's weights. Imports the standard library only."""

from __future__ import annotations

from collections.abc import Iterator

from kerasgen.encoder.config import EncoderConfig

TABLES = ("embedding.tokens", "embedding.positions", "embedding.segments", "relative.table")
ATTENTION = ("query", "key", "value", "output")
PROJECTIONS = (*ATTENTION, "up", "down")
NORMS = ("attention_norm", "feedforward_norm")


def parts(config: EncoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each part's full name, and its shape: of a table, of a kernel `(in, out)`, or of a norm `(size,)`.

    The head's bias is a part of its own, `head.bias`.
    """
    width, inner = config.hidden_dim, config.intermediate_dim
    yield "embedding.tokens", (config.vocabulary_size, config.embedding_dim)
    if config.relative_buckets:
        yield "relative.table", (2 * config.relative_buckets, width)
        yield "relative.norm", (width,)
    else:
        yield "embedding.positions", (config.max_positions, config.embedding_dim)
    if config.num_segments:
        yield "embedding.segments", (config.num_segments, config.embedding_dim)
    yield "embedding.norm", (config.embedding_dim,)
    if config.projects_embeddings:
        yield "embedding.projection", (config.embedding_dim, width)
    for index in range(config.stored_layers):
        for role in ATTENTION:
            yield f"layers.{index}.{role}", (width, width)
        yield f"layers.{index}.attention_norm", (width,)
        yield f"layers.{index}.up", (width, inner)
        yield f"layers.{index}.down", (inner, width)
        yield f"layers.{index}.feedforward_norm", (width,)
    yield "head.dense", (width, config.embedding_dim)
    yield "head.norm", (config.embedding_dim,)
    yield "head.bias", (config.vocabulary_size,)


def is_norm(part: str) -> bool:
    """Return whether a part is a norm, with a scale and a bias."""
    return part.endswith("norm")


def shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight by its full name."""
    named: dict[str, tuple[int, ...]] = {}
    for part, shape in parts(config):
        if part in TABLES or part == "head.bias":
            named[part] = shape
        elif is_norm(part):
            named |= {f"{part}.scale": shape, f"{part}.bias": shape}
        else:
            named |= {f"{part}.kernel": shape, f"{part}.bias": (shape[1],)}
    return named
