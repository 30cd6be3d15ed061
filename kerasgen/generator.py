"""The generating half of a pipeline: texts for prompts, into a list, a file or a stream."""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from kerasgen import belonging, constraints
from kerasgen.constraints.base import Constraint
from kerasgen.errors import GenerateArgumentError
from kerasgen.exporters.tflite import engine as litert_engine
from kerasgen.keywords import Checked, checked
from kerasgen.models.base import LanguageModel, ModelSource
from kerasgen.samplers import resolving as samplers_resolving
from kerasgen.samplers.base import SamplerSpec

if TYPE_CHECKING:
    from kerasgen.generation.engine import Engine, TextSpace
    from kerasgen.generation.prompt import Prompt


class _Generating(TypedDict, total=False):
    """What `Pipeline.generate` takes, whichever way its texts come."""

    max_length: int | None
    max_new_tokens: int | None
    sampler: Any
    stop: str | Sequence[str] | None
    constraint: str | Constraint | None
    valid_utf8: bool
    return_prompt: bool
    seed: int | Sequence[int] | None
    batch_size: int
    engine: str
    progress: bool | None


_ELSEWHERE = belonging.elsewhere(("prompts", "prompt", "path", *_Generating.__annotations__, *belonging.GENERATE))


class _Resolved(TypedDict):
    """What a call says of its own, and the pipeline where the call says nothing."""

    sampler: Any
    constraint: Constraint | None
    seed: Any  # one number, or one for each prompt where the call takes so many


class Generator(metaclass=Checked):
    """A model with a sampler and a seed, and the ways to have text from them.

    Args:
        model_source: where the model comes from, which is loaded when it is first asked for.
        sampler: of calls that don't bring their own.
        seed: of calls and samplers that have none of their own.
        cache: the directory for what is made once; None for the user's.
    """

    def __init__(
        self, model_source: ModelSource, sampler: SamplerSpec | Any, seed: int, cache: str | os.PathLike[str] | None
    ) -> None:
        self.model_source = model_source
        self.sampler = sampler
        self.seed = seed
        self.cache = None if cache is None else Path(cache)
        self._model: LanguageModel | None = None
        self._stored_engine: Engine | None = None
        self._loading = threading.RLock()
        self._adapters: Path | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the lock, which a copy has of its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_loading"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state, and a lock."""
        self.__dict__.update(state, _loading=threading.RLock())

    @property
    @abstractmethod
    def model(self) -> LanguageModel:
        """The model with its tokenizer."""

    @property
    def text_space(self) -> TextSpace:
        """The tokenizer and the number of positions, without loading Keras where the model's files tell them."""
        return self._decodes(self.sampler, "auto")[0]

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too, and the first match counts
        self, prompts: str, **settings: Unpack[_Generating]
    ) -> str: ...

    @overload
    def generate(self, prompts: Iterable[str], **settings: Unpack[_Generating]) -> list[str]: ...

    @overload
    def generate(
        self,
        prompts: str | Iterable[str],
        *,
        num_return_sequences: int | None = None,
        return_logprobs: bool = False,
        **settings: Unpack[_Generating],
    ) -> Any: ...

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    def generate(
        self,
        prompts: str | Iterable[str],
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        sampler: Any = None,
        stop: str | Sequence[str] | None = None,
        constraint: str | Constraint | None = None,
        valid_utf8: bool = True,
        num_return_sequences: int | None = None,
        return_logprobs: bool = False,
        return_prompt: bool = True,
        seed: int | Sequence[int] | None = None,
        batch_size: int = 32,
        engine: str = "auto",
        progress: bool | None = None,
    ) -> Any:
        """Return a text for each prompt: a string for a string, a list for a list.

        Args:
            prompts: what to go on from.
            max_length: tokens of a whole text, its prompt, start and end token included.
            max_new_tokens: tokens generated after the prompt, instead.
            sampler: another one than the pipeline's, for this call.
            stop: strings at which a text ends, wherever they lie across tokens.
            constraint: a form that every text has: a `Constraint`, or text such as `"verse_form:form=七言絕句"`.
            valid_utf8: choose only tokens that keep the text valid UTF-8; False leaves the model the choice of all.
            num_return_sequences: how many texts for each prompt; given, each prompt's texts come as a list.
            return_logprobs: return `GeneratedText` values, with log-probabilities, instead of strings.
            return_prompt: begin each text with its prompt.
            seed: another one than the pipeline's, for this call, or one for each prompt. A sampler's own comes first.
            batch_size: texts generated at once, at most; prompts of like length share a batch.
            engine: what decodes. `"keras"`, which `"auto"` chooses, is JAX for GPT-2 and OPT in float32, and for others
                the backend that Keras runs on. `"litert"` writes an artefact of a GPT-2's or OPT's weights into the
                cache directory, once, and decodes that, to the same ids; `"litert:quantize=int8"` to others.
            progress: show a bar on standard error; None does where that is a terminal and there is more than one batch.

        Raises:
            ConstraintArgumentError: `constraint` is no constraint.
            GenerateArgumentError: the call can't be carried out as written.
            GenerationError: the model's logits are not finite.
        """
        own = self._resolve(sampler, constraint, seed)
        model, engine = self._decodes(own["sampler"], engine)
        from kerasgen.generation import generate

        texts = generate(
            model,
            [prompts] if isinstance(prompts, str) else prompts,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            stop=stop,
            valid_utf8=valid_utf8,
            num_return_sequences=num_return_sequences,
            return_logprobs=return_logprobs,
            return_prompt=return_prompt,
            batch_size=batch_size,
            engine=engine,
            progress=progress,
            **own,
        )
        return texts[0] if isinstance(prompts, str) else texts

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    def generate_to(
        self,
        path: str | os.PathLike[str],
        prompts: Iterable[str],
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        sampler: Any = None,
        stop: str | Sequence[str] | None = None,
        constraint: str | Constraint | None = None,
        valid_utf8: bool = True,
        num_return_sequences: int | None = None,
        return_logprobs: bool = False,
        return_prompt: bool = True,
        seed: int | None = None,
        batch_size: int = 32,
        engine: str = "auto",
        progress: bool | None = None,
        chunk_size: int = 1024,
        overwrite: bool = False,
    ) -> Path:
        """Write one JSON line for each prompt, in order, and return the file's path.

        A line holds `index`, `prompt` and `text` (or `texts`, with `num_return_sequences`); with `return_logprobs` also
        the generated tokens and their log-probabilities. The texts are those of `generate` with the same arguments.
        While the run goes on, they stand in `<path>.partial`. The same call after a kill goes on where it stopped, and
        gives the same file as a run that was never killed.

        Args:
            path: of the file.
            prompts: any number, drawn a chunk at a time; the same ones in the same order when a killed run goes on.
            max_length: as in `generate`.
            max_new_tokens: as in `generate`.
            sampler: as in `generate`, but none of KerasHub's, whose texts differ from call to call.
            stop: as in `generate`.
            constraint: as in `generate`.
            valid_utf8: as in `generate`.
            num_return_sequences: as in `generate`.
            return_logprobs: as in `generate`.
            return_prompt: as in `generate`.
            seed: as in `generate`; one.
            batch_size: as in `generate`.
            engine: as in `generate`.
            progress: show a bar on standard error; None does where that is a terminal.
            chunk_size: prompts that are read, generated from and written together. Memory holds so many, and a kill
                loses no more.
            overwrite: replace a file that is there already.

        Raises:
            ConstraintArgumentError: `constraint` is no constraint.
            GenerateArgumentError: the call can't be carried out as written, a file is in the way, or a killed run had
                other settings, another model or other prompts.
            GenerationError: the file can't be written, or the model's logits are not finite.
        """
        own = self._resolve(sampler, constraint, seed)
        model = self.model
        from kerasgen.generation import writing_files

        return writing_files.generate_to(
            model,
            path,
            prompts,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            stop=stop,
            valid_utf8=valid_utf8,
            num_return_sequences=num_return_sequences,
            return_logprobs=return_logprobs,
            return_prompt=return_prompt,
            batch_size=batch_size,
            engine=litert_engine.resolve(engine, self.cache),
            progress=progress,
            chunk_size=chunk_size,
            overwrite=overwrite,
            **own,
        )

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    def stream(
        self,
        prompt: str,
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        sampler: Any = None,
        stop: str | Sequence[str] | None = None,
        constraint: str | Constraint | None = None,
        valid_utf8: bool = True,
        seed: int | None = None,
        return_prompt: bool = True,
        engine: str = "auto",
    ) -> Iterator[str]:
        """Yield a text in pieces of whole characters as it is generated; joined, they are what `generate` returns.

        The arguments are those of `generate`.
        """
        own = self._resolve(sampler, constraint, seed)
        model, engine = self._decodes(own["sampler"], engine)
        from kerasgen.generation import stream

        return stream(
            model,
            prompt,
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            stop=stop,
            valid_utf8=valid_utf8,
            return_prompt=return_prompt,
            engine=engine,
            **own,
        )

    def _resolve(self, sampler: Any, constraint: str | Constraint | None, seed: Any) -> _Resolved:
        """The sampler, the constraint and the seed of a call, which may leave each to the pipeline.

        Raises:
            ConstraintArgumentError: `constraint` is no constraint.
            SamplerArgumentError: `sampler` is none.
        """
        if isinstance(sampler, str):
            samplers_resolving.resolve(sampler)  # before a model is loaded for it
        return {
            "sampler": self.sampler if sampler is None else sampler,
            "constraint": None if constraint is None else constraints.REGISTRY.resolve(constraint),
            "seed": self.seed if seed is None else seed,
        }

    def _decodes(self, sampler: Any, engine: Any) -> tuple[LanguageModel | Engine, Any]:
        """What generates, and the engine to ask it for: the model or, while it is not loaded, an engine of its files.

        Such an engine needs no Keras, whose import takes longer than a short text.
        """
        if self._model is None and self._adapters is None and engine in ("auto", "keras"):
            hub = samplers_resolving.is_hub_sampler(sampler)
            directory = None if hub else self.model_source.directory()
            engine_of_files = self._stored_engine  # which another thread may drop when it loads the model
            if engine_of_files is None and directory is not None:
                from kerasgen.generation import jax_weights

                with self._loading:
                    engine_of_files = self._stored_engine or jax_weights.engine_of_files(directory)
                    self._stored_engine = engine_of_files
            if engine_of_files is not None and directory is not None:
                return engine_of_files, "keras"
        return self.model, litert_engine.resolve(engine, self.cache)

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    def prompt(self, text: str) -> Prompt:
        """Return a beginning of many texts that is read once; its `generate`, `stream` and `extend` go on from it.

        Args:
            text: the beginning, such as instructions or the story so far.
        """
        model = self.model  # loaded now, which chooses the backend
        from kerasgen.generation.prompt import Prompt

        settings = {"sampler": self.sampler, "seed": self.seed}
        return Prompt(
            lambda: self._model or model,
            text,
            settings,
            engine=lambda engine: litert_engine.resolve(engine, self.cache),
        )
