"""Imports KerasHub; on JAX without TensorFlow, which takes longer to import than all else and is seldom needed there.

KerasHub's modules import TensorFlow and TensorFlow Text for their preprocessing, and Kaggle's client, which few presets
come by. Here they get stand-ins, each of which
imports the real module when anything of it is asked for. They are in no other module's way: once KerasHub is imported,
`import tensorflow` means the real one. The cache of KerasHub's byte-pair tokenizer is then no `tf.Module`, as where
TensorFlow is absent; whoever saves that tokenizer in a TensorFlow graph imports TensorFlow before kerasgen.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Container
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from kerasgen import backend, deferred_imports, quiet
from kerasgen.models import task_classes

_DEFERRED = ("tensorflow", "tensorflow_text")
_OF_HUBS = ("hf", "kaggle", "modelscope")
# Classes that KerasHub asks of any value whether it is one. Nothing is before TensorFlow is imported.
_ASKED_FOR = {name: type(name, (), {}) for name in ("Tensor", "RaggedTensor", "SparseTensor")}
_refusing = threading.local()
_making_tables = threading.RLock()


def load() -> ModuleType:
    """Import Keras as `backend.use` does and then KerasHub, without what its libraries print, and return it."""
    is_jax = backend.use() == "jax"
    with deferred_imports.IMPORTING:
        if "keras_hub" in sys.modules:
            task_classes.keep_bases()  # a person may have imported it
            return import_module("keras_hub")
        with deferred_imports.deferring(_stand_ins(_DEFERRED if is_jax else _DEFERRED[1:]) | _of_kaggle()):
            keras_hub = quiet.load("keras_hub")
        if is_jax:
            presets: Any = import_module("keras_hub.src.utils.preset_utils")
            presets.tf_registered_schemes = functools.partial(_Schemes, presets.tf_registered_schemes)
            import_module("keras.src.saving.serialization_lib").__dict__["tf"] = _OfSerialization("tensorflow", [])
        task_classes.keep_bases()
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


class _Deferred(deferred_imports.StandIn):
    """Stands for TensorFlow or TensorFlow Text."""

    def _before(self, attribute: str) -> Any:
        if attribute in _ASKED_FOR:
            return _ASKED_FOR[attribute]
        if getattr(_refusing, "is_on", False):
            raise ImportError(f"{self.__name__} is not imported for a tokenizer that works in Python.")
        return super()._before(attribute)

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


class _Kaggle(deferred_imports.StandIn):
    """Stands for `kagglehub`, and puts its own error where KerasHub catches it."""

    def __getattr__(self, attribute: str) -> Any:
        value = super().__getattr__(attribute)
        presets: Any = import_module("keras_hub.src.utils.preset_utils")
        presets.KaggleApiHTTPError = import_module("kagglehub.exceptions").KaggleApiHTTPError
        return value


def _of_kaggle() -> dict[str, ModuleType]:
    """Return stand-ins for `kagglehub`, whose import takes half a second, and for the module of its errors."""
    spec = deferred_imports.spec_of("kagglehub")
    if spec is None:
        return {}
    kaggle, errors = (
        _Kaggle("kagglehub", list(spec.submodule_search_locations or ())),
        ModuleType("kagglehub.exceptions"),
    )
    kaggle.__spec__, errors.__spec__ = spec, ModuleSpec(errors.__name__, None)
    errors.__dict__["KaggleApiHTTPError"] = type("KaggleApiHTTPError", (Exception,), {})
    return {"kagglehub": kaggle, errors.__name__: errors}


def _stand_ins(names: tuple[str, ...]) -> dict[str, ModuleType]:
    """Return one for each of these modules that is there to be imported, and isn't yet."""
    made: dict[str, ModuleType] = {}
    for name in names:
        spec = deferred_imports.spec_of(name)
        if spec is not None:
            made[name] = _Deferred(name, list(spec.submodule_search_locations or ()))
            made[name].__spec__ = spec
    return made
