"""TensorFlow as an array namespace, for samplers and `kerasgen.decoder.arithmetic`.

So an artefact's graph has no second copy of either. What `keras.ops` would do, without Keras; a dimension that is only
known when the graph runs is None, as in a shape.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

exp = tf.exp
log = tf.math.log
sqrt = tf.sqrt
rsqrt = tf.math.rsqrt
square = tf.square
tanh = tf.tanh
cos = tf.cos
sin = tf.sin
relu = tf.nn.relu
silu = tf.nn.silu
gelu = tf.nn.gelu
ceil = tf.math.ceil
minimum = tf.minimum
maximum = tf.maximum
equal = tf.equal
not_equal = tf.not_equal
logical_and = tf.logical_and
logical_or = tf.logical_or
logical_not = tf.logical_not
bitwise_and = tf.bitwise.bitwise_and
bitwise_or = tf.bitwise.bitwise_or
bitwise_xor = tf.bitwise.bitwise_xor
left_shift = tf.bitwise.left_shift
right_shift = tf.bitwise.right_shift
expand_dims = tf.expand_dims
squeeze = tf.squeeze
pad = tf.pad
stack = tf.stack
cast = tf.cast
cumsum = tf.cumsum


def __getattr__(name: str) -> Any:
    """Fall back to TensorFlow's own function of a NumPy name, for samplers of other packages."""
    function = getattr(tf.experimental.numpy, name, None)
    if not callable(function):
        raise AttributeError(f"TensorFlow's graphs have no function {name!r}")
    return lambda *arrays, **settings: tf.nest.map_structure(_of_32_bits, function(*arrays, **settings))


def _of_32_bits(x: Any) -> Any:
    """Cast an array to the type that `keras.ops` would give it; NumPy's own types are twice as wide."""
    narrow = {tf.int64: tf.int32, tf.float64: tf.float32}
    return tf.cast(x, narrow[x.dtype]) if getattr(x, "dtype", None) in narrow else x


def max(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:  # noqa: A001 - NumPy's name
    """Return the highest value along an axis."""
    return tf.reduce_max(x, axis=axis, keepdims=keepdims)


def min(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:  # noqa: A001 - NumPy's name
    """Return the lowest value along an axis."""
    return tf.reduce_min(x, axis=axis, keepdims=keepdims)


def sum(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:  # noqa: A001 - NumPy's name
    """Return the sum along an axis; of uint32 as int64, which a cast to uint32 wraps."""
    return tf.reduce_sum(tf.cast(x, tf.int64) if x.dtype == tf.uint32 else x, axis=axis, keepdims=keepdims)


def mean(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Return the mean along an axis."""
    return tf.reduce_mean(x, axis=axis, keepdims=keepdims)


def any(x: Any) -> Any:  # noqa: A001 - NumPy's name
    """Return whether anything is true."""
    return tf.reduce_any(x)


def argmax(x: Any, axis: int = -1) -> Any:
    """Return the places of the highest values, int32; of equals, the lowest."""
    return tf.argmax(x, axis=axis, output_type=tf.int32)


def top_k(x: Any, k: int, sorted: bool = True) -> tuple[Any, Any]:  # noqa: A002 - keras.ops' name
    """Return the highest values and their places; of equals, the lower place first."""
    highest = tf.math.top_k(x, k=k, sorted=sorted)
    return highest.values, highest.indices


def where(condition: Any, x: Any, y: Any) -> Any:
    """Return `x` where the condition holds, else `y`; a Python number takes the other's type."""
    if tf.is_tensor(x):
        y = tf.convert_to_tensor(y, x.dtype)
    elif tf.is_tensor(y):
        x = tf.convert_to_tensor(x, y.dtype)
    return tf.where(condition, x, y)


def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Return zeros of the shape of `x`."""
    return tf.zeros_like(x, dtype=dtype)


def ones_like(x: Any, dtype: Any = None) -> Any:
    """Return ones of the shape of `x`."""
    return tf.ones_like(x, dtype=dtype)


def full_like(x: Any, value: Any) -> Any:
    """Return `value` in the shape and type of `x`."""
    return tf.zeros_like(x) + tf.constant(value, x.dtype)


def arange(size: int, dtype: Any = "int32") -> Any:
    """Return the whole numbers below `size`."""
    return tf.range(size, dtype=dtype)


def reshape(x: Any, shape: tuple[int | None, ...]) -> Any:
    """Return `x` in another shape, in which one dimension may be None; of several, each is as `x` has it there."""
    if shape.count(None) > 1:
        own = tf.shape(x)
        return tf.reshape(x, [own[axis] if size is None else size for axis, size in enumerate(shape)])
    return tf.reshape(x, [-1 if size is None else size for size in shape])


def broadcast_to(x: Any, shape: tuple[int | None, ...]) -> Any:
    """Return `x` in this shape; where a dimension is None, as `x` has it, to be broadcast where it is used."""
    return tf.broadcast_to(x, [own if size is None else size for size, own in zip(shape, x.shape, strict=True)])


def concatenate(arrays: Any, axis: int = 0) -> Any:
    """Return the arrays one after the other."""
    return tf.concat(arrays, axis)


def repeat(x: Any, repeats: int, axis: int) -> Any:
    """Return each slice so often."""
    return tf.repeat(x, repeats, axis=axis)


def flip(x: Any, axis: int) -> Any:
    """Return `x` backwards along an axis."""
    return tf.reverse(x, [axis])


def add(x: Any, y: Any) -> Any:
    """Return the sum, in the type of `x`."""
    return x + tf.cast(y, x.dtype)


def power(x: Any, exponent: float) -> Any:
    """Return `x` to a power."""
    return tf.pow(x, tf.constant(exponent, x.dtype))


def view(x: Any, dtype: Any) -> Any:
    """Return the same bits as another type."""
    return tf.bitcast(x, tf.as_dtype(dtype))


def take_along_axis(x: Any, indices: Any, axis: int) -> Any:
    """Gather values at each row's places: along the last axis, or whole slices along the second axis of three."""
    if axis in (-1, len(x.shape) - 1):
        return tf.gather(x, indices, batch_dims=len(x.shape) - 1)
    return tf.gather(x, tf.squeeze(indices, -1), axis=axis, batch_dims=axis)


def while_loop(cond: Any, body: Any, loop_vars: tuple[Any, ...]) -> Any:
    """Run `body` as long as `cond` holds."""
    return tf.while_loop(cond, body, loop_vars)
