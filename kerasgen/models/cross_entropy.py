"""Hidden states become a loss: cross-entropy in chunks of tokens, so that the logits of a batch never stand in memory.

What a plain loss holds, `(batch, sequence_length, vocabulary_size)` floats of logits and as many of their gradient,
is the largest thing in the training of a small model. Here a chunk's gradient is taken while its logits are at hand, in
the forward pass, and only `(tokens, hidden_dim)` and `(vocabulary_size, hidden_dim)` are kept for the backward pass.

Imports Keras: import it late.

Source: Wijmans et al. 2024 (arXiv 2411.09009) show what the logits cost; the gradient in the forward pass is Hsu et
al. 2024's (Liger Kernel, arXiv 2410.10989).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from kerasgen.decoder import arithmetic

# Logits of one chunk. Below 256 rows the matrix products slow down; above 16 million floats nothing is won on a CPU. On
# an accelerator each chunk reads and writes the table's gradient, 154 MB of GPT-2's, for as long as 256 rows' products.
CHUNK_LOGITS = 1 << 24
LEAST_CHUNK, LARGEST_CHUNK = 256, 1024
_ROWS = 64
ACCELERATOR_CHUNK_LOGITS = 1 << 27
ACCELERATOR_LARGEST_CHUNK = 8192


class WeightedLoss(NamedTuple):
    """Loss and weight of a batch, both float32 scalars.

    Args:
        loss: the sum over the targets of weight times -log p, in nats.
        accuracy: the sum over the targets of weight times whether the target was the likeliest token; of several
            whose computed logits are equal, the first counts. Two equal rows of a table may get logits that differ in
            their last bit: a processor may sum the products of one in another order than those of the other.
    """

    loss: Any
    accuracy: Any


class RoutedLoss(NamedTuple):
    """Losses of a batch under a mixture of experts, each a float32 scalar.

    Args:
        loss: as in `WeightedLoss`.
        accuracy: as in `WeightedLoss`.
        router_loss: what unbalanced routers cost, which training adds to the loss.
    """

    loss: Any
    accuracy: Any
    router_loss: Any


def chunk_size(tokens: int, vocabulary_size: int, *, accelerator: bool = False) -> int:
    """Return how many tokens make a chunk: a power of two from 256, or all of them where there are fewer.

    Args:
        tokens: of the batch.
        vocabulary_size: logits of each.
        accelerator: whether a GPU or a TPU computes, on which a chunk is at most 8192 tokens instead of 1024, and
            its logits take up to 0.5 GB.
    """
    fitting = ACCELERATOR_LARGEST_CHUNK if accelerator else LARGEST_CHUNK
    most = ACCELERATOR_CHUNK_LOGITS if accelerator else CHUNK_LOGITS
    while fitting > LEAST_CHUNK and fitting * vocabulary_size > most:
        fitting //= 2
    return min(fitting, tokens)


def weighted_loss(
    hidden: Any,
    table: Any,
    targets: Any,
    weights: Any,
    *,
    table_gradient: bool = True,
    soft_cap: float | None = None,
) -> WeightedLoss:
    """Return the weighted loss of a batch; it can be differentiated by `hidden` and `table`, once.

    Targets of weight zero are put last, and chunks that hold nothing else are not computed.

    Args:
        hidden: float `(batch, sequence_length, hidden_dim)`.
        table: float `(vocabulary_size, hidden_dim)`; the logits are `hidden @ table.T`, in the type of `hidden`.
        targets: int32 `(batch, sequence_length)`.
        weights: float32 `(batch, sequence_length)`, at least 0.
        table_gradient: whether the table is trained; a frozen one saves a third of the work.
        soft_cap: the logits are `soft_cap * tanh(products / soft_cap)`; None for the products.
    """
    width = hidden.shape[-1]
    hidden = ops.reshape(hidden, (-1, width))
    targets = ops.reshape(targets, (-1,))
    weights = ops.cast(ops.reshape(weights, (-1,)), "float32")
    backend = keras.config.backend()
    if backend == "jax":
        from kerasgen.models import cross_entropy_jax

        return WeightedLoss(
            *cross_entropy_jax.distributed_loss(
                hidden,
                table,
                targets,
                weights,
                lambda tokens: chunk_size(tokens, table.shape[0], accelerator=cross_entropy_jax.on_accelerator()),
                table_gradient,
                soft_cap,
            )
        )
    if backend == "tensorflow":
        from kerasgen.models import cross_entropy_tensorflow

        chunk = chunk_size(LARGEST_CHUNK, table.shape[0])
        return WeightedLoss(
            *cross_entropy_tensorflow.weighted_loss(hidden, table, targets, weights, chunk, table_gradient, soft_cap)
        )
    logits = ops.matmul(hidden, ops.transpose(ops.cast(table, hidden.dtype)))
    return plain_weighted_loss(_capped(logits, soft_cap), targets, weights)


def target_nats(
    hidden: Any,
    table: Any,
    targets: Any,
    weights: Any,
    *,
    table_gradient: bool = True,
    soft_cap: float | None = None,
) -> Any:
    """Return -log p of each target, float32 and shaped as `targets`; it can be differentiated by `hidden` and `table`.

    For losses that are no sum over targets. The logits are computed in the type of `hidden`, a chunk at a time, and
    again for the gradient.

    Args:
        hidden: as for `weighted_loss`, as are the others.
        table: as above.
        targets: as above.
        weights: only say which targets count: where one is 0, so is the result.
        table_gradient: as above.
        soft_cap: as above.
    """
    shape = ops.shape(targets)
    hidden = ops.reshape(hidden, (-1, hidden.shape[-1]))
    targets = ops.reshape(targets, (-1,))
    weights = ops.cast(ops.reshape(weights, (-1,)), "float32")
    backend = keras.config.backend()
    if backend == "jax":
        from kerasgen.models import cross_entropy_jax

        found = cross_entropy_jax.distributed_nats(
            hidden,
            table,
            targets,
            weights,
            lambda tokens: chunk_size(tokens, table.shape[0], accelerator=cross_entropy_jax.on_accelerator()),
            table_gradient,
            soft_cap,
        )
    elif backend == "tensorflow":
        from kerasgen.models import cross_entropy_tensorflow

        chunk = chunk_size(LARGEST_CHUNK, table.shape[0])
        found = cross_entropy_tensorflow.nats(hidden, table, targets, weights, chunk, table_gradient, soft_cap)
    else:
        logits = ops.matmul(hidden, ops.transpose(ops.cast(table, hidden.dtype)))
        found = ops.where(weights != 0, nll(_capped(logits, soft_cap), targets), 0.0)
    return ops.reshape(found, shape)


def drawn_tokens(hidden: Any, table: Any, uniform: Any, *, soft_cap: float | None = None) -> Any:
    """Return a token drawn from each position's distribution, int32 and shaped as `uniform`.

    Args:
        hidden: float `(batch, sequence_length, hidden_dim)`.
        table: float `(vocabulary_size, hidden_dim)`.
        uniform: float32 `(batch, sequence_length)`, from 0 up to 1: where each draw falls in the cumulated
            probabilities, from the first token on.
        soft_cap: as for `weighted_loss`.
    """
    kernel = ops.transpose(ops.cast(table, hidden.dtype))

    def of_chunk(inputs: tuple[Any, Any]) -> Any:
        rows, places = inputs
        return drawn(_capped(ops.matmul(rows, kernel), soft_cap), places)

    return _by_chunk(of_chunk, hidden, uniform, table.shape[0])


def drawn(logits: Any, uniform: Any) -> Any:
    """Return a token drawn from each distribution, int32 `(…,)`, from logits `(…, vocabulary_size)`; see above."""
    cumulated = ops.cumsum(ops.softmax(ops.cast(logits, "float32"), axis=-1), axis=-1)
    # Scaled by its own end, which rounding moves away from 1.
    places = ops.expand_dims(uniform, -1) * cumulated[..., -1:]
    before = ops.sum(ops.cast(cumulated <= places, "int32"), axis=-1)
    return ops.minimum(before, logits.shape[-1] - 1)


def plain_weighted_loss(logits: Any, targets: Any, weights: Any) -> WeightedLoss:
    """Return the weighted loss from logits that are held as a whole.

    Args:
        logits: float `(…, vocabulary_size)`.
        targets: int32 `(…,)`.
        weights: float32 `(…,)`.
    """
    logits = ops.cast(logits, "float32")
    chosen = ops.squeeze(ops.take_along_axis(logits, ops.expand_dims(targets, -1), axis=-1), axis=-1)
    correct = ops.cast(ops.cast(ops.argmax(logits, axis=-1), targets.dtype) == targets, "float32")
    loss = ops.sum(weights * (ops.logsumexp(logits, axis=-1) - chosen))
    return WeightedLoss(loss, ops.stop_gradient(ops.sum(weights * correct)))


def _capped(logits: Any, cap: float | None) -> Any:
    return arithmetic.soft_cap(ops, ops.cast(logits, "float32"), cap) if cap is not None else logits


def token_nll(hidden: Any, table: Any, targets: Any, *, soft_cap: float | None = None) -> Any:
    """Return -log p of each target, float32 and shaped as `targets`; made for scoring, not for gradients.

    The logits are float32 whatever the type of `hidden`: rounded to bfloat16, a token's nats were off by up to 0.25.

    Args:
        hidden: float `(batch, sequence_length, hidden_dim)`.
        table: float `(vocabulary_size, hidden_dim)`.
        targets: int32 `(batch, sequence_length)`.
        soft_cap: as for `weighted_loss`.
    """
    if keras.config.backend() == "tensorflow":
        from kerasgen.models import cross_entropy_tensorflow

        return _by_chunk(cross_entropy_tensorflow.costs_under(table, soft_cap), hidden, targets, table.shape[0])
    kernel = ops.transpose(ops.cast(table, "float32"))

    def of_chunk(inputs: tuple[Any, Any]) -> Any:
        rows, wanted = inputs
        return nll(_capped(ops.matmul(ops.cast(rows, "float32"), kernel), soft_cap), wanted)

    return _by_chunk(of_chunk, hidden, targets, table.shape[0])


def _by_chunk(of_chunk: Callable[[tuple[Any, Any]], Any], hidden: Any, of_each: Any, vocabulary_size: int) -> Any:
    """Return a function of hidden states and of one number beside each, computed a chunk of tokens at a time."""
    width, tokens = hidden.shape[-1], hidden.shape[0] and hidden.shape[0] * hidden.shape[1]
    chunk = chunk_size(LARGEST_CHUNK if tokens is None else tokens, vocabulary_size)
    if tokens is not None and tokens > chunk:  # as many chunks, and little padding in the last one
        chunk = -(-tokens // (-(-tokens // chunk) * _ROWS)) * _ROWS
    flat, beside = ops.reshape(hidden, (-1, width)), ops.reshape(of_each, (-1,))
    short = -ops.shape(flat)[0] % chunk
    flat = ops.reshape(ops.pad(flat, ((0, short), (0, 0))), (-1, chunk, width))
    beside = ops.reshape(ops.pad(beside, ((0, short),)), (-1, chunk))
    found = ops.reshape(ops.map(of_chunk, (flat, beside)), (-1,))
    return ops.reshape(found[: ops.shape(found)[0] - short], ops.shape(of_each))


def nll(logits: Any, targets: Any) -> Any:
    """Return -log p of each target, float32 `(…,)`, from logits `(…, vocabulary_size)` of any float type.

    The reduction is in float32, and the target's logit is gathered: Keras's own loss builds a one-hot of the
    vocabulary on JAX.
    """
    logits = ops.cast(logits, "float32")
    chosen = ops.squeeze(ops.take_along_axis(logits, ops.expand_dims(targets, -1), axis=-1), axis=-1)
    return ops.logsumexp(logits, axis=-1) - chosen
