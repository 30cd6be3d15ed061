"""Chooses Keras's backend before Keras is imported; the only module that reads and sets KERAS_BACKEND."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from contextlib import nullcontext, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from kerasgen import cache, compiled_loops, deferred_imports, devices, fork_safety, freed_memory, garbage, quiet
from kerasgen.errors import ArgumentError, BackendError
from kerasgen.keywords import meant

Backend: TypeAlias = Literal["jax", "tensorflow", "torch"]

BACKENDS: tuple[Backend, ...] = ("jax", "tensorflow", "torch")
DEFAULT: Backend = "jax"
VARIABLE = "KERAS_BACKEND"
AUTO = "auto"
PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")


def check(backend: str) -> Backend:
    """Return `backend` if Keras has such a backend.

    Raises:
        ArgumentError: it has not.
    """
    if backend not in BACKENDS:
        raise ArgumentError(
            f"backend must be one of {', '.join(BACKENDS)}. Received: {backend!r}.{meant(backend, BACKENDS)}"
        )
    return backend


def running() -> Backend | None:
    """Return the backend that this process's Keras runs on, or None while Keras is not imported.

    It may be one of Keras's that `BACKENDS` doesn't have.
    """
    keras = sys.modules.get("keras")
    if keras is None:
        return None
    # Keras reads its backend in the first moments of being imported, which another thread may be about.
    config: Any = getattr(keras, "config", None) or sys.modules.get("keras.src.backend.config")
    return cast(Backend, config.backend()) if hasattr(config, "backend") else None


FOLLOWED = "Keras was running on it already"
_reason = FOLLOWED
_starting = threading.RLock()


def reason() -> str:
    """Return why this process runs on the backend that it runs on."""
    return _reason


def automatic() -> tuple[Backend, str]:
    """Return the backend that trains fastest on such a device as this, and why, without importing anything.

    It is JAX on a GPU, and on a CPU TensorFlow, whose matrix products are
    oneDNN's (a step of GPT-2 base took 17 s, and 25 s on JAX, on one AVX2 core). A process whose Keras runs already
    stays with it, and processes that train together are JAX's.
    """
    now = running()
    if now is not None:
        return _known(now), FOLLOWED
    if os.environ.get(PROCESSES):
        return "jax", f"{PROCESSES} is set, and several processes train together on JAX alone"
    if devices.nvidia_gpu():
        return "jax", "JAX measured faster on GPUs"
    if deferred_imports.is_installed("tensorflow"):
        return "tensorflow", "TensorFlow measured faster on CPUs"
    return "jax", "TensorFlow, which measured faster on CPUs, is not installed"


def agree(backend: str | None = None) -> Backend:
    """Return the backend that `use(backend)` would start, without importing anything; see `choose`."""
    return choose(backend)[0]


def choose(backend: str | None = None, *, trains: bool = False) -> tuple[Backend, str]:
    """Return the backend that `use(backend)` would start, and why, without importing anything.

    The order is: `backend`, then the one that Keras runs on already, then the variable KERAS_BACKEND, then what
    `automatic` says for what will train, and JAX for what will not: it starts faster than TensorFlow, and decodes
    Described models whichever backend Keras runs on. `"auto"` takes what `automatic` says in any case.

    Args:
        backend: a backend, `"auto"`, or None for no explicit choice.
        trains: whether a model will be trained.

    Raises:
        ArgumentError: Keras has no such backend.
        BackendError: Keras is imported already and runs on another one than `backend`, or on one that can't train.
    """
    now = running()
    if not backend and now in BACKENDS:
        return now, FOLLOWED
    asked = os.environ.get(VARIABLE)
    if not backend and asked and asked not in BACKENDS:
        raise ArgumentError(
            f"The environment variable {VARIABLE} must be one of {', '.join(BACKENDS)}. Received: {asked!r}."
            f"{meant(asked, BACKENDS)}"
        )
    if backend == AUTO or (trains and not backend and not asked):
        chosen, why = automatic()
    else:
        chosen = check(backend or asked or DEFAULT)
        why = (
            "it was asked for"
            if backend
            else f"{VARIABLE} says so"
            if asked
            else "it starts sooner than TensorFlow, and no training was asked for"
        )
    if now is not None and now != chosen:
        _known(now, chosen)
        raise BackendError(
            f"Keras was imported before and runs on {now!r}; {chosen!r} is asked for. A process has one backend. Pass "
            f"backend={now!r} to go on with this one, or begin a new process with {VARIABLE}={chosen} set before the "
            "first `import keras`."
        )
    return chosen, why


def _known(now: Backend, wanted: Backend = DEFAULT) -> Backend:
    """Return the backend that Keras runs on if it is one that can train.

    Raises:
        BackendError: it is not.
    """
    if now not in BACKENDS:
        raise BackendError(
            f"Keras was imported before and runs on {now!r}, which can't train. A process has one backend. Begin a new "
            f"process with {VARIABLE}={wanted} set before the first `import keras`."
        )
    return now


def use(backend: str | None = None, *, why: str | None = None) -> Backend:
    """Choose the backend as `choose` does, import Keras, and return the backend's name.

    Args:
        backend: as for `choose`. None goes on with the backend that Keras runs on: what a pipeline chose holds for all
            that it calls.
        why: what `reason` returns if this call starts the backend; None for what `choose` says.

    Raises:
        ArgumentError: Keras has no such backend.
        BackendError: Keras already runs on another backend than asked for, or the backend is not installed.
        ForkedError: it began in a process of which this one is a forked child.
    """
    fork_safety.begin(fork_safety.KERAS)
    with _starting:
        return _use(backend, why)


def _use(backend: str | None, why: str | None) -> Backend:
    chosen, usual_reason = choose(backend)
    if running() is not None:
        if chosen == "jax":
            keep_compiled()
            _join_others()
        return chosen
    _forget_broken_import()
    before = os.environ.get(VARIABLE)
    global _reason
    _reason = why or usual_reason
    os.environ[VARIABLE] = chosen
    _ask_for_onednn()
    try:
        seldom_used = deferred_imports.of_keras(chosen)
        kept = compiled_loops.used() if chosen == "tensorflow" else nullcontext()
        with garbage.put_off(), deferred_imports.IMPORTING, deferred_imports.deferring(seldom_used), kept:
            quiet.load("keras")
        import keras
    except ImportError as cause:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        _forget_broken_import()
        raise BackendError(
            f"Keras can't start on the backend {chosen!r}: {cause}. Install it, or choose another with "
            f"backend=… or {VARIABLE} ({', '.join(BACKENDS)})."
        ) from cause
    if keras.config.backend() != chosen:
        raise BackendError(
            f"Keras started on {keras.config.backend()!r} though {chosen!r} was asked for: another package has the "
            f"last word there. Set {VARIABLE} before Python starts."
        )
    if chosen == "jax":
        keep_compiled()
        _join_others()
    return chosen


def _join_others() -> None:
    """Connect this process to the others of a run, once, if the environment says that there are some.

    Raises:
        BackendError: it can't be.
    """
    if not os.environ.get(PROCESSES):
        return
    import jax
    import keras

    if jax.distributed.is_initialized():
        return
    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as cause:
        raise BackendError(
            f"{PROCESSES} is {os.environ[PROCESSES]!r}, and this process can't join the others: {cause} Name the first "
            "one's address in KERAS_DISTRIBUTION_JOB_ADDRESSES and this one's number in KERAS_DISTRIBUTION_PROCESS_ID, "
            "unless SLURM or a TPU does, and compute nothing with JAX before `fit`."
        ) from cause


def load_ahead() -> None:
    """Let a thread load TensorFlow's libraries into memory while this one does something else.

    Python would hold its lock meanwhile, for 0.4 s, as it imports Keras. Elsewhere than on Linux nothing happens, nor
    where TensorFlow is imported already or its libraries lie elsewhere.
    """
    if sys.platform != "linux" or "tensorflow" in sys.modules or running() is not None:
        return
    found = find_spec("tensorflow") if deferred_imports.is_installed("tensorflow") else None
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent
    paths = [folder / name for name in _LIBRARIES if (folder / name).is_file()]
    _ask_for_onednn()
    quiet.set_level()
    threading.Thread(target=_load, args=(paths,), name="kerasgen-libraries", daemon=True).start()


def _load(paths: list[Path]) -> None:
    """Load libraries by the system's own call, which Python's lock need not be held for; one that can't be is left."""
    with suppress(AttributeError, OSError):
        load = ctypes.CDLL(None).dlopen
        load.restype, load.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_int]
        for path in paths:
            load(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)


def _ask_for_onednn() -> None:
    """Let TensorFlow multiply by oneDNN, unless somebody said otherwise; before its libraries are loaded.

    It leaves oneDNN off on processors without AVX-512, and its own products reach half the speed there: 48 GFLOP/s
    against 83 on one core.
    """
    if devices.cpu_has_avx2():
        os.environ.setdefault(ONEDNN, "1")


def _forget_broken_import() -> None:
    """Remove the modules of a failed `import keras`, which remember their backend, so that another can start."""
    if "keras" not in sys.modules:
        for module in [name for name in sys.modules if name.startswith("keras.")]:
            del sys.modules[module]


_compiled: str | None = None
_COMPILED = "/jax/core/compile/backend_compile_duration"
_MUCH_TO_COMPILE = 0.5  # seconds; what takes less leaves little behind
_LEAST_FREE = 1 << 28  # bytes; a run compiles some tens of MB
_LEAST_KEPT = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


def keep_compiled() -> None:
    """Let JAX keep on disk what it compiles, for later processes, unless its own settings say where to, or not to.

    It lies in the directory that the variable KERASGEN_CACHE names, or in the user's cache directory. What took less
    than a second is kept too: a model is made and a run begins by a hundred such programs.
    """
    import jax

    global _compiled
    kept = cache.directory() / "jax"
    is_unsaid = jax.config.jax_compilation_cache_dir is None and jax.config.jax_enable_compilation_cache
    # Else JAX warns at each program that it can't keep it, and leaves files cut off, which it never writes anew.
    if is_unsaid and cache.is_writable(kept) and cache.has_room(kept, _LEAST_FREE):
        cache.remove_empty(kept)
        _compiled = str(kept)
        jax.config.update("jax_compilation_cache_dir", _compiled)
    if _compiled is not None and jax.config.jax_compilation_cache_dir == _compiled:
        for setting, least in _LEAST_KEPT.items():
            if setting.upper() not in os.environ:
                jax.config.update(setting, least)
    _give_back_after_compiling()


@lru_cache
def _give_back_after_compiling() -> None:
    """Let memory that a compiler leaves behind go before the graph runs: 0.35 GB of a training step's (see the log)."""
    import jax

    def compiled(event: str, seconds: float, **_: object) -> None:
        if event == _COMPILED and seconds > _MUCH_TO_COMPILE:
            freed_memory.give_back()

    jax.monitoring.register_event_duration_secs_listener(compiled)
