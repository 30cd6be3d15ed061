"""Lets a library be imported without packages that it seldom asks anything of.

They get stand-ins, each of which imports the real module when anything of it is asked for. They are in no other
module's way: once the library is imported, to import such a package means the real one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

from kerasgen import quiet

IMPORTING = threading.RLock()
"""Held while a library is imported with stand-ins; other threads that ask one for something wait for it."""

_importer: int | None = None  # the thread that imports a library at this moment


class StandIn(ModuleType):
    """Stands for a module that is imported when one of its attributes is asked for.

    Args:
        name: the module's name.
        path: where the package's own modules lie, which can be imported without it; None for no package.
    """

    def __init__(self, name: str, path: list[str] | None) -> None:
        super().__init__(name)
        if path is not None:
            self.__path__ = path

    def __getattr__(self, attribute: str) -> Any:
        # To the library, while it is being imported, this has what absence would have; other threads wait until it is.
        if attribute.startswith("__") or threading.get_ident() == _importer:
            raise AttributeError(f"{self.__name__} is not imported yet, so it has no {attribute!r} to read.")
        with IMPORTING:
            pass
        if self.__name__ not in sys.modules:
            return self._before(attribute)
        return getattr(quiet.load(self.__name__), attribute)

    def _before(self, attribute: str) -> Any:
        """Return an attribute that is asked for while the real module is not imported: by default, import it."""
        return getattr(quiet.load(self.__name__), attribute)


class _OfModule(type):
    """The type of classes that stand for those of a module: what is an instance of its own is one of theirs."""

    module: str

    def __instancecheck__(cls, value: object) -> bool:
        module = sys.modules.get(cls.module)
        own = None if module is None else vars(module).get(cls.__name__)
        return own is not None and isinstance(value, own)


class WithClasses(StandIn):
    """Stands for a module of which classes are asked, before it is imported, whether a value is one of theirs.

    Args:
        name: as in `StandIn`, as is the next.
        path: as above.
        classes: their names.
    """

    def __init__(self, name: str, path: list[str] | None, classes: tuple[str, ...]) -> None:
        super().__init__(name, path)
        for each in classes:
            self.__dict__[each] = _OfModule(each, (), {"module": name})


@contextmanager
def deferring(stand_ins: Mapping[str, ModuleType]) -> Iterator[None]:
    """Let stand-ins be imported in place of modules while the block runs, in this thread; `IMPORTING` must be held.

    Args:
        stand_ins: by the names of modules none of which is imported.
    """
    global _importer
    sys.modules.update(stand_ins)
    before, _importer = _importer, threading.get_ident()
    try:
        yield
    finally:
        _importer = before
        for name, stand_in in stand_ins.items():
            if sys.modules.get(name) is stand_in:
                for imported in [module for module in sys.modules if f"{module}.".startswith(f"{name}.")]:
                    del sys.modules[imported]


def spec_of(name: str) -> ModuleSpec | None:
    """Return where a module that is not imported is found.

    None where it isn't, or a finder forbids it, or it is a folder without `__init__.py`, which is what was left of one.
    """
    if name in sys.modules:
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else spec


def is_installed(name: str) -> bool:
    """Return whether a package can be imported; where a finder forbids it, or it stands as None among modules, not."""
    if name in sys.modules:
        return sys.modules[name] is not None
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


class _Answering(StandIn):
    """Stands for a module of which some attributes are taken while the library is imported, and used later, or never.

    Args:
        name: as in `StandIn`, as is the next.
        path: as above.
        answers: what those attributes are meanwhile.
    """

    def __init__(self, name: str, path: list[str] | None, answers: Mapping[str, Any]) -> None:
        super().__init__(name, path)
        self._answers = dict(answers)

    def __getattr__(self, attribute: str) -> Any:
        if threading.get_ident() == _importer and attribute in self.__dict__.get("_answers", {}):
            return self._answers[attribute]
        return super().__getattr__(attribute)


def _later(module: str, function: str) -> Any:
    """Return a function that calls one of a module, which it imports then."""

    def call(*arguments: Any, **settings: Any) -> Any:
        return getattr(quiet.load(module), function)(*arguments, **settings)

    return call


def of_keras(backend: str) -> dict[str, ModuleType]:
    """Return stand-ins for modules that Keras and its backend import for functions that are seldom called.

    Keras asks of pandas's classes whether a value is one of theirs, draws with matplotlib, sends figures to a server by
    requests, and shows files in a notebook by IPython. TensorFlow takes `jit` of JAX to convert JAX's functions to
    TFLite, and `issparse` of SciPy; JAX's own sparse matrices take SciPy's to solve equations.

    Args:
        backend: that Keras will run on.
    """
    made: dict[str, ModuleType] = {}
    for name in ("requests", "IPython"):
        spec = spec_of(name)
        if spec is not None:
            made[name] = StandIn(name, None)
            made[name].__spec__ = spec
    jax = spec_of("jax") if backend == "tensorflow" else None
    if jax is not None:  # Keras asks whether it has a function that only versions before those it works with lack
        monitoring = SimpleNamespace(record_scalar=_later("jax.monitoring", "record_scalar"))
        made["jax"] = _Answering("jax", None, {"jit": _later("jax", "jit"), "monitoring": monitoring})
        made["jax"].__spec__ = jax
    # Were scikit-learn there, Keras might import it, and it more of SciPy's than one function.
    if spec_of("scipy") is not None and not is_installed("sklearn"):
        for name, function in (("scipy.sparse", "issparse"), ("scipy.sparse.linalg", "spsolve")):
            made[name] = _Answering(name, [], {function: _later(name, function)})
            made[name].__spec__ = ModuleSpec(name, None, is_package=True)
    pandas, matplotlib = spec_of("pandas"), spec_of("matplotlib")
    if pandas is not None:
        made["pandas"] = WithClasses("pandas", None, ("Series", "DataFrame"))
        made["pandas"].__spec__ = pandas
    if matplotlib is not None:
        made["matplotlib"] = StandIn("matplotlib", list(matplotlib.submodule_search_locations or ()))
        made["matplotlib"].__spec__ = matplotlib
        for name in ("matplotlib.pyplot", "matplotlib.patches"):
            made[name] = StandIn(name, None)
            made[name].__spec__ = ModuleSpec(name, None)
    return made
