"""Opens what is served: a saved pipeline, a model or an artefact, as a tokenizer, a chat template and a decoder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import locations
from kerasgen.chat.template import ChatTemplate
from kerasgen.errors import GenerateArgumentError
from kerasgen.samplers.base import TokenSampler
from kerasgen.serving.scheduler import Decoder
from kerasgen.serving.settings import ServerSettings
from kerasgen.tokens.base import Tokenizer

if TYPE_CHECKING:
    from kerasgen.models.base import WeightsDtype
    from kerasgen.pipeline import Pipeline


@dataclass(frozen=True)
class ServedModel:
    """A model that is served.

    Args:
        name: that clients call it by.
        tokenizer: its tokenizer.
        max_sequence_length: positions that a text may have, or None.
        sampler: chooses tokens where a request says nothing.
        decoder: writes texts.
        template: writes conversations, or None.
    """

    name: str
    tokenizer: Tokenizer
    max_sequence_length: int | None
    sampler: TokenSampler
    decoder: Decoder
    template: ChatTemplate | None


def open_model(
    source: str | os.PathLike[str] | Pipeline,
    settings: ServerSettings,
    *,
    backend: str | None = None,
    weights: WeightsDtype | None = None,
    chat_template: str | None = None,
) -> ServedModel:
    """Return what is served.

    Args:
        source: a saved pipeline's directory, a model, an exported artefact, or a `Pipeline`.
        settings: of the server.
        backend: that Keras runs on, for a pipeline or a model.
        weights: as `Pipeline` takes it.
        chat_template: as `Pipeline` takes it.

    Raises:
        GenerateArgumentError: it is a masked language model, which writes no text from left to right.
        KerasgenError: it can't be opened.
    """
    if isinstance(source, (str, os.PathLike)):
        place = locations.look(source)
        if place.kind == "artefact":
            for name, value in (("backend", backend), ("weights", weights), ("chat_template", chat_template)):
                if value is not None:
                    raise GenerateArgumentError(f"{os.fspath(source)!r} is an artefact. Leave `{name}` out.")
            return _of_artefact(place.path, settings)
        return _of_pipeline(_pipeline(os.fspath(source), place.kind, backend, weights, chat_template), source, settings)
    return _of_pipeline(source, source.model.source, settings)


def _pipeline(
    source: str, kind: str, backend: str | None, weights: WeightsDtype | None, chat_template: str | None
) -> Pipeline:
    from kerasgen.pipeline import Pipeline

    if kind != "pipeline":
        return Pipeline(model=source, backend=backend, weights=weights, chat_template=chat_template)
    if chat_template is not None:
        raise GenerateArgumentError(
            f"{source!r} is a saved pipeline and keeps its template. Leave `chat_template` out."
        )
    return Pipeline.load(source, backend=backend, weights=weights)


def _of_pipeline(pipeline: Pipeline, source: str | os.PathLike[str], settings: ServerSettings) -> ServedModel:
    model: Any = pipeline.model
    from kerasgen.generation import engine_registry
    from kerasgen.models import chat
    from kerasgen.models.base import LanguageModel

    if not isinstance(model, LanguageModel):
        raise GenerateArgumentError(
            f"A masked language model can't be served: it writes no text from left to right. Received: {model!r}."
        )
    template = chat.template_of(model)
    engine: Any = engine_registry.resolve(model, "auto")
    sampler = pipeline.sampler if isinstance(pipeline.sampler, TokenSampler) else _greedy()
    decoder = decoder_of(engine, settings.batch_size)
    name = settings.model_name or _name(source)
    return ServedModel(name, model.tokenizer, model.max_sequence_length, sampler, decoder, template)


def decoder_of(engine: Any, batch_size: int) -> Decoder:
    """Return what writes texts with an engine: together where it is JAX's."""
    from kerasgen.generation.jax_engine import JaxEngine

    if isinstance(engine, JaxEngine):
        from kerasgen.serving.jax_slots import JaxSlots

        return JaxSlots(engine, batch_size)
    from kerasgen.serving.one_at_a_time import EngineSlot

    return EngineSlot(engine)


def _of_artefact(path: Path, settings: ServerSettings) -> ServedModel:
    from kerasgen.runtime import load_artefact
    from kerasgen.runtime.masked import MaskedRuntime
    from kerasgen.serving.one_at_a_time import EngineSlot, RuntimeSlot

    runtime = load_artefact(path)
    if isinstance(runtime, MaskedRuntime):
        raise GenerateArgumentError(
            "An artefact of a masked language model can't be served: it writes no text from left to right. "
            f"kerasgen.load_artefact({str(path)!r}).fill(…) fills its masks."
        )
    decoder: Decoder = RuntimeSlot(runtime) if runtime.engine is None else EngineSlot(runtime.engine)
    name = settings.model_name or _name(path)
    template = runtime.chat_template
    return ServedModel(name, runtime.tokenizer, runtime.max_sequence_length, _greedy(), decoder, template)


def _greedy() -> TokenSampler:
    from kerasgen.samplers.sampling import Greedy

    return Greedy()


def _name(source: str | os.PathLike[str]) -> str:
    return Path(source).expanduser().name or os.fspath(source)
