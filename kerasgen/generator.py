"""The generating half of a pipeline: texts for prompts, into a list, a file or a stream."""

from __future__ import annotations

import os
import threading
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from kerasgen import misplaced_settings
from kerasgen.errors import GenerateArgumentError, KerasgenWarning
from kerasgen.exporters.tflite import engine as litert_engine
from kerasgen.generation.config import (
    FIELDS,
    ChatSettings,
    ChatStreamSettings,
    GenerationConfig,
    GenerationSettings,
    StreamSettings,
    TextSettings,
    configured,
    takes,
    with_defaults,
)
from kerasgen.keywords import Checked, checked
from kerasgen.models import kinds
from kerasgen.models.base import LanguageModel, MaskedLanguageModel, ModelSource, WeightsDtype
from kerasgen.samplers import resolving as samplers_resolving
from kerasgen.samplers.base import SamplerSpec

if TYPE_CHECKING:
    from kerasgen.generation.engine import Engine, TextSpace
    from kerasgen.generation.prompt import Prompt
    from kerasgen.masked.filling import FilledText


_NO_ORDER = (
    "it writes a text's tokens in no order from left to right, so that none is settled before the last. Use "
    "generate(), which returns the whole text."
)
_UNTUNED = (
    "The chat template that was given added tokens to the vocabulary, and the model has learned nothing of them, so "
    "its answers mean nothing. Tune it on conversations first: fit()."
)
_ELSEWHERE = misplaced_settings.elsewhere(("prompts", "prompt", "path", *FIELDS))


class Generator(metaclass=Checked):
    """A model with a sampler and a seed, and the ways to have text from them.

    Args:
        model_source: where the model comes from, which is loaded when it is first asked for.
        generation_config: the settings of calls that don't bring their own, a sampler among them.
        seed: of calls, configs and samplers that have none of their own.
        cache: the directory for what is made once; None for the user's.
        weights: the dtype that the model's big weights are held in; None for float32.
    """

    def __init__(
        self,
        model_source: ModelSource,
        generation_config: GenerationConfig,
        seed: int,
        cache: str | os.PathLike[str] | None,
        weights: WeightsDtype | None = None,
    ) -> None:
        self.model_source = model_source
        self.weights = weights
        self.generation_config = generation_config
        self.seed = seed
        self.cache = None if cache is None else Path(cache)
        self._model: LanguageModel | None = None
        self._stored_engine: Engine | None = None
        self._has_untuned_turns = False  # whether a chat template brought tokens that nothing has learned since
        self._loading = threading.RLock()
        self._adapters: Path | None = None
        self._assistants: dict[str, LanguageModel | Engine] = {}

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

    def _whole_model(self, what: str) -> LanguageModel:
        """Return the model, all of whose weights are here.

        Args:
            what: is to be done with it, such as "generate".

        Raises:
            ModelError: a run over several processes left only a part of it here.
        """
        model = self.model
        from kerasgen.tuners import sharding

        sharding.require_whole(model, what)
        return model

    @property
    def text_space(self) -> TextSpace:
        """The tokenizer and the number of positions, without loading Keras where the model's files tell them."""
        return self._decodes(self.sampler, "auto")[0]

    @property
    def sampler(self) -> SamplerSpec | Any:
        """The sampler of calls that name none: that of `generation_config`."""
        return self.generation_config.sampler

    @sampler.setter
    def sampler(self, sampler: Any) -> None:
        self.generation_config = self.generation_config.override({"sampler": samplers_resolving.resolve(sampler)})

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a Sequence[str] too, and the first match counts
        self, prompts: str, config: None = None, **settings: Unpack[TextSettings]
    ) -> str: ...

    @overload
    def generate(self, prompts: Iterable[str], config: None = None, **settings: Unpack[TextSettings]) -> list[str]: ...

    @overload
    def generate(
        self,
        prompts: str | Iterable[str],
        config: GenerationConfig | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Any: ...

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    @takes(GenerationSettings)
    def generate(
        self,
        prompts: str | Iterable[str],
        config: GenerationConfig | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Any:
        """Return a text for each prompt: a string for a string, a list for a list.

        A masked language model writes by mask-predict or Gibbs sampling (the samplers `mask_predict` and `gibbs`), as
        many tokens as `max_new_tokens` says, or as the constraint takes at least, or 32.

        Args:
            prompts: what to go on from.
            config: the settings, instead of the pipeline's `generation_config`; those given by name come first.
            **settings: keyword arguments of `GenerationConfig`, such as `max_new_tokens=64`.

        Raises:
            ConstraintArgumentError: `constraint` is no constraint.
            GenerateArgumentError: the call can't be carried out as written.
            GenerationError: the model's logits are not finite.
        """
        configuration = self._configured("generate()", GenerationSettings, config, settings)
        is_masked = kinds.is_masked(self.model_source, self._model)
        if is_masked:
            return self._generate_masked(prompts, configuration)
        if is_masked is False:
            from kerasgen.generation import request

            request.require_causal(configuration.sampler)
        model, engine = self._decodes(configuration.sampler, configuration.engine)
        if isinstance(model, MaskedLanguageModel):  # which only loading it told
            return self._generate_masked(prompts, configuration)
        from kerasgen.generation import generate

        texts = generate(model, [prompts] if isinstance(prompts, str) else prompts, configuration, engine=engine)
        return texts[0] if isinstance(prompts, str) else texts

    @overload
    def fill(self, text: str, *, top: int = 5, batch_size: int = 16) -> list[FilledText]: ...

    @overload
    def fill(
        self, text: str | Iterable[str], *, top: int = 5, joint: bool = True, batch_size: int = 16
    ) -> list[Any]: ...

    @checked(GenerateArgumentError)
    def fill(self, text: str | Iterable[str], *, top: int = 5, joint: bool = True, batch_size: int = 16) -> list[Any]:
        """Return the likeliest ways to fill the masks of a text, the likeliest first; a list of such lists for a list.

        A mask is written as the model's tokenizer writes it: `pipe.model.mask_token`, such as `<mask>`.

        Args:
            text: with at least one mask.
            top: how many ways.
            joint: of several masks, search for tokens that go together: the surest mask is filled first, the others
                given it, and `top` texts are kept at each step; a probability is then the product of each token's,
                given what was filled in before. False fills each mask by itself while the others stay masked, and
                returns a list for each mask.
            batch_size: texts that are computed at once.

        Raises:
            GenerateArgumentError: the text has no mask or is too long, or the model predicts no masks.
        """
        model = self._masked_model("fill()", "go on from a text with generate()")
        from kerasgen.masked import filling

        return filling.fill(model, text, top=top, joint=joint, batch_size=batch_size)

    def _generate_masked(self, prompts: str | Iterable[str], config: GenerationConfig) -> Any:
        """Write texts with a masked language model; the call is checked before it is loaded."""
        from kerasgen.masked import writing

        writing.check(config)
        model = self._masked_model("generate()", "write with a causal model")
        texts = writing.generate(model, [prompts] if isinstance(prompts, str) else prompts, config)
        return texts[0] if isinstance(prompts, str) else texts

    def _masked_model(self, call: str, instead: str) -> MaskedLanguageModel:
        """Return the model if it predicts masks; refuse the call before a causal one is loaded.

        Raises:
            GenerateArgumentError: it is no masked language model.
        """
        model: Any = self._model if kinds.is_masked(self.model_source, self._model) is False else self.model
        if isinstance(model, MaskedLanguageModel):
            return model
        raise GenerateArgumentError(
            f"{call} needs a masked language model, such as RoBERTa, and {str(self.model_source)!r} continues a text "
            f"from left to right. Instead, {instead}."
        )

    def _check_causal(self, call: str, why: str) -> None:
        """Refuse a call that has no meaning for a masked language model, before it is loaded.

        Raises:
            GenerateArgumentError: the model is one.
        """
        is_masked = kinds.is_masked(self.model_source, self._model)
        if is_masked is None:
            is_masked = kinds.is_masked(self.model_source, self.model)
        if is_masked:
            raise GenerateArgumentError(f"{call} is for causal models, and {str(self.model_source)!r} is masked: {why}")

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    @takes(GenerationSettings)
    def generate_to(
        self,
        path: str | os.PathLike[str],
        prompts: Iterable[str],
        config: GenerationConfig | None = None,
        *,
        chunk_size: int = 1024,
        overwrite: bool = False,
        **settings: Unpack[GenerationSettings],
    ) -> Path:
        """Write one JSON line for each prompt, in order, and return the file's path.

        A line holds `index`, `prompt` and `text` (or `texts`, with `num_return_sequences`); with `return_logprobs` also
        the generated tokens and their log-probabilities. The texts are those of `generate` with the same arguments.
        While the run goes on, they stand in `<path>.partial`. The same call after a kill goes on where it stopped, and
        gives the same file as a run that was never killed.

        Args:
            path: of the file.
            prompts: any number, drawn a chunk at a time; the same ones in the same order when a killed run goes on.
            config: the settings, instead of the pipeline's `generation_config`; those given by name come first. The
                sampler is none of KerasHub's, whose texts differ from call to call, and the seed is one number.
            chunk_size: prompts that are read, generated from and written together. Memory holds so many, and a kill
                loses no more.
            overwrite: replace a file that is there already.
            **settings: keyword arguments of `GenerationConfig`, such as `max_new_tokens=64`.

        Raises:
            ConstraintArgumentError: `constraint` is no constraint.
            GenerateArgumentError: the call can't be carried out as written, a file is in the way, or a killed run had
                other settings, another model or other prompts.
            GenerationError: the file can't be written, or the model's logits are not finite.
        """
        self._check_causal("generate_to()", "it writes with generate(), a list of prompts at a time.")
        configuration = self._configured("generate_to()", GenerationSettings, config, settings)
        model = self._whole_model("generate")
        from kerasgen.generation import jobs

        engine = litert_engine.resolve(configuration.engine, self.cache)
        return jobs.generate_to(
            model, path, prompts, configuration, engine=engine, chunk_size=chunk_size, overwrite=overwrite
        )

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    @takes(StreamSettings)
    def stream(
        self, prompt: str, config: GenerationConfig | None = None, **settings: Unpack[StreamSettings]
    ) -> Iterator[str]:
        """Yield a text in pieces of whole characters as it is generated; joined, they are what `generate` returns.

        Args:
            prompt: what to go on from.
            config: the settings, instead of the pipeline's `generation_config`; those given by name come first.
            **settings: keyword arguments of `GenerationConfig`, such as `max_new_tokens=64`.

        Raises:
            ConstraintArgumentError: `constraint` is no constraint.
            GenerateArgumentError: the call can't be carried out as written, or the sampler is of a kind that knows a
                text only when it is complete.
            GenerationError: the model's logits are not finite.
        """
        self._check_causal("stream()", _NO_ORDER)
        configuration = self._configured("stream()", StreamSettings, config, settings)
        _require_streaming(configuration)
        model, engine = self._decodes(configuration.sampler, configuration.engine)
        from kerasgen.generation import stream

        return stream(model, prompt, configuration, engine=engine)

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    @takes(ChatSettings)
    def chat(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        config: GenerationConfig | None = None,
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        **settings: Unpack[ChatSettings],
    ) -> Any:
        """Return the assistant's answer to a conversation: text, without what ends its turn.

        The model's chat template writes what the model reads. A special token's name in a message
        becomes that token, as in transformers. Without a length, an answer has up to 1,024 tokens.

        Args:
            messages: the conversation so far, dicts with a `role` and a `content`, the last of them the user's or a
                tool's; or what a user says first, as text.
            config: the settings, instead of the pipeline's `generation_config`; those given by name come first.
            tools: JSON schemas of the tools that the assistant may call, for a template that tells of them. A call
                comes as the text that the model wrote.
            template_arguments: further values that the template asks for, such as `{"enable_thinking": False}`.
            **settings: keyword arguments of `GenerationConfig`, such as `max_new_tokens=64`.

        Raises:
            ChatTemplateError: the model has no chat template, or it refuses the conversation.
            ConstraintArgumentError: `constraint` is no constraint.
            GenerateArgumentError: the call can't be carried out as written, such as messages that nobody can answer.
            GenerationError: the model's logits are not finite.
        """
        self._check_causal("chat()", _NO_ORDER)
        configuration = self._configured("chat()", ChatSettings, config, settings)
        model, prompt, configuration = self._asked(messages, configuration, tools, template_arguments)
        from kerasgen.generation import generate

        return generate(model, [prompt], configuration, start=False)[0]

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    @takes(ChatStreamSettings)
    def chat_stream(
        self,
        messages: str | Iterable[Mapping[str, Any]],
        config: GenerationConfig | None = None,
        *,
        tools: Iterable[Mapping[str, Any]] | None = None,
        template_arguments: Mapping[str, Any] | None = None,
        **settings: Unpack[ChatStreamSettings],
    ) -> Iterator[str]:
        """Yield the answer that `chat` returns in pieces of whole characters, as they are generated.

        Args:
            messages: as for `chat`.
            config: as for `chat`.
            tools: as for `chat`.
            template_arguments: as for `chat`.
            **settings: keyword arguments of `GenerationConfig`, such as `max_new_tokens=64`.

        Raises:
            ChatTemplateError: as for `chat`.
            ConstraintArgumentError: `constraint` is no constraint.
            GenerateArgumentError: as for `chat`, or the sampler is of a kind that knows a text only when it is
                complete.
            GenerationError: the model's logits are not finite.
        """
        self._check_causal("chat_stream()", _NO_ORDER)
        configuration = self._configured("chat_stream()", ChatStreamSettings, config, settings)
        _require_streaming(configuration)
        model, prompt, configuration = self._asked(messages, configuration, tools, template_arguments)
        from kerasgen.generation import stream

        return stream(model, prompt, configuration, start=False)

    def _asked(
        self,
        messages: Any,
        configuration: GenerationConfig,
        tools: Iterable[Any] | None,
        template_arguments: Mapping[str, Any] | None,
    ) -> tuple[LanguageModel, str, GenerationConfig]:
        """Return the model, what it reads before its answer, and the settings of that."""
        self._check_causal("chat()", _NO_ORDER)
        from kerasgen.generation import conversing

        if isinstance(messages, Iterable) and not isinstance(messages, (str, Mapping)):
            messages = list(messages)
        tools = None if tools is None else list(tools)
        conversing.checked_talk(messages, tools)  # before a model is loaded
        model = self.model
        from kerasgen.models import chat

        prompt = conversing.asked(chat.needed(model), messages, tools, template_arguments)
        configuration = conversing.settings_of(configuration, model, prompt)
        if self._has_untuned_turns:
            warnings.warn(_UNTUNED, KerasgenWarning, stacklevel=4)
        engine = litert_engine.resolve(configuration.engine, self.cache)
        return model, prompt, configuration.override({"engine": engine})

    def _configured(
        self, call: str, names: type[Any], config: GenerationConfig | None, settings: Mapping[str, Any]
    ) -> GenerationConfig:
        """Return the config of a call, with the pipeline's sampler and seed where it has none."""
        configuration = configured(call, names, config, settings, default=self.generation_config)
        configuration = with_defaults(configuration, sampler=self.sampler, seed=self.seed)
        return configuration.override({"assistant_model": self._assistant(configuration.assistant_model)})

    def _assistant(self, assistant_model: Any) -> Any:
        """Return an assistant model; what an address stands for is loaded once."""
        if not isinstance(assistant_model, str):
            return assistant_model
        from kerasgen.generation import assistant

        with self._loading:
            if assistant_model not in self._assistants:
                self._assistants[assistant_model] = assistant.located(assistant_model)
            return self._assistants[assistant_model]

    def _decodes(self, sampler: Any, engine: Any) -> tuple[LanguageModel | Engine, Any]:
        """Return what generates, and its engine: the model or, while it is not loaded, an engine of its files.

        Such an engine needs no Keras, whose import takes longer than a short text.
        """
        if self._model is None and self._adapters is None and engine in ("auto", "keras"):
            hub = samplers_resolving.is_hub_sampler(sampler)
            place = None if hub else self.model_source.directory() or self.model_source.gguf_file()
            engine_of_files = self._stored_engine  # which another thread may drop when it loads the model
            if engine_of_files is None and place is not None:
                from kerasgen.generation import jax_weights

                with self._loading:
                    engine_of_files = self._stored_engine or jax_weights.engine_of_files(place, self.weights)
                    self._stored_engine = engine_of_files
            if engine_of_files is not None and place is not None:
                return engine_of_files, "keras"
        return self._whole_model("generate"), litert_engine.resolve(engine, self.cache)

    @checked(GenerateArgumentError, elsewhere=_ELSEWHERE)
    def prompt(self, text: str) -> Prompt:
        """Return a beginning of many texts that is read once; its `generate`, `stream` and `extend` go on from it.

        Args:
            text: the beginning, such as instructions or the story so far.
        """
        self._check_causal(
            "prompt()", "it reads a text anew at every step, so no beginning can be kept. Use generate()."
        )
        model = self._whole_model("generate")  # loaded now, which chooses the backend
        from kerasgen.generation.prompt import Prompt

        return Prompt(
            lambda: self._model or model,
            text,
            self.generation_config,
            seed=self.seed,
            engine=lambda engine: litert_engine.resolve(engine, self.cache),
            assistant=self._assistant,
        )


def _require_streaming(configuration: GenerationConfig) -> None:
    """Refuse a sampler that can't stream, before a model is loaded."""
    from kerasgen.generation import api

    api.require_streaming(configuration.sampler)
