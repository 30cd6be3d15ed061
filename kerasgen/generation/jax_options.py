"""Options of XLA's compiler for the graphs of this package. Imports JAX."""

from __future__ import annotations

import functools
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from kerasgen import devices

_EXTRA = "xla_backend_extra_options"
_ROWS_AT_ONCE = "xla_llvm_dot_tiling_factor"
# Numbers of fields, as XLA's protocol buffers have them.
_BUILD_OPTIONS, _DEBUG_OPTIONS, _EXTRA_OPTIONS, _KEY, _VALUE = 3, 3, 500, 1, 2


@lru_cache
def compiler_options(*, products: bool = True, one_row: bool = False) -> dict[str, Any]:
    """Return XLA's compiler options for a graph.

    On a CPU, sums are not handed to YNNPACK: the attention of one text, 48 small sums a step of GPT-2 base, took 0.5 ms
    each in it and 0.05 without it (see the log).

    Args:
        products: whether products are. Those of many columns are faster without it.
        one_row: whether the graph is a step of one row; see `reads_row_by_row`.
    """
    if jax.default_backend() != "cpu":
        return {}
    options = {"xla_cpu_experimental_ynn_fusion_type": f"LIBRARY_FUSION_TYPE_{'DOT' if products else 'INVALID'}"}
    if not _compiles(options):  # another version, which doesn't know the option
        options = {}
    if one_row and reads_row_by_row():
        options = options | {_EXTRA: f"{_ROWS_AT_ONCE}=1"}
    return options


@lru_cache
def reads_row_by_row() -> bool:
    """Return whether products of a matrix and one column are made to read one row of the matrix after another.

    XLA reads eight rows at once, which AMD's processors do at 18 to 23 GB/s where one row at a time is read at 26 to 30
    (see the log). JAX passes such an option for a whole process only, where a row times a matrix would take twice as
    long in everybody's graphs; so it is added here to what JAX made of the other options.
    """
    if jax.default_backend() != "cpu" or devices.cpu_vendor() != "AuthenticAMD":
        return False
    return _takes_extra_options() and _compiles({_EXTRA: f"{_ROWS_AT_ONCE}=1"})


def _compiles(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(np.float32(0)).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


@lru_cache
def _takes_extra_options() -> bool:
    """Let JAX take XLA's extra options for one graph, `NAME=VALUE`; return whether this version's inside allows it."""
    try:
        from jax._src import compiler

        make = compiler.get_compile_options
        options = type(make(num_replicas=1, num_partitions=1))
        probe = options.ParseFromString(_with_extra(options().SerializeAsString(), "kerasgen_probe=1"))
        if b"kerasgen_probe" not in probe.SerializeAsString():
            return False
    except (AttributeError, ImportError, TypeError, ValueError, RuntimeError):
        return False

    @functools.wraps(make)
    def make_with_extra(*arguments: Any, **settings: Any) -> Any:
        asked = dict(settings.get("env_options_overrides") or {})
        extra = asked.pop(_EXTRA, None)
        if extra is None:
            return make(*arguments, **settings)
        made = make(*arguments, **(settings | {"env_options_overrides": asked}))
        return type(made).ParseFromString(_with_extra(made.SerializeAsString(), extra))

    compiler.get_compile_options = make_with_extra
    return True


def _with_extra(serialized: bytes, extra: str) -> bytes:
    """Return serialized options of a compilation with one extra option; what is appended to a message is merged."""
    key, _, value = extra.partition("=")
    entry = _field(_KEY, key.encode()) + _field(_VALUE, value.encode())
    return serialized + _field(_BUILD_OPTIONS, _field(_DEBUG_OPTIONS, _field(_EXTRA_OPTIONS, entry)))


def _field(number: int, payload: bytes) -> bytes:
    """Return a field of a protocol buffer that has a length."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
