"""Which engine decodes: a name and a model become an `Engine`. The engines are imported when one is asked for."""

from __future__ import annotations

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.engine import Engine
from kerasgen.models.base import LanguageModel

NAMES = ("auto", "keras", "litert")


def resolve(model: LanguageModel | Engine, engine: str = "auto") -> Engine:
    """Return the engine that decodes `model`.

    Args:
        model: a `LanguageModel`, or an engine, which is returned as it is.
        engine: `"keras"` decodes with the backend that Keras runs on. `"auto"` chooses, and never one that could give
            other ids.

    Raises:
        GenerateArgumentError: there is no such engine, or `model` is one already and another is asked for.
    """
    if engine not in NAMES:
        raise GenerateArgumentError(f"`engine` must be one of {', '.join(NAMES)}. Received: engine={engine!r}.")
    if not isinstance(model, LanguageModel):
        if engine not in ("auto", model.name):
            raise GenerateArgumentError(f"This is an engine of its own, {model.name!r}. Received: engine={engine!r}.")
        return model
    if engine == "litert":
        raise GenerateArgumentError("Export the model to LiteRT first, and generate from the artefact.")
    return _keras(model)


def _keras(model: LanguageModel) -> Engine:
    """The engine of a Keras model: JAX's own for the decoders that it knows, on whatever backend Keras runs."""
    from kerasgen import backend

    backend.use()
    from kerasgen.generation import jax_weights

    if jax_weights.is_known(model):
        return jax_weights.engine_of(model)
    from kerasgen.generation.keras_engine import KerasEngine

    return KerasEngine(model)
