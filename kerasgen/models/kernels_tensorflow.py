"""The parts of a GPT-2 or OPT block that TensorFlow's own kernels do slowly; see `kerasgen.models.packed`.

Matrix products stay TensorFlow's (oneDNN's where the processor has AVX2), and what lies between them is compiled by XLA
into one loop each. Gradients are written out: they recompute what is cheap, so that a layer keeps little for its
backward pass. On one AVX2 core, 2048 x 3072 floats: GELU 5.6 ms (`tf.nn.gelu` takes 116), its gradient 7.6 ms.
XLA's random numbers are slow on a CPU (3.5 s for as many floats, against 43 ms), so these are drawn by TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import tensorflow as tf

_GELU = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715
_ROWS = 64
_ALIASED, _APART, _NARROW = 1024, 16, 256


def _compiled(function: Callable[..., Any]) -> Any:
    return tf.function(function, jit_compile=True, autograph=False)


@_compiled
def _gelu(x: Any) -> Any:
    wide = tf.cast(x, tf.float32)
    return tf.cast(0.5 * wide * (1.0 + tf.tanh(_GELU * (wide + _CUBIC * wide * wide * wide))), x.dtype)


@_compiled
def _gelu_gradient(x: Any, upstream: Any) -> Any:
    wide = tf.cast(x, tf.float32)
    square = wide * wide
    bend = tf.tanh(_GELU * wide * (1.0 + _CUBIC * square))
    slope = 0.5 * (1.0 + bend) + 0.5 * wide * (1.0 - bend * bend) * _GELU * (1.0 + 3.0 * _CUBIC * square)
    return tf.cast(tf.cast(upstream, tf.float32) * slope, x.dtype)


@_compiled
def _normalized(x: Any, gamma: Any, beta: Any, epsilon: Any) -> Any:
    centred, scale = _moments(x, epsilon)
    return tf.cast(centred * scale * gamma + beta, x.dtype)


@_compiled
def _normalized_gradient(x: Any, gamma: Any, epsilon: Any, upstream: Any) -> tuple[Any, Any, Any]:
    centred, scale = _moments(x, epsilon)
    normal = centred * scale
    upstream = tf.cast(upstream, tf.float32)
    of_normal = upstream * gamma
    mean = tf.reduce_mean(of_normal, -1, keepdims=True)
    along = tf.reduce_mean(of_normal * normal, -1, keepdims=True)
    of_x = scale * (of_normal - mean - normal * along)
    return tf.cast(of_x, x.dtype), tf.reduce_sum(upstream * normal, 0), tf.reduce_sum(upstream, 0)


def _moments(x: Any, epsilon: Any) -> tuple[Any, Any]:
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
    return centred, tf.math.rsqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + epsilon)


@_compiled
def _kept(x: Any, bits: Any, least: Any, scale: Any) -> Any:
    return tf.where(tf.cast(bits, tf.int32) >= least, x * tf.cast(scale, x.dtype), tf.zeros((), x.dtype))


@_compiled
def _probabilities(scores: Any, segment_ids: Any, scale: Any) -> Any:
    """Softmax of the scores over what a position may see; float32 `(batch, heads, length, length)`."""
    length = tf.shape(segment_ids)[1]
    places = tf.range(length)
    allowed = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (places[:, None] >= places[None, :])
    shift = tf.where(allowed, 0.0, -1e9)[:, None]
    scaled = tf.cast(scores, tf.float32) * scale + shift
    exponentials = tf.exp(scaled - tf.reduce_max(scaled, -1, keepdims=True))
    return tf.cast(exponentials / tf.reduce_sum(exponentials, -1, keepdims=True), scores.dtype)


@_compiled
def _softmax_gradient(probabilities: Any, upstream: Any, scale: Any) -> Any:
    wide, upstream = tf.cast(probabilities, tf.float32), tf.cast(upstream, tf.float32)
    along = tf.reduce_sum(wide * upstream, -1, keepdims=True)
    return tf.cast(wide * (upstream - along) * scale, probabilities.dtype)


def gelu(x: Any) -> Any:
    """Return the tanh approximation of GELU, computed in float32; its backward pass keeps `x` alone."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(x: Any) -> tuple[Any, Any]:
        return _gelu(x), lambda upstream: _gelu_gradient(x, upstream)

    return function(x)


def layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """Return `x`, `(rows, width)`, normalised along its width in float32; its backward pass keeps `x` alone."""
    smallest = tf.constant(epsilon, tf.float32)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(x: Any, gamma: Any, beta: Any) -> tuple[Any, Any]:
        return (
            _normalized(x, gamma, beta, smallest),
            lambda upstream: _normalized_gradient(x, gamma, smallest, upstream),
        )

    return function(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


def dropout(x: Any, rate: float, seed: Any) -> Any:
    """Return `x` with a share of its elements zero and the others scaled up; the backward pass draws them again."""
    least, scale = _threshold(rate)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(x: Any) -> tuple[Any, Any]:
        return (
            _kept(x, _bits(tf.shape(x), seed), least, scale),
            lambda upstream: _kept(upstream, _bits(tf.shape(x), seed), least, scale),
        )

    return function(x)


class Layout(NamedTuple):
    """Which positions of a batch are computed, and where; int32.

    Args:
        places: `(rows,)`; of each row the position that it is, counted through the batch.
        rows: `(batch, length)`; of each position its row, or the last row, which is padding, if it has none.
    """

    places: Any
    rows: Any


def layout(segment_ids: Any) -> Layout:
    """Return the positions that hold a token, and as many others as make a multiple of 64, or all there are.

    Few different numbers of rows come up so: for each, XLA compiles its loops anew.

    Args:
        segment_ids: int32 `(batch, length)`, 0 in the padding.
    """
    flat = tf.reshape(segment_ids > 0, (-1,))
    order = tf.cast(tf.concat([tf.where(flat)[:, 0], tf.where(~flat)[:, 0]], 0), tf.int32)
    count, every = tf.math.count_nonzero(flat, dtype=tf.int32), tf.size(flat)
    rows = tf.minimum((count // _ROWS + 1) * _ROWS, every)  # at least one is padding, unless none is
    return Layout(
        places=order[:rows],
        rows=tf.reshape(tf.minimum(tf.math.invert_permutation(order), rows - 1), tf.shape(segment_ids)),
    )


def taken(layout: Layout, x: Any) -> Any:
    """Return of `x`, `(batch, length)`, what the layout computes, `(1, rows)`."""
    return tf.gather(tf.reshape(x, (-1,)), layout.places)[None]


def affine(x: Any, kernel: Any, bias: Any) -> Any:
    """Return `x @ kernel + bias`, of `(rows, width)`, `(width, columns)` and `(columns,)`; of no bias, `x @ kernel`.

    Added as a bias, the gradient of one of 3072 takes 2 ms where that of a sum took 10. And where the rows of `x` or of
    the gradient all begin at the same place of a cache's page, and the other side is narrow, the kernel's gradient took
    twice its time: there the rows are set apart (256 x 1024: 17 ms, and 28 without).
    """
    if bias is None:
        return tf.matmul(x, kernel)
    width, columns = kernel.shape
    apart = [
        _APART if side % _ALIASED == 0 and other <= _NARROW else 0 for side, other in (kernel.shape, kernel.shape[::-1])
    ]
    if not any(apart):
        return tf.nn.bias_add(tf.matmul(x, kernel), bias)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(x: Any, kernel: Any, bias: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            left, right = (tf.pad(side, [[0, 0], [0, more]]) for side, more in zip((x, upstream), apart, strict=True))
            of_kernel = tf.matmul(left, right, transpose_a=True)[:width, :columns]
            of_bias = tf.raw_ops.BiasAddGrad(out_backprop=upstream)
            return tf.matmul(upstream, kernel, transpose_b=True), of_kernel, of_bias

        return tf.nn.bias_add(tf.matmul(x, kernel), bias), gradient

    return function(x, tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias))


def frozen_product(x: Any, held: Any, restore: Any) -> Any:
    """Return `x @ restore(held, x.dtype)`; the backward pass keeps the codes alone and makes the matrix again.

    Either is made when its other side is there, for TensorFlow would make those of all layers at once.

    Args:
        x: float `(rows, width)`.
        held: codes and what belongs to them; they have no gradient.
        restore: returns the matrix that they stand for, `(width, columns)`.
    """

    def matrix(side: Any) -> Any:
        with tf.control_dependencies([side]):
            return restore(tuple(tf.identity(part) for part in held), side.dtype)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(x: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> Any:
            return tf.matmul(upstream, matrix(upstream), transpose_b=True)

        return tf.matmul(x, matrix(x)), gradient

    return function(x)


def attention(qkv: Any, segment_ids: Any, num_heads: int, rate: float, seed: Any, layout: Layout | None = None) -> Any:
    """Return what each position gathers from the positions of its document up to itself.

    The backward pass keeps `qkv` alone and computes the probabilities again.

    Args:
        qkv: float `(batch * length, 3 * width)`; queries, keys and values side by side.
        segment_ids: int32 `(batch, length)`.
        num_heads: into which the width falls.
        rate: of the dropout on the probabilities; 0 for none.
        seed: of that dropout.
        layout: which positions the rows of `qkv` are, or None for all. The gradient of padding must be zero.

    Returns:
        Float `(batch * length, width)`, or the layout's rows of it.
    """
    width = qkv.shape[-1] // 3
    size = width // num_heads
    scale = tf.constant(size**-0.5, tf.float32)
    least, kept_scale = _threshold(rate)
    batch, length = tf.unstack(tf.shape(segment_ids))
    every = batch * length
    places = tf.range(every) if layout is None else layout.places
    rows = tf.reshape(places, (batch, length)) if layout is None else layout.rows
    # Which slices of a head's size stand where: to gather them takes as long as to transpose, and pads on the way.
    head, part = tf.range(num_heads), tf.range(3)
    of_heads = rows[:, None, :] * num_heads + head[:, None]  # (batch, heads, length), in (rows, heads)
    of_parts = (rows[:, None, :] * 3 + part[:, None, None, None]) * num_heads + head[:, None]
    of_rows = (places // length)[:, None] * num_heads + head  # (rows, heads), in (batch, heads, length)
    of_rows = of_rows * length + (places % length)[:, None]
    of_parts_back = of_rows[:, None] + (part * every * num_heads)[:, None]  # (rows, 3, heads)

    def heads(qkv: Any) -> Any:
        return tf.unstack(tf.gather(tf.reshape(qkv, (-1, size)), of_parts))

    def kept(probabilities: Any) -> Any:
        if not rate:
            return probabilities
        return _kept(probabilities, _bits(tf.shape(probabilities), seed), least, kept_scale)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(qkv: Any) -> tuple[Any, Any]:
        query, key, value = heads(qkv)
        probabilities = _probabilities(tf.matmul(query, key, transpose_b=True), segment_ids, scale)
        found = tf.matmul(kept(probabilities), value)
        gathered = tf.reshape(tf.gather(tf.reshape(found, (-1, size)), of_rows), (-1, width))

        def gradient(upstream: Any) -> Any:
            with tf.control_dependencies([upstream]):  # else the graph's optimizer would keep those of the forward pass
                query, key, value = heads(tf.identity(qkv))
            probabilities = _probabilities(tf.matmul(query, key, transpose_b=True), segment_ids, scale)
            of_gathered = tf.gather(tf.reshape(upstream, (-1, size)), of_heads)
            of_value = tf.matmul(kept(probabilities), of_gathered, transpose_a=True)
            of_kept = kept(tf.matmul(of_gathered, value, transpose_b=True))
            of_scores = _softmax_gradient(probabilities, of_kept, scale)
            of_query, of_key = tf.matmul(of_scores, key), tf.matmul(of_scores, query, transpose_a=True)
            together = tf.reshape(tf.stack([of_query, of_key, of_value]), (-1, size))
            return tf.reshape(tf.gather(together, of_parts_back), (-1, 3 * width))

        return gathered, gradient

    return function(qkv)


def recomputed(block: Callable[[Any, Any], Any], x: Any, seeds: Any) -> Any:
    """Return `block(x, seeds)`; the backward pass keeps `x` and the seeds alone and calls the block again.

    Args:
        block: gives a tensor, or a tuple of them.
        x: what it is given.
        seeds: what it is given besides.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def function(x: Any) -> tuple[Any, Any]:
        def gradient(*upstream: Any, variables: Any = ()) -> Any:
            with tf.GradientTape() as tape, tf.control_dependencies(upstream):
                again = tf.identity(x)
                tape.watch(again)
                found = tf.nest.flatten(block(again, seeds))
            of_x, *of_variables = tape.gradient(found, [again, *variables], list(upstream))
            return (of_x, of_variables) if variables else of_x

        return block(x, seeds), gradient

    return function(x)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Let a GPU multiply float32 meanwhile as it is, and not rounded to TF32's 10 bits."""
    setting = tf.config.experimental
    before = setting.tensor_float_32_execution_enabled()
    setting.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        setting.enable_tensor_float_32_execution(before)


def gpu_capability() -> tuple[int, int] | None:
    """Return the compute capability of TensorFlow's first GPU, or None without one."""
    for device in tf.config.list_physical_devices("GPU"):
        found = tf.config.experimental.get_device_details(device).get("compute_capability")
        if found:
            return int(found[0]), int(found[1])
    return None


def _threshold(rate: float) -> tuple[Any, Any]:
    """The least of 16 bits that is kept, and what keeps the mean: rates are rounded to 1/65536."""
    least = round(rate * 65536)
    return tf.constant(least), tf.constant(65536.0 / max(65536 - least, 1))


def _bits(shape: Any, seed: Any) -> Any:
    """Return random uint16 of the shape, drawn two at a time."""
    count = tf.reduce_prod(shape)
    drawn = tf.random.stateless_uniform(
        tf.expand_dims((count + 1) // 2, 0), tf.cast(seed, tf.int32), minval=None, maxval=None, dtype=tf.int32
    )
    return tf.reshape(tf.reshape(tf.bitcast(drawn, tf.uint16), (-1,))[:count], shape)
