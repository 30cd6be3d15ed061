"""A prompt that many calls share and the engine reads once: what `Pipeline.prompt` returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Unpack, runtime_checkable

from kerasgen import specs
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import api, engine_registry
from kerasgen.generation.config import (
    GenerationConfig,
    GenerationSettings,
    StreamSettings,
    configured,
    takes,
    with_defaults,
)
from kerasgen.generation.encoding import encode_prompts
from kerasgen.generation.engine import Engine, Session
from kerasgen.keywords import Checked, checked
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.foreign_arguments import as_sampler
from kerasgen.samplers.resolving import is_hub_sampler
from kerasgen.tokens.base import Tokenizer


@runtime_checkable
class RememberingSession(Protocol):
    """A session whose engine can keep what was read."""

    def remember(self) -> None:
        """Keep what was read of the first row's text, so that one which begins alike is not read again."""


class _Watched:
    """Engine wrapper that keeps the session opened last."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._session: Session | None = None

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def tokenizer(self) -> Tokenizer:
        return self._engine.tokenizer

    @property
    def max_sequence_length(self) -> int | None:
        return self._engine.max_sequence_length

    @property
    def weights_read(self) -> int:
        return getattr(self._engine, "weights_read", 0)

    def open(self, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> Session:
        self._session = self._engine.open(prompts, limits)
        return self._session

    def remember(self) -> None:
        """Keep what was read of the text of that session, its new tokens with it."""
        if isinstance(self._session, RememberingSession):
            self._session.remember()


def _remembering(pieces: Iterator[str], engine: _Watched) -> Iterator[str]:
    """Yield the pieces of a stream, and remember it as far as it was taken."""
    try:
        yield from pieces
    finally:
        engine.remember()


_WRONG = "`{}` must be {} after the prompt's own text; a config is passed by name, `config=`. Received: {!r:.80}."


class Prompt(metaclass=Checked):
    """The beginning of many texts. The engine reads it once and remembers it while the weights stay as they are.

    An engine that can't remember gives the same texts and reads the prompt at each call.

    Args:
        model: returns the model or engine; it is asked at each call.
        text: the beginning.
        config: the settings of calls that don't bring their own, a sampler among them.
        seed: where neither a call nor its config nor its sampler has one.
        engine: turns a call's `engine` into what `kerasgen.generation` takes.
        assistant: the same for a call's `assistant_model`.
    """

    def __init__(
        self,
        model: Callable[[], LanguageModel | Engine],
        text: str,
        config: GenerationConfig | Mapping[str, Any],
        *,
        seed: int | Sequence[int] = 0,
        engine: Callable[[Any], Any] = lambda engine: engine,
        assistant: Callable[[Any], Any] = lambda assistant_model: assistant_model,
    ) -> None:
        self._model, self._assistant = model, assistant
        self._config = config if isinstance(config, GenerationConfig) else GenerationConfig(**config)
        self._seed, self._engine = seed, engine
        self.text = text
        self._read(self._config.allowed_special)

    def __repr__(self) -> str:
        return f"Prompt({self.text!r})"

    @checked(GenerateArgumentError, elsewhere=as_sampler)
    @takes(GenerationSettings)
    def generate(
        self,
        prompts: str | Iterable[str] = "",
        config: GenerationConfig | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Any:
        """Return what `Pipeline.generate` returns for this text with each of `prompts` after it.

        Args:
            prompts: what comes after the text.
            config: the settings, instead of the pipeline's.
            **settings: keyword arguments of `GenerationConfig`; one that is None is as if it were not given.
        """
        model, configuration = self._with("generate()", GenerationSettings, config, settings)
        prompt_list = specs.strings([prompts] if isinstance(prompts, str) else prompts)
        if prompt_list is None:
            raise GenerateArgumentError(_WRONG.format("prompts", "a string or a list of strings", prompts))
        texts = api.generate(model, [self.text + prompt for prompt in prompt_list], configuration)
        if not isinstance(prompts, str):
            return texts
        if isinstance(model, _Watched):
            model.remember()
        return texts[0]

    @checked(GenerateArgumentError, elsewhere=as_sampler)
    @takes(StreamSettings)
    def stream(
        self, prompt: str = "", config: GenerationConfig | None = None, **settings: Unpack[StreamSettings]
    ) -> Iterator[str]:
        """Yield what `Pipeline.stream` yields for this text with `prompt` after it.

        Args:
            prompt: what comes after the text.
            config: the settings, instead of the pipeline's.
            **settings: keyword arguments of `GenerationConfig`; one that is None is as if it were not given.
        """
        if not isinstance(prompt, str):
            raise GenerateArgumentError(_WRONG.format("prompt", "a string", prompt))
        model, configuration = self._with("stream()", StreamSettings, config, settings)
        pieces = api.stream(model, self.text + prompt, configuration)
        return _remembering(pieces, model) if isinstance(model, _Watched) else pieces

    @checked(GenerateArgumentError)
    def extend(self, text: str) -> Prompt:
        """Return the prompt with more text after it, such as a question and its answer.

        Only what is new is read: the answer was, when it was generated after this prompt alone.
        """
        return Prompt(
            self._model,
            self.text + text,
            self._config,
            seed=self._seed,
            engine=self._engine,
            assistant=self._assistant,
        )

    def _with(
        self, call: str, names: type[Any], config: GenerationConfig | None, settings: Mapping[str, Any]
    ) -> tuple[Any, GenerationConfig]:
        """Return the model or engine and a call's settings; read the prompt first if the engine remembers it."""
        arguments = {name: value for name, value in settings.items() if value is not None}
        configuration = configured(call, names, config, arguments, default=self._config)
        configuration = with_defaults(configuration, sampler=self._config.sampler, seed=self._seed)
        engine = self._engine("keras" if configuration.engine == "auto" else configuration.engine)
        assistant_model = self._assistant(configuration.assistant_model)
        configuration = configuration.override({"engine": engine, "assistant_model": assistant_model})
        model = self._model()
        if engine not in engine_registry.NAMES:
            return model, configuration
        self._read(configuration.allowed_special)
        return model if is_hub_sampler(configuration.sampler) else _Watched(
            engine_registry.resolve(model)
        ), configuration

    def _read(self, allowed_special: str | Collection[str]) -> None:
        """Let the engine read what it doesn't remember."""
        engine = engine_registry.resolve(self._model())
        start = engine.tokenizer.start_token_id
        (encoded,) = encode_prompts(engine.tokenizer, [self.text], allowed_special)
        token_ids = ([] if start is None else [start]) + encoded
        remembers = getattr(engine, "remembers", None)
        if not token_ids or remembers is None or remembers(token_ids):
            return
        longest = engine.max_sequence_length
        if longest is not None and len(token_ids) >= longest:
            return  # the call itself says what is wrong
        session = engine.open([token_ids], [len(token_ids) + 1])
        if isinstance(session, RememberingSession):
            session.remember()
