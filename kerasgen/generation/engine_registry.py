"""Resolves an engine's name and a model to an `Engine`, and imports the engine only then."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from kerasgen import fork_safety
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.engine import Engine
from kerasgen.models.base import LanguageModel

NAMES = ("auto", "keras")


@runtime_checkable
class EngineSource(Protocol):
    """Provides another engine than Keras's for a model, such as one that decodes an artefact of its weights."""

    def engine(self, model: LanguageModel, *, longest: int) -> Engine:
        """Return the engine of the model's present weights.

        Args:
            model: the model whose texts are generated.
            longest: tokens of the longest text, its prompt with them.
        """


def resolve(model: LanguageModel | Engine, engine: str | EngineSource = "auto", *, longest: int = 0) -> Engine:
    """Return the engine that decodes `model`.

    Args:
        model: a `LanguageModel`, or an engine, which is returned as it is.
        engine: `"keras"` or `"auto"` decodes with the backend that Keras runs on; or what brings another engine.
        longest: as in `EngineSource.engine`.

    Raises:
        ForkedError: the model was made in a process of which this one is a forked child.
        GenerateArgumentError: there is no such engine, or `model` is one already and another is asked for.
    """
    if isinstance(engine, str) and engine not in NAMES:
        raise GenerateArgumentError(
            f"`engine` must be one of {', '.join(NAMES)}, or through a Pipeline litert. Received: engine={engine!r}."
        )
    if not isinstance(engine, (str, EngineSource)):
        raise GenerateArgumentError(f"`engine` must be a name, such as 'keras'. Received: engine={engine!r}.")
    if not isinstance(model, LanguageModel):
        if engine not in ("auto", model.name):
            raise GenerateArgumentError(f"This is an engine of its own, {model.name!r}. Received: engine={engine!r}.")
        return model
    fork_safety.check(fork_safety.KERAS)
    return _keras(model) if isinstance(engine, str) else engine.engine(model, longest=longest)


def _keras(model: LanguageModel) -> Engine:
    """Return the engine of a Keras model: the JAX engine for decoders that it knows, on any backend of Keras."""
    from kerasgen import backend

    backend.use()
    from kerasgen.generation import jax_weights

    if jax_weights.is_known(model):
        return jax_weights.engine_of(model)
    from kerasgen.generation.keras_engine import KerasEngine

    return KerasEngine(model)
