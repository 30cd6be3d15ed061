"""`engine="litert"` decodes a model in memory by LiteRT, from an artefact that is written once and cached.

The artefact lies in the cache directory under a digest of the weights, the tokenizer and the graph's sizes. It is the
exporter's own, so it was proved against the model before it decodes anything.

`"auto"` never comes here: to write an artefact takes minutes, several texts are faster by JAX, and int8 writes other
texts. So it must be asked for, and pays for one greedy or top-k text at a time (see the page of speeds).
"""

from __future__ import annotations

import hashlib
import logging
import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen import cache as caches
from kerasgen import specs
from kerasgen.errors import GenerateArgumentError, ModelFormatError
from kerasgen.exporters.tflite.exporter import QUANTIZATIONS, TFLiteExporter
from kerasgen.files import locking
from kerasgen.keywords import meant

if TYPE_CHECKING:
    from kerasgen.exporters.tflite.runtime import LiteRtEngine
    from kerasgen.generation.engine import Engine
    from kerasgen.models.base import LanguageModel

_SHORTEST = 256  # tokens of a cache; the exporter's own default

_LOG = logging.getLogger("kerasgen")


def resolve(engine: Any, cache: str | os.PathLike[str] | None = None) -> Any:
    """Convert an `engine` argument such as `"litert:threads=2"` to an engine source.

    Args:
        engine: `"litert"` or `"litert:quantize=int8,threads=2"`; every other value is returned as it is.
        cache: the directory in which artefacts are kept; None for the environment variable KERASGEN_CACHE, or the
            user's cache directory.

    Raises:
        GenerateArgumentError: an argument of `"litert:…"` is unknown or out of range.
    """
    if not isinstance(engine, str) or engine.partition(":")[0].strip() != "litert":
        return engine
    name, arguments = specs.split_text(engine, error=GenerateArgumentError)
    settings: Mapping[str, Any] = arguments if cache is None else {"cache": os.fspath(cache)} | arguments
    return specs.build(LiteRt, settings, name=name, error=GenerateArgumentError)


@dataclass(frozen=True)
class LiteRt:
    """Decode by LiteRT, with an artefact that is exported first if there is none of these weights yet.

    In float32 its ids are those of the other engines; it shows on the spot what the artefact will write. In int8 it
    reads a quarter of the bytes for each token. Either way it decodes one text after the other: fast for one, slow for
    many.

    Args:
        quantize: how the artefact's weights are stored. In float32 alone the ids are the model's own.
        threads: the number of threads that LiteRT may use; None for as many as the process has processors.
        cache: the directory in which artefacts are kept; None as in `resolve`.
    """

    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"
    threads: int | None = None
    cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.quantize not in QUANTIZATIONS:
            raise GenerateArgumentError(
                f"quantize must be one of {', '.join(QUANTIZATIONS)}. Received: {self.quantize!r}."
                f"{meant(self.quantize, QUANTIZATIONS)}"
            )
        threads = self.threads
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise GenerateArgumentError(f"threads must be a whole number of at least 1. Received: {threads!r}.")

    def engine(self, model: LanguageModel, *, longest: int) -> Engine:
        """Return the engine of these weights; see `kerasgen.generation.engine_registry.EngineSource`.

        Raises:
            GenerateArgumentError: LiteRT can't decode this model.
            MissingDependencyError: what exports or runs the artefact is not installed.
            ExportError: the artefact could not be written, or did not prove equal.
        """
        _check_architecture(model)
        length = _cache_length(model, longest)
        engine = _kept(model, self, length)
        if engine is None:
            path = _path(model, self, length)
            # Of several threads and processes that want the same artefact, one writes it and the others wait.
            with caches.in_use(self.cache), locking.locked(path.with_suffix(".engine"), wait=True):
                engine = _kept(model, self, length) or _exported(model, self, length, path)
            _keep(model, self, length, engine)
        return engine


class _Kept:
    """The engines made for one state of a model's variables."""

    def __init__(self, state: tuple[Any, ...]) -> None:
        self.state = state
        self.digest: str | None = None
        self.engines: dict[tuple[Any, ...], LiteRtEngine] = {}


_KEPT: weakref.WeakKeyDictionary[Any, _Kept] = weakref.WeakKeyDictionary()


def _state(model: LanguageModel) -> _Kept:
    """Return the entry for the model's present weights, a new one if they changed."""
    from kerasgen.generation import jax_weights

    state, engines = jax_weights.state_of(model), _KEPT.get(model.network)
    if engines is None or not jax_weights.is_same(engines.state, state):
        engines = _KEPT[model.network] = _Kept(state)
    return engines


def _key(model: LanguageModel, source: LiteRt, length: int) -> tuple[Any, ...]:
    return source.quantize, _threads(source), length, model.tokenizer.digest(), _folder(source.cache)


def _kept(model: LanguageModel, source: LiteRt, length: int) -> LiteRtEngine | None:
    return _state(model).engines.get(_key(model, source, length))


def _keep(model: LanguageModel, source: LiteRt, length: int, engine: LiteRtEngine) -> None:
    _state(model).engines[_key(model, source, length)] = engine


def _check_architecture(model: LanguageModel) -> None:
    from kerasgen.models import architectures, described
    from kerasgen.tokens.bpe import ByteLevelBPE
    from kerasgen.tokens.pretrained import PretrainedTokenizer

    if described.config_of(model) is None or not isinstance(model.tokenizer, (ByteLevelBPE, PretrainedTokenizer)):
        raise GenerateArgumentError(
            f"LiteRT decodes models of {', '.join(architectures.backbones())} whose tokenizer one file holds. "
            f"Received: a {described.name_of(model)} with a {type(model.tokenizer).__name__}. Use engine='keras'."
        )


def _cache_length(model: LanguageModel, longest: int) -> int:
    """Return the cache length for texts of so many tokens: a power of two, because longer caches cost time."""
    length = _SHORTEST
    while length < longest:
        length *= 2
    positions = model.max_sequence_length
    return length if positions is None else min(length, positions)


def _folder(cache: str | os.PathLike[str] | None) -> Path:
    return caches.directory(cache) / "engines"


def _path(model: LanguageModel, source: LiteRt, length: int) -> Path:
    from kerasgen import __version__

    identity = f"{__version__} {source.quantize} {length} {model.tokenizer.digest()} {_digest(model)}"
    name = f"{_fingerprint(model)}-{hashlib.sha256(identity.encode()).hexdigest()[:32]}.tflite"
    return _folder(source.cache) / name


def _fingerprint(model: LanguageModel) -> str:
    from kerasgen.generation.jobs import fingerprint

    return fingerprint(model)[:16]


def _digest(model: LanguageModel) -> str:
    """Return a digest of every weight, adapters merged, and of the decoder's description."""
    engines = _state(model)
    if engines.digest is None:
        import numpy as np

        from kerasgen.decoder.weights import flat
        from kerasgen.models.described import decoder_of

        config, weights = decoder_of(model)
        sha256 = hashlib.sha256(repr(config).encode())
        for array in flat(weights).values():
            sha256.update(np.ascontiguousarray(array).data)
        engines.digest = sha256.hexdigest()
    return engines.digest


def _exported(model: LanguageModel, source: LiteRt, length: int, path: Path) -> LiteRtEngine:
    if not path.exists():
        _export(model, source, length, path)
    try:
        return _load(path, source)
    except ModelFormatError:  # what lies in a cache may be cut off or half removed
        _export(model, source, length, path)
        return _load(path, source)


def _export(model: LanguageModel, source: LiteRt, length: int, path: Path) -> None:
    _LOG.warning("Writing an artefact of these weights for LiteRT, once, into %s.", path.parent)
    for damaged in [file for file in path.parent.glob("*") if file.name.startswith(f"{path.stem}.")]:
        damaged.unlink(missing_ok=True)
    TFLiteExporter(quantize=source.quantize, cache_length=length).export(model, path, overwrite=True)


def _load(path: Path, source: LiteRt) -> LiteRtEngine:
    from kerasgen.runtime import load_artefact

    weight_cache = path.with_suffix(".xnnpack")
    runtime: Any = load_artefact(path, threads=_threads(source), weight_cache=weight_cache)
    engine: LiteRtEngine = runtime.engine
    return engine


def _threads(source: LiteRt) -> int:
    if source.threads is not None:
        return source.threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
