"""Imports KerasHub; on JAX without TensorFlow, which takes longer to import than all else and is seldom needed there.

KerasHub's modules import TensorFlow and TensorFlow Text for their preprocessing. Here they get stand-ins, each of which
imports the real module when anything of it is asked for. They are in no other module's way: once KerasHub is imported,
`import tensorflow` means the real one. The cache of KerasHub's byte-pair tokenizer is then no `tf.Module`, as where
TensorFlow is absent; whoever saves that tokenizer in a TensorFlow graph imports TensorFlow before kerasgen.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from kerasgen import backend, quiet

_DEFERRED = ("tensorflow", "tensorflow_text")
_OF_HUBS = ("hf", "kaggle", "modelscope")
# Classes that KerasHub asks of any value whether it is one. Nothing is before TensorFlow is imported.
_ASKED_FOR = {name: type(name, (), {}) for name in ("Tensor", "RaggedTensor", "SparseTensor")}
_importing = threading.RLock()
_importer: int | None = None  # the thread that imports KerasHub at this moment
_refusing = threading.local()
_making_tables = threading.RLock()


def load() -> ModuleType:
    """Import Keras as `backend.use` does and then KerasHub, without what its libraries print, and return it."""
    is_jax = backend.use() == "jax"
    with _importing:
        if "keras_hub" in sys.modules:
            return import_module("keras_hub")
        with _deferring(_DEFERRED if is_jax else ()):
            keras_hub = quiet.load("keras_hub")
        if is_jax:
            presets: Any = import_module("keras_hub.src.utils.preset_utils")
            presets.tf_registered_schemes = functools.partial(_Schemes, presets.tf_registered_schemes)
            import_module("keras.src.saving.serialization_lib").__dict__["tf"] = _OfSerialization("tensorflow", [])
        return keras_hub


def tokenizer_in_python(make: Callable[[], Any]) -> Any:
    """Return the tokenizer of KerasHub's that `make` makes, without TensorFlow unless that is imported already.

    It makes the tables of its TensorFlow form when a tensor or a `tf.data` pipeline asks for ids; in a pipeline, which
    traces what it calls, they are made outside of the graph.

    Args:
        make: makes a byte-pair or SentencePiece tokenizer; others make no tables.
    """
    before, _refusing.is_on = getattr(_refusing, "is_on", False), "tensorflow" not in sys.modules
    try:
        tokenizer = make()
        if _refusing.is_on and hasattr(tokenizer, "_maybe_initialized_tf"):
            tokenizer._maybe_initialized_tf = functools.partial(_make_tables, tokenizer)
        return tokenizer
    finally:
        _refusing.is_on = before


def _make_tables(tokenizer: Any) -> None:
    make = functools.partial(type(tokenizer)._maybe_initialized_tf, tokenizer)
    try:
        tensorflow: Any = quiet.load("tensorflow")
    except ImportError:
        make()  # says what to install
        return
    with _making_tables, tensorflow.init_scope():  # KerasHub asks for one table to know whether all are made
        make()


class _Schemes:
    """Are the schemes of the file systems that TensorFlow knows, such as `gs`.

    KerasHub asks about each local path whether its scheme, None, is one of them, and imports TensorFlow to know.

    Args:
        ask: KerasHub's function that returns them.
    """

    def __init__(self, ask: Callable[[], Container[str]]) -> None:
        self._ask = ask

    def __contains__(self, scheme: object) -> bool:
        return isinstance(scheme, str) and scheme not in _OF_HUBS and scheme in self._ask()


class _Deferred(ModuleType):
    """Stands for a module that is imported when one of its attributes is asked for.

    Args:
        name: the module's name.
        path: where the package's own modules lie, which can be imported without it.
    """

    def __init__(self, name: str, path: list[str]) -> None:
        super().__init__(name)
        self.__path__ = path

    def __getattr__(self, attribute: str) -> Any:
        # To KerasHub, while it is being imported, this has what absence would have; other threads wait until it is.
        if attribute.startswith("__") or threading.get_ident() == _importer:
            raise AttributeError(f"{self.__name__} is not imported yet, so it has no {attribute!r} to read.")
        with _importing:
            pass
        if self.__name__ not in sys.modules:
            if attribute in _ASKED_FOR:
                return _ASKED_FOR[attribute]
            if getattr(_refusing, "is_on", False):
                raise ImportError(f"{self.__name__} is not imported for a tokenizer that works in Python.")
        return getattr(quiet.load(self.__name__), attribute)

    def executing_eagerly(self) -> bool:
        """Stand for TensorFlow's function of this name, by which KerasHub tells a graph, and a whole installation."""
        module = sys.modules.get(self.__name__)
        if module is None or module is self or not hasattr(module, "executing_eagerly"):  # or it is being imported
            return True
        return bool(module.executing_eagerly())


class _OfSerialization(_Deferred):
    """Stands for TensorFlow where Keras asks of each value that it writes whether it is one of TensorFlow's."""

    @property
    def available(self) -> bool:
        """Whether a value can be one."""
        return sys.modules.get(self.__name__) is not None


@contextmanager
def _deferring(names: tuple[str, ...]) -> Iterator[None]:
    """Let stand-ins be imported in place of these modules while the block runs, unless they are imported already."""
    global _importer
    stand_ins: dict[str, ModuleType] = {}
    for name in names:
        spec = None if name in sys.modules else _spec(name)
        if spec is not None and spec.origin is not None:  # a folder without `__init__.py` is what was left of one
            stand_ins[name] = _Deferred(name, list(spec.submodule_search_locations or ()))
            stand_ins[name].__spec__ = spec
    sys.modules.update(stand_ins)
    _importer = threading.get_ident()
    try:
        yield
    finally:
        _importer = None
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                for imported in [module for module in sys.modules if f"{module}.".startswith(f"{name}.")]:
                    del sys.modules[imported]


def _spec(name: str) -> ModuleSpec | None:
    """Return where a module is found; None where it isn't, or where a finder forbids it."""
    try:
        return find_spec(name)
    except (ImportError, ValueError):
        return None
