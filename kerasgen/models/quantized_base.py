"""Big weights in fewer bits than float32: bfloat16, or codes in int8 or int4 beside which adapters learn.

A layer becomes one of a class derived from its own, whose `kernel` is made of the codes whenever it is asked for, so
that KerasHub's forward pass, kerasgen's and every reader of the weights see the same float32. Activations are not
rounded, as Keras's own `quantize` does, for gradients have to pass. Imports NumPy; Keras is there when a layer is.

Source: Dettmers et al. 2023 (arXiv 2305.14314), QLoRA, whose four bits have levels of another spacing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from kerasgen.models import projections

Scheme: TypeAlias = Literal["int8", "int4", "bfloat16"]
SCHEMES: Final[tuple[str, ...]] = get_args(Scheme)
HALF: Final = "bfloat16"
"""The scheme that is no codes: each number is rounded to the nearest of bfloat16's, which has 8 bits of precision."""
BLOCK: Final = 32
"""Inputs of an output that share a scale and a least value in int4. In int8 an output has one scale."""

_ROLES = ("query", "key", "value", "output", "gate", "up", "down")
_LARGEST: Final = np.float32(np.finfo(np.float16).max)
_CHUNK: Final = 1 << 22  # numbers that are rounded at once, so that a table is not held thrice
_CLASSES: dict[tuple[type, type], type] = {}
_LOADING: ContextVar[Scheme | None] = ContextVar("quantized_loading", default=None)
Array: TypeAlias = npt.NDArray[Any]


class _Kernel:
    """What a dense layer is besides while its kernel is codes."""

    quantized: Scheme
    quantized_shape: tuple[int, ...]

    @property
    def kernel(self) -> Any:
        """The floats that the codes stand for, in the kernel's shape."""
        from keras import ops

        layer: Any = self
        return projections.from_matrix(layer, restored(layer, layer.compute_dtype), ops)

    def _get_kernel_with_merged_lora(self) -> tuple[Any, Any, Any]:
        """What Keras writes into a file, and no scales of codes."""
        return self.kernel, None, None


class _Table:
    """What a table of embeddings is besides while its rows are codes; its output side too, if it has one."""

    quantized: Scheme
    quantized_shape: tuple[int, ...]
    codes: Any
    reverse_codes: Any

    @property
    def embeddings(self) -> Any:
        """The floats that the codes stand for, `(rows, width)`."""
        return _by_row(self.codes, _scales(self))

    @property
    def reverse_embeddings(self) -> Any:
        """Those of the output side, `(width, rows)`."""
        from keras import ops

        return ops.transpose(_by_row(self.reverse_codes, _scales(self, "reverse_scales")))

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        """Return the rows of these ids, of which alone floats are made; see Keras's `ReversibleEmbedding` for more."""
        from keras import ops

        if reverse:
            return super().call(inputs, reverse=True)  # type: ignore[misc]
        layer: Any = self
        ids = ops.cast(inputs, "int32")
        scales = _scales(self)
        taken = None if scales is None else ops.take(ops.convert_to_tensor(scales), ids, axis=0)
        rows = _by_row(ops.take(ops.convert_to_tensor(self.codes), ids, axis=0), taken)
        return ops.cast(rows, layer.compute_dtype)

    def _get_embeddings_with_merged_lora(self) -> tuple[Any, Any, Any]:
        return self.embeddings, None, None


def _scales(layer: Any, name: str = "scales") -> Any:
    """The scales of a table's rows, or None where its rows are bfloat16."""
    return layer.__dict__.get(name)


def _by_row(codes: Any, scales: Any) -> Any:
    from keras import ops

    floats = ops.cast(ops.convert_to_tensor(codes), "float32")
    return floats if scales is None else floats * ops.convert_to_tensor(scales)


class Held:
    """A kernel or a table in bfloat16 without an adapter, in the place of a Keras variable; readers see float32.

    Args:
        layer: that holds it.
        name: of the attribute, such as `kernel`.
    """

    def __init__(self, layer: Any, name: str) -> None:
        self._layer, self._is_kernel, self._is_reverse = layer, name == "kernel", name == "reverse_embeddings"
        self.variable = layer.__dict__["reverse_codes" if self._is_reverse else "codes"]
        shape = tuple(layer.quantized_shape)
        self.shape = shape[::-1] if self._is_reverse else shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return the numbers in the shape of the attribute, float32 unless asked otherwise."""
        return np.asarray(self.numbers(), np.float32 if dtype is None else dtype)

    def numbers(self) -> Array:
        """Return the numbers as they are held, in the shape of the attribute; they may be a view."""
        held = np.asarray(self.variable)
        return (
            projections.from_matrix(self._layer, held, np) if self._is_kernel else held.T if self._is_reverse else held
        )

    def laid_out(self, numbers: Array) -> Array:
        """Return what the variable holds of numbers in the shape of the attribute; it may be a view."""
        if self._is_kernel:
            return half(projections.to_matrix(self._layer, numbers, np))
        return half(numbers.T if self._is_reverse else numbers)

    def assign(self, numbers: Array) -> None:
        """Take other numbers, rounded."""
        self.variable.assign(self.laid_out(numbers))


def attribute(layer: Any, name: str) -> Any:
    """Return an attribute of a layer: the Keras variable, the sum of it and an adapter, or a `Held`; None for none."""
    names = ("kernel",) if isinstance(layer, _Kernel) else ("embeddings", "reverse_embeddings")
    if not is_half(layer) or name not in names or getattr(layer, "lora_enabled", False):
        return getattr(layer, name, None)
    return Held(layer, name) if name != "reverse_embeddings" or "reverse_codes" in layer.__dict__ else None


def is_half(layer: Any) -> bool:
    """Return whether a layer holds bfloat16."""
    return is_on(layer) and layer.quantized == HALF


def is_on(layer: Any) -> bool:
    """Return whether a layer holds codes of this module, or bfloat16."""
    return isinstance(layer, _Kernel | _Table)


def scheme_of(network: Any) -> Scheme | None:
    """Return in what the base of a Keras model is held, or None for floats."""
    found = (layer.quantized for layer in network._flatten_layers() if isinstance(layer, _Kernel))
    return next(found, None)


def count_params(network: Any) -> int:
    """Return how many numbers the weights of a Keras model are, each code counted as the one that it stands for."""
    own = {id(variable) for layer in network._flatten_layers() if is_on(layer) for variable in _variables(layer)}
    count = sum(int(np.prod(variable.shape)) for variable in network.weights if id(variable) not in own)
    for layer in network._flatten_layers():
        if is_on(layer):
            count += int(np.prod(layer.quantized_shape)) * (2 if hasattr(layer, "reverse_codes") else 1)
    return count


def parts(layer: Any) -> tuple[tuple[Any, ...], Callable[[tuple[Any, ...], Any], Any]]:
    """Return the codes of a dense layer and what belongs to them, and the function that makes the matrix of them.

    That takes them and a dtype and returns `(rows, columns)`.
    """
    from keras import ops

    held = tuple(ops.convert_to_tensor(variable) for variable in _variables(layer))
    return held, partial(_dequantized, layer.quantized, projections.matrix_shape(layer))


def restored(layer: Any, dtype: Any) -> Any:
    """Return the matrix of a dense layer that its codes stand for, `(rows, columns)`."""
    held, restore = parts(layer)
    return restore(held, dtype)


def _variables(layer: Any) -> list[Any]:
    names = ("codes", "scales", "lowest", "reverse_codes", "reverse_scales")
    return [found for name in names if (found := layer.__dict__.get(name)) is not None]


def _dequantized(scheme: Scheme, shape: tuple[int, int], held: tuple[Any, ...], dtype: Any) -> Any:
    from keras import ops

    if scheme == HALF:
        return ops.cast(held[0], dtype)
    if scheme == "int8":
        codes, scales = held
        return ops.cast(ops.cast(codes, "float32") * scales, dtype)
    codes, scales, lowest = held
    rows, columns = shape
    levels = ops.concatenate([ops.bitwise_and(codes, 15), ops.right_shift(codes, 4)], axis=0)
    levels = ops.reshape(ops.cast(levels, "float32"), (scales.shape[0], -1, columns))
    scales, lowest = (ops.expand_dims(ops.cast(each, "float32"), 1) for each in (scales, lowest))
    floats = levels * scales + lowest
    return ops.cast(ops.reshape(floats, (-1, columns))[:rows], dtype)


def quantize(matrix: Array, scheme: Scheme) -> tuple[Array, ...]:
    """Return codes of a matrix and what belongs to them, the same on every machine.

    Args:
        matrix: `(rows, columns)` of floats, the inputs and outputs of a projection.
        scheme: `"bfloat16"` gives the numbers in bfloat16, a view where they are that already; `"int8"` codes, int8 of
            the same shape, and scales, float32 `(1, columns)`; `"int4"` two codes to a byte, uint8, those of the upper
            half of the (padded) rows in the lower four bits, and scales and least values, float16 `(blocks, columns)`.
    """
    if scheme == HALF:
        return (half(matrix),)
    rows, columns = matrix.shape
    step = max(1, _CHUNK // rows)
    chunks = [_of_columns(matrix[:, start : start + step], scheme) for start in range(0, columns, step)]
    return tuple(np.ascontiguousarray(np.concatenate(each, axis=1)) for each in zip(*chunks, strict=True))


def half(array: Array) -> Array:
    """Return numbers in bfloat16, rounded to the nearest, ties to even; the array itself where they are that already.

    A number beyond bfloat16's largest, which only the last 2^-9 of float32's range holds, becomes infinite.
    """
    from ml_dtypes import bfloat16

    return array.astype(bfloat16, copy=False)


def _of_columns(matrix: Array, scheme: Scheme) -> tuple[Array, ...]:
    matrix = np.ascontiguousarray(matrix, np.float32)
    rows, columns = matrix.shape
    if scheme == "int8":
        scales = np.abs(matrix).max(axis=0, keepdims=True) / np.float32(127)
        return np.rint(matrix / np.where(scales == 0, 1, scales)).astype(np.int8), scales.astype(np.float32)
    block = min(BLOCK, rows + rows % 2)
    blocks = -(-rows // block)
    # The last row fills the last block: it changes neither the least nor the largest value of it.
    padded = np.pad(matrix, ((0, blocks * block - rows), (0, 0)), mode="edge").reshape(blocks, block, columns)
    least = padded.min(axis=1)
    lowest = np.clip(least, -_LARGEST, _LARGEST).astype(np.float16)
    scales = np.clip((padded.max(axis=1) - least) / np.float32(15), 0, _LARGEST).astype(np.float16)
    steps = np.where(scales == 0, 1, scales).astype(np.float32)[:, None]
    levels = np.clip(np.rint((padded - lowest.astype(np.float32)[:, None]) / steps), 0, 15)
    upper, lower = np.split(levels.astype(np.uint8).reshape(-1, columns), 2)
    return upper | (lower << 4), scales, lowest


def targets(decoder: Any, *, tokens: bool = True) -> Iterator[Any]:
    """Yield the layers of a `KerasDecoder` that are held as codes: projections, the output layer, the token table.

    Args:
        decoder: of the model.
        tokens: whether the token table is one of them.
    """
    # Kernels of experts, of three axes, stay floats.
    every = (layer for block in decoder.parts["layers"] for role, layer in block.items() if role in _ROLES)
    held_as_codes = [layer for layer in every if hasattr(layer, "_kernel")]
    held_as_codes += [decoder.parts["embedding"]["tokens"]] if tokens else []
    held_as_codes += [decoder.parts["head"]] if hasattr(decoder.parts.get("head"), "_kernel") else []
    yield from {id(layer): layer for layer in held_as_codes}.values()


def hold(layers: Iterable[Any], scheme: Scheme) -> None:
    """Let each of these layers hold codes, one after another; nothing happens to one that holds these already."""
    for layer in layers:
        if is_on(layer) and layer.quantized != scheme:
            release(layer)
        if not is_on(layer):
            _hold(layer, scheme, {})


def _hold(layer: Any, scheme: Scheme, given: Mapping[str, Array]) -> None:
    """Let a layer hold codes of its floats, or of those that are given by the names of its variables."""

    def floats(name: str) -> Array:
        return given[name] if name in given else np.asarray(getattr(layer, name), np.float32)

    if hasattr(layer, "_kernel"):
        layer.__dict__["quantized_shape"] = tuple(layer._kernel.shape)
        codes = quantize(projections.to_matrix(layer, floats("_kernel"), np), scheme)
        _replace(layer, "_kernel", zip(("codes", "scales", "lowest"), codes, strict=False))
        _become(layer, _Kernel, scheme)
        return
    # Rows of a table are few bits of a whole model, and each is read alone: int8 in int4 too, a scale a row.
    of_rows: Scheme = "int8" if scheme == "int4" else scheme
    layer.__dict__["quantized_shape"] = tuple(layer._embeddings.shape)
    rows = quantize(floats("_embeddings").T, of_rows)
    _replace(layer, "_embeddings", zip(("codes", "scales"), (each.T for each in rows), strict=False))
    if layer.__dict__.get("reverse_embeddings") is not None:
        outputs = quantize(floats("reverse_embeddings"), of_rows)
        names = ("reverse_codes", "reverse_scales")
        _replace(layer, "reverse_embeddings", zip(names, (each.T for each in outputs), strict=False))
    _become(layer, _Table, scheme)


def _replace(layer: Any, name: str, given: Iterable[tuple[str, Any]]) -> None:
    """Put variables of codes into a layer in the place of one of floats."""
    floats = getattr(layer, name)
    layer._untrack_variable(floats)
    layer.__dict__[name] = None
    floats._value = None  # whoever still knows the variable must not keep its numbers alive
    layer._tracker.unlock()
    from keras import ops

    for own, array in given:
        begun = partial(ops.convert_to_tensor, np.ascontiguousarray(array))
        settings = {"trainable": False, "autocast": False, "dtype": str(array.dtype)}
        layer.__dict__[own] = layer.add_weight(
            name=f"{name.removeprefix('_')}_{own}",
            shape=array.shape,
            initializer=lambda shape, dtype=None, begun=begun: begun(dtype=dtype),
            **settings,
        )
    layer._tracker.lock()


def _become(layer: Any, kind: type, scheme: Scheme) -> None:
    plain = type(layer)
    if (plain, kind) not in _CLASSES:  # of the same name, by which Keras finds the layer's class in its files
        said = {"__module__": plain.__module__, "__qualname__": plain.__qualname__}
        _CLASSES[plain, kind] = type(plain.__name__, (kind, plain), said)
    layer.__dict__["quantized"] = scheme
    layer.__class__ = _CLASSES[plain, kind]


def release(layer: Any, kernel: Any = None) -> None:
    """Let a layer hold floats again, those that its codes stand for, or these; it carries no adapter.

    Args:
        layer: that holds codes.
        kernel: of a dense layer, an array of the kernel's shape, or None.
    """
    if isinstance(layer, _Kernel):
        found = {"_kernel": np.asarray(layer.kernel, np.float32) if kernel is None else kernel}
    else:
        found = {"_embeddings": np.asarray(layer.embeddings, np.float32)}
        if "reverse_codes" in layer.__dict__:
            found["reverse_embeddings"] = np.asarray(layer.reverse_embeddings, np.float32)
    for variable in _variables(layer):
        layer._untrack_variable(variable)
    for name in ("codes", "scales", "lowest", "reverse_codes", "reverse_scales", "quantized", "quantized_shape"):
        layer.__dict__.pop(name, None)
    layer.__class__ = type(layer).__mro__[2]
    layer._tracker.unlock()
    for place, (name, array) in enumerate(found.items()):
        variable = layer.add_weight(name=name.removeprefix("_"), shape=array.shape, initializer="zeros")
        variable.assign(array)
        layer.__dict__[name] = variable
        layer._trainable_variables.insert(place, layer._trainable_variables.pop())  # where it was, before a bias
    layer._tracker.lock()


@contextmanager
def loading(scheme: Scheme | None) -> Iterator[None]:
    """Let the models that kerasgen builds meanwhile of the tensors of a file hold codes as soon as a weight is read."""
    token = _LOADING.set(scheme)
    try:
        yield
    finally:
        _LOADING.reset(token)


def loaded_as() -> Scheme | None:
    """Return what `loading` says at present."""
    return _LOADING.get()


def of_tensors(decoder: Callable[[], Any], give: Callable[[Any, Any], None]) -> Callable[[Any, Array], None]:
    """Return what gives a Keras variable the numbers of a file, or lets its layer hold codes of them if asked for.

    The variables wait for their numbers (`deferred_weights.deferred`). Those of a layer that holds codes never get any.

    Args:
        decoder: returns the `KerasDecoder` of the model that is built.
        give: gives a variable its numbers as they are.
    """
    scheme = _LOADING.get()
    if scheme is None:
        return give
    owners: dict[int, tuple[Any, str, list[str]]] = {}
    for layer in targets(decoder()):
        names = ("_kernel",) if hasattr(layer, "_kernel") else ("_embeddings", "reverse_embeddings")
        wanted = [name for name in names if layer.__dict__.get(name) is not None]
        owners |= {id(getattr(layer, name)): (layer, name, wanted) for name in wanted}
    waiting: dict[int, dict[str, Array]] = {}

    def take(variable: Any, numbers: Array) -> None:
        if id(variable) not in owners:
            give(variable, numbers)
            return
        layer, name, wanted = owners[id(variable)]
        numbers = half(numbers) if scheme == HALF else numbers
        given = waiting.setdefault(id(layer), {})
        given[name] = numbers.reshape(variable.shape)
        if len(given) == len(wanted):
            _hold(layer, scheme, waiting.pop(id(layer)))

    return take
