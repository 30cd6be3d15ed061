"""A frozen base in int8 or int4: codes take the place of the floats in Keras's layers, and adapters learn beside them.

A layer becomes one of a class derived from its own, whose `kernel` is made of the codes whenever it is asked for, so
that KerasHub's forward pass, kerasgen's and every reader of the weights see the same floats. Activations are not
rounded, as Keras's own `quantize` does, for gradients have to pass. Imports NumPy; Keras is there when a layer is.

Source: Dettmers et al. 2023 (arXiv 2305.14314), QLoRA, whose four bits have levels of another spacing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from kerasgen.models import projections

Scheme: TypeAlias = Literal["int8", "int4"]
SCHEMES: Final[tuple[str, ...]] = get_args(Scheme)
BLOCK: Final = 32
"""Inputs of an output that share a scale and a least value in int4. In int8 an output has one scale."""

_ROLES = ("query", "key", "value", "output", "gate", "up", "down")
_HALF: Final = np.float32(np.finfo(np.float16).max)
_CHUNK: Final = 1 << 22  # numbers that are rounded at once, so that a table is not held thrice
_CLASSES: dict[tuple[type, type], type] = {}
_LOADING: ContextVar[Scheme | None] = ContextVar("quantized_loading", default=None)


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
    scales: Any
    reverse_codes: Any
    reverse_scales: Any

    @property
    def embeddings(self) -> Any:
        """The floats that the codes stand for, `(rows, width)`."""
        return _by_row(self.codes, self.scales)

    @property
    def reverse_embeddings(self) -> Any:
        """Those of the output side, `(width, rows)`."""
        from keras import ops

        return ops.transpose(_by_row(self.reverse_codes, self.reverse_scales))

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        """Return the rows of these ids, of which alone floats are made; see Keras's `ReversibleEmbedding` for more."""
        from keras import ops

        if reverse:
            return super().call(inputs, reverse=True)  # type: ignore[misc]
        layer: Any = self
        ids = ops.cast(inputs, "int32")
        rows = ops.cast(ops.take(ops.convert_to_tensor(self.codes), ids, axis=0), "float32")
        return ops.cast(rows * ops.take(ops.convert_to_tensor(self.scales), ids, axis=0), layer.compute_dtype)

    def _get_embeddings_with_merged_lora(self) -> tuple[Any, Any, Any]:
        return self.embeddings, None, None


def _by_row(codes: Any, scales: Any) -> Any:
    from keras import ops

    return ops.cast(ops.convert_to_tensor(codes), "float32") * ops.convert_to_tensor(scales)


def is_on(layer: Any) -> bool:
    """Return whether a layer holds codes of this module."""
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


def quantize(matrix: npt.NDArray[np.float32], scheme: Scheme) -> tuple[npt.NDArray[Any], ...]:
    """Return codes of a matrix and what belongs to them, the same on every machine.

    Args:
        matrix: `(rows, columns)`, the inputs and outputs of a projection.
        scheme: `"int8"` gives codes, int8 of the same shape, and scales, float32 `(1, columns)`; `"int4"` two codes to
            a byte, uint8, those of the upper half of the (padded) rows in the lower four bits, and scales and least
            values, float16 `(blocks, columns)`.
    """
    rows, columns = matrix.shape
    step = max(1, _CHUNK // rows)
    chunks = [_of_columns(matrix[:, start : start + step], scheme) for start in range(0, columns, step)]
    return tuple(np.ascontiguousarray(np.concatenate(each, axis=1)) for each in zip(*chunks, strict=True))


def _of_columns(matrix: npt.NDArray[np.float32], scheme: Scheme) -> tuple[npt.NDArray[Any], ...]:
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
    lowest = np.clip(least, -_HALF, _HALF).astype(np.float16)
    scales = np.clip((padded.max(axis=1) - least) / np.float32(15), 0, _HALF).astype(np.float16)
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
    """Let each of these layers hold codes, one after another; nothing happens to one that does already."""
    for layer in layers:
        if not is_on(layer):
            _hold(layer, scheme)


def _hold(layer: Any, scheme: Scheme) -> None:
    if hasattr(layer, "_kernel"):
        layer.__dict__["quantized_shape"] = tuple(layer._kernel.shape)
        matrix = projections.to_matrix(layer, np.asarray(layer._kernel, np.float32), np)
        codes = quantize(matrix, scheme)
        del matrix
        _replace(layer, "_kernel", zip(("codes", "scales", "lowest"), codes, strict=False))
        _become(layer, _Kernel, scheme)
        return
    # Rows of a table are few bits of a whole model, and each is read alone: int8 in either scheme, a scale a row.
    layer.__dict__["quantized_shape"] = tuple(layer._embeddings.shape)
    rows = quantize(np.asarray(layer._embeddings, np.float32).T, "int8")
    _replace(layer, "_embeddings", zip(("codes", "scales"), (each.T for each in rows), strict=True))
    if layer.__dict__.get("reverse_embeddings") is not None:
        outputs = quantize(np.asarray(layer.reverse_embeddings, np.float32), "int8")
        names = ("reverse_codes", "reverse_scales")
        _replace(layer, "reverse_embeddings", zip(names, (each.T for each in outputs), strict=True))
    _become(layer, _Table, scheme)


def _replace(layer: Any, name: str, given: Iterable[tuple[str, Any]]) -> None:
    """Put variables of codes into a layer in the place of one of floats."""
    floats = getattr(layer, name)
    layer._untrack_variable(floats)
    layer.__dict__[name] = None
    floats._value = None  # whoever still knows the variable must not keep its numbers alive
    layer._tracker.unlock()
    for own, array in given:
        settings = {"initializer": "zeros", "trainable": False, "autocast": False, "dtype": str(array.dtype)}
        variable = layer.add_weight(name=f"{name.removeprefix('_')}_{own}", shape=array.shape, **settings)
        variable.assign(np.ascontiguousarray(array))
        layer.__dict__[own] = variable
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


def of_tensors(decoder: Callable[[], Any]) -> Callable[[Any], None]:
    """Return what takes each Keras variable that was given the numbers of a file, and holds codes if they are wanted.

    Args:
        decoder: returns the `KerasDecoder` of the model that is built.
    """
    scheme = _LOADING.get()
    if scheme is None:
        return lambda variable: None
    owners: dict[int, tuple[Any, list[Any]]] = {}
    for layer in targets(decoder()):
        names = ("_kernel",) if hasattr(layer, "_kernel") else ("_embeddings", "reverse_embeddings")
        waited = [found for name in names if (found := layer.__dict__.get(name)) is not None]
        owners |= {id(variable): (layer, waited) for variable in waited}

    def take(variable: Any) -> None:
        if id(variable) not in owners:
            return
        layer, waited = owners[id(variable)]
        if all(each._value is not None for each in waited):
            waited.clear()
            _hold(layer, scheme)

    return take
