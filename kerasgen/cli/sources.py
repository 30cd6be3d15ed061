"""Opens what a command names, a saved pipeline, a model or an artefact, and reads standard input."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen import locations, specs
from kerasgen.errors import ArgumentError
from kerasgen.files import staging, temporary
from kerasgen.models import addresses
from kerasgen.samplers import resolving

if TYPE_CHECKING:
    from kerasgen.generation.config import GenerationConfig
    from kerasgen.generation.engine import TextSpace
    from kerasgen.models.base import WeightsDtype
    from kerasgen.pipeline import Pipeline

STANDARD_INPUT = "-"
_NO_CHAT = "it predicts masked tokens and has no conversations. Write a text with `kerasgen generate`."
ANSWER_TOKENS = 256
"""Tokens of an artefact's answer at most, where the command doesn't say."""


def is_artefact(source: str) -> bool:
    """Return whether an exported artefact is meant, there or not."""
    with contextlib.suppress(OSError):  # what a kill left half exchanged is exchanged first
        staging.recover(Path(source).expanduser().absolute())
    if addresses.is_hub_address(source):
        path = addresses.hub_address(source).path
        return bool(path) and not addresses.is_gguf(path)
    place = locations.look(source)
    if place.kind != "nothing" or "://" in source:
        return place.kind in ("artefact", "file")
    from kerasgen.exporters.registry import claimants

    return bool(Path(source).suffix and claimants(Path(source)))


def pipeline_of_recipe(path: str, assignments: Sequence[str] | None) -> Pipeline:
    """Return the pipeline of a recipe's file, with the settings of `--set` in the place of its own.

    Raises:
        ArgumentError: the recipe has faults.
    """
    from kerasgen.pipeline import Pipeline
    from kerasgen.recipes import assigning, reading

    pipeline = reading.read(Path(path), Pipeline, assignments=assigning.parsed(assignments or ())).pipeline
    assert isinstance(pipeline, Pipeline)
    return pipeline


def open_pipeline(
    source: str, *, backend: str | None, weights: WeightsDtype | None = None, chat_template: str | None = None
) -> Pipeline:
    """Return the saved pipeline, or one of the model, that the text stands for.

    Raises:
        ArgumentError: it is an artefact, which only generates.
        KerasgenError: it is neither.
    """
    from kerasgen.pipeline import Pipeline

    if is_artefact(source):
        raise ArgumentError(
            f"{source!r} is an artefact, which only generates. Give the saved pipeline or the model that it came from."
        )
    is_whole = addresses.is_hub_address(source) and not addresses.hub_address(source).path
    if is_whole and chat_template is None:  # a saved pipeline or a model
        return Pipeline(source, backend=backend, weights=weights)
    if locations.look(source).kind == "pipeline":
        if chat_template is not None:
            raise ArgumentError(f"{source!r} is a saved pipeline and keeps its template. Leave `chat_template` out.")
        return Pipeline.load(source, backend=backend, weights=weights)
    return Pipeline(model=source, backend=backend, weights=weights, chat_template=chat_template)


def read_prompts(*, whole: bool = False) -> list[str]:
    """Return the prompts of standard input: a line each, or all of it as one.

    Args:
        whole: one prompt, which is exactly what stands there, the end of its last line included.

    Raises:
        ArgumentError: it is empty, or no UTF-8.
    """
    content = sys.stdin.buffer.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise ArgumentError(f"Standard input must be UTF-8: {cause}.") from None
    if not text:
        raise ArgumentError("Standard input is empty, so there is no prompt.")
    if whole:
        return [text]
    # Lines as Unix tools know them: a form feed or a paragraph separator is a part of one.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def as_text(argument: str) -> str:
    """Return an argument of the command line as the UTF-8 that it is, whatever encoding Python took it for.

    Raises:
        ArgumentError: its bytes are no UTF-8.
    """
    if not any("\udc80" <= character <= "\udcff" for character in argument):
        return argument
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise ArgumentError(f"A prompt must be UTF-8. Received: {argument!r}.") from None


def corpus_of(text: str | None) -> Any:
    """Return the corpus that the text stands for; that of standard input has a document for each paragraph."""
    if text != STANDARD_INPUT:
        return text
    from kerasgen.corpora.files import Text

    with temporary.folder() as folder:
        file = Path(folder) / "standard input"
        with file.open("wb") as copied:
            while piece := sys.stdin.buffer.read(1 << 20):
                copied.write(piece)
        texts = [document.text for document in Text(file, split="paragraph").documents()]
    if not texts:
        raise ArgumentError("Standard input holds no text, so there is no corpus.")
    return texts


class PipelineWriter:
    """Writes with a pipeline.

    Args:
        source: a saved pipeline or a model.
        backend: as `Pipeline` takes it.
        weights: as `Pipeline` takes it.
        chat_template: as `Pipeline` takes it.
    """

    def __init__(
        self,
        source: str,
        *,
        backend: str | None,
        weights: WeightsDtype | None = None,
        chat_template: str | None = None,
    ) -> None:
        self._pipeline = open_pipeline(source, backend=backend, weights=weights, chat_template=chat_template)

    @property
    def sampler(self) -> Any:
        """The sampler that is used if the command names none."""
        return self._pipeline.sampler

    @property
    def config(self) -> GenerationConfig:
        """The settings where the command doesn't say others: those that the pipeline was saved with."""
        return self._pipeline.generation_config

    @property
    def space(self) -> TextSpace:
        """The tokenizer and the number of positions."""
        return self._pipeline.text_space

    def generate(self, prompts: list[str], settings: dict[str, Any]) -> list[Any]:
        """Return a text for each prompt, or several where the settings ask for a number of them."""
        return self._pipeline.generate(prompts, **settings)  # type: ignore[no-any-return]

    def stream(self, prompt: str, settings: dict[str, Any]) -> Iterator[str]:
        """Yield a text piece by piece."""
        return self._pipeline.stream(prompt, **settings)

    def check_chat(self) -> None:
        """Load the model, and raise unless it answers.

        Raises:
            GenerateArgumentError: it is a masked language model.
            ChatTemplateError: it has no chat template.
        """
        self._pipeline._check_causal("chat", _NO_CHAT)
        model = self._pipeline.model
        from kerasgen.models import chat

        chat.needed(model)

    def chat_stream(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> Iterator[str]:
        """Yield an answer piece by piece, or all at once where the sampler knows it only when it is complete."""
        from kerasgen.samplers.base import TokenSampler
        from kerasgen.samplers.lookahead import Contrastive

        if isinstance(resolving.resolve(settings.get("sampler") or self.sampler), (TokenSampler, Contrastive)):
            return self._pipeline.chat_stream(messages, **settings)
        return iter([self._pipeline.chat(messages, **settings)])


class ArtefactWriter:
    """Writes with an artefact.

    Args:
        source: its path.
    """

    def __init__(self, source: str) -> None:
        from kerasgen.runtime import load_artefact
        from kerasgen.runtime.masked import MaskedRuntime

        self._source = source
        self._runtime = load_artefact(source)
        if isinstance(self._runtime, MaskedRuntime):
            raise ArgumentError(
                f"{source!r} predicts masked tokens and writes no text. Fill masks in Python, with "
                "kg.load_artefact(…).fill(…), or write with the pipeline that it was exported from."
            )

    @property
    def sampler(self) -> Any:
        """The sampler that is used if the command names none."""
        return "greedy"

    @property
    def config(self) -> GenerationConfig:
        """The settings where the command doesn't say others: the defaults."""
        from kerasgen.generation.config import GenerationConfig

        return GenerationConfig()

    @property
    def space(self) -> TextSpace:
        """The tokenizer and the number of positions."""
        return self._runtime

    def generate(self, prompts: list[str], settings: dict[str, Any]) -> list[Any]:
        """Return a text for each prompt, or several where the settings ask for a number of them."""
        if self._runtime.engine is not None:
            return self._runtime.generate(prompts, **settings)
        copies = settings.pop("num_return_sequences", None)
        if copies is not None:
            specs.check_whole("num_return_sequences", copies, least=1)
        self._check(settings)
        texts = list(self._runtime.generate([prompt for prompt in prompts for _ in range(copies or 1)], **settings))
        return texts if copies is None else [texts[n : n + copies] for n in range(0, len(texts), copies)]

    def stream(self, prompt: str, settings: dict[str, Any]) -> Iterator[str]:
        """Yield a text piece by piece; all at once where the format's runtime gives it so."""
        if self._runtime.engine is None:
            yield from self.generate([prompt], settings)
        else:
            yield from self._runtime.stream(prompt, **settings)

    def check_chat(self) -> None:
        """Raise a `ChatTemplateError` unless the artefact has a chat template."""
        self._runtime.needed_template()

    def chat_stream(self, messages: list[dict[str, str]], settings: dict[str, Any]) -> Iterator[str]:
        """Yield an answer piece by piece; all at once where the format's runtime gives it so."""
        settings.setdefault("max_new_tokens", ANSWER_TOKENS)
        if self._runtime.engine is None:
            self._check(settings)
            yield self._runtime.chat(messages, **settings)
        else:
            yield from self._runtime.chat_stream(messages, **settings)

    def _check(self, settings: dict[str, Any]) -> None:
        from kerasgen.generation.config import ArtefactSettings, taken

        foreign = [f"`{name}`" for name in settings if name not in taken(ArtefactSettings)]
        if foreign:
            raise ArgumentError(
                f"The runtime of {self._source!r} knows no {', '.join(foreign)}. Leave them out, or generate with the "
                "pipeline that it was exported from."
            )


def open_writer(
    source: str, *, backend: str | None, weights: WeightsDtype | None = None, chat_template: str | None = None
) -> PipelineWriter | ArtefactWriter:
    """Return a writer for the text that names a saved pipeline, a model or an artefact.

    Raises:
        ArgumentError: a backend or a dtype of weights is asked for, and an artefact has its own.
        KerasgenError: it is none of them.
    """
    if not is_artefact(source):
        return PipelineWriter(source, backend=backend, weights=weights, chat_template=chat_template)
    for name, value in (("backend", backend), ("weights", weights), ("chat_template", chat_template)):
        if value is not None:
            raise ArgumentError(f"{source!r} is an artefact and runs without Keras. Leave `{name}` out.")
    return ArtefactWriter(source)
