"""The parts of a GPT-2 or OPT block that JAX does better when told how, for training; see `kerasgen.models.packed`.

What is cheap is computed again in the backward pass, so that a layer keeps little for it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


@jax.checkpoint  # type: ignore[untyped-decorator]
def gelu(x: Any) -> Any:
    """Return the tanh approximation of GELU, computed in float32; its backward pass keeps `x` alone."""
    return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


@partial(jax.checkpoint, static_argnums=(3,))
def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Return `x`, `(rows, width)`, normalised along its width in float32; its backward pass keeps `x` alone."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    scale = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
    return (centred * scale * gamma + beta).astype(x.dtype)


@partial(jax.checkpoint, static_argnums=(1,))
def dropout(x: Any, rate: float, seed: Any) -> Any:
    """Return `x` with a share of its elements zero and the others scaled up; the backward pass draws them again."""
    least = round(rate * 65536)  # rates are rounded to 1/65536
    drawn = jax.random.bits(seed, ((x.size + 1) // 2,), "uint32")  # two numbers in each
    kept = lax.bitcast_convert_type(drawn, jnp.uint16).reshape(-1)[: x.size].reshape(x.shape) >= least
    return jnp.where(kept, x * jnp.asarray(65536.0 / max(65536 - least, 1), x.dtype), jnp.zeros((), x.dtype))


def attention(qkv: Any, segment_ids: Any, num_heads: int, rate: float, seed: Any) -> Any:
    """Return what each position gathers from the positions of its document up to itself.

    On a GPU the probabilities never stand in memory, and the dropout drops keys instead of them; see `fused`. Elsewhere
    the backward pass keeps `qkv` alone and computes the probabilities again.

    Args:
        qkv: float `(batch * length, 3 * width)`; queries, keys and values side by side.
        segment_ids: int32 `(batch, length)`.
        num_heads: into which the width falls.
        rate: of the dropout on the probabilities; 0 for none.
        seed: of that dropout.

    Returns:
        Float `(batch * length, width)`.
    """
    attend = fused if jax.default_backend() == "gpu" else _attention
    return attend(qkv, segment_ids, num_heads, rate, seed)


def _by_role(qkv: Any, segment_ids: Any, num_heads: int) -> Any:
    """Queries, keys and values, each `(batch, length, heads, size)`."""
    batch, length = segment_ids.shape
    return jnp.moveaxis(qkv.reshape(batch, length, 3, num_heads, qkv.shape[-1] // 3 // num_heads), 2, 0)


@partial(jax.checkpoint, static_argnums=(2, 3))
def _attention(qkv: Any, segment_ids: Any, num_heads: int, rate: float, seed: Any) -> Any:
    batch, length = segment_ids.shape
    query, key, value = _by_role(qkv, segment_ids, num_heads)
    places = jnp.arange(length)
    allowed = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (places[:, None] >= places[None, :])
    allowed = allowed[:, None]
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(allowed, scores * query.shape[-1] ** -0.5, -1e9)
    probabilities = jax.nn.softmax(scores, axis=-1).astype(qkv.dtype)
    if rate:
        probabilities = dropout(probabilities, rate, seed)
    return jnp.einsum("bhqk,bkhd->bqhd", probabilities, value).reshape(batch * length, -1)


def fused(qkv: Any, segment_ids: Any, num_heads: int, rate: float, seed: Any) -> Any:
    """Return what `attention` does, by a kernel that holds no probabilities: cuDNN's, where it is and knows the type.

    Dropping single probabilities needs them all at hand, float32 `(batch, heads, length, length)`: 0.4 GB a layer for 8
    rows of 1,024 in GPT-2's base shape, and JAX's way to cuDNN draws the same numbers in each step. Here a key is
    dropped from the sight of all queries of its row and head, which is dropout of the whole value that belongs to it,
    and is done before the kernel. In the mean over the draws each query gathers the same. Source: the columns of Zehui
    et al. 2019 (DropAttention, arXiv 1907.11065).

    The kernel keeps what its backward pass needs, which is narrow: nothing is computed again.
    """
    from keras import ops

    query, key, value = _by_role(qkv, segment_ids, num_heads)
    if rate:
        value = value * dropout(jnp.ones((*value.shape[:3], 1), value.dtype), rate, seed)
    same = (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]  # one mask for all heads
    # What comes after a query is said apart, so that the kernel leaves it out instead of computing and masking it.
    gathered = ops.dot_product_attention(query, key, value, mask=same, is_causal=True)
    return gathered.reshape(qkv.shape[0], -1)


def affine(x: Any, kernel: Any, bias: Any) -> Any:
    """Return `x @ kernel + bias`, of `(rows, width)`, `(width, columns)` and `(columns,)`; of no bias, `x @ kernel`."""
    return _product(x, kernel) if bias is None else _product(x, kernel) + bias


@jax.custom_vjp  # type: ignore[untyped-decorator]
def _product(x: Any, kernel: Any) -> Any:
    """Return `x @ kernel`, of `(rows, width)` and `(width, columns)`.

    XLA multiplies by a transposed left side at half its speed on a CPU (2048 x 768 by 2048 x 3072: 225 ms, and 115 ms
    when the transposition is made first), and that is what the kernel's gradient asks for.
    """
    return x @ kernel


def _product_forward(x: Any, kernel: Any) -> tuple[Any, tuple[Any, Any]]:
    return x @ kernel, (x, kernel)


def _product_backward(kept: tuple[Any, Any], upstream: Any) -> tuple[Any, Any]:
    x, kernel = kept
    transposed = x.T
    if jax.default_backend() == "cpu" and kernel.shape[1] >= kernel.shape[0]:
        transposed = lax.optimization_barrier(transposed)
    return upstream @ kernel.T, transposed @ upstream


_product.defvjp(_product_forward, _product_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def frozen_product(x: Any, held: Any, restore: Any) -> Any:
    """Return `x @ restore(held, x.dtype)`; the backward pass keeps the codes alone and makes the matrix again.

    Args:
        x: float `(rows, width)`.
        held: codes and what belongs to them; they have no gradient.
        restore: returns the matrix that they stand for, `(width, columns)`.
    """
    return x @ restore(_after(x, held), x.dtype)


def _frozen_forward(x: Any, held: Any, restore: Any) -> tuple[Any, Any]:
    return x @ restore(_after(x, held), x.dtype), held


def _frozen_backward(restore: Any, held: Any, upstream: Any) -> tuple[Any, None]:
    return upstream @ restore(_after(upstream, held), upstream.dtype).T, None


def _after(side: Any, held: Any) -> Any:
    """Return the codes, which are there when the product's other side is.

    What nothing comes before, XLA's scheduler for CPUs does first: the matrices of all layers stood in memory at once
    (11.1 GB for 1.1 billion weights in int4). An optimization barrier is gone before it looks.
    """
    nothing = jnp.minimum(jnp.abs(side[0, 0]), 0)  # 0, which XLA does not know
    return tuple(part + nothing.astype(part.dtype) for part in held)


frozen_product.defvjp(_frozen_forward, _frozen_backward)
