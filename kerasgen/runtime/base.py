"""The runtime contract: an artefact's file becomes something that generates, in the artefact's own runtime."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack, overload

from kerasgen import deprecations
from kerasgen.errors import ChatTemplateError, GenerateArgumentError, call_error
from kerasgen.generation.config import (
    SILENT,
    ArtefactIdsSettings,
    ArtefactSettings,
    ChatSettings,
    ChatStreamSettings,
    GenerationConfig,
    GenerationSettings,
    StreamSettings,
    configured,
    taken,
    takes,
    with_defaults,
)
from kerasgen.keywords import checked
from kerasgen.samplers.foreign_arguments import as_sampler
from kerasgen.tokens.base import Tokenizer


class Runtime(ABC):
    """An artefact that was loaded.

    Attributes:
        tokenizer: the one that travels with the artefact.
        max_sequence_length: tokens of a whole text that it can hold, or None without limit.
        engine: what decodes step by step, as `kerasgen.generation.engine.Engine` says, or None for a runtime that
            shows a text only when it is complete.
        chat_template: writes conversations as the model reads them, or None where it has none.
    """

    tokenizer: Tokenizer
    max_sequence_length: int | None
    engine: Any = None
    chat_template: Any = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_sequence_length={self.max_sequence_length})"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "generate_ids" in cls.__dict__:  # so that a format's own method reports foreign arguments as the others do
            cls.generate_ids = checked(GenerateArgumentError, elsewhere=as_sampler)(cls.generate_ids)  # type: ignore[method-assign]
            if cls.generate_checked is not Runtime.generate_checked:
                return
            deprecations.warn(
                f"A runtime's own `generate_ids`, as {cls.__name__} defines it,",
                "`generate_checked(prompts, config, *, end_token_id)` for it",
            )

    @checked(GenerateArgumentError, elsewhere=as_sampler)
    @takes(ArtefactIdsSettings)
    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        config: GenerationConfig | None = None,
        *,
        end_token_id: int | None = None,
        **settings: Unpack[ArtefactIdsSettings],
    ) -> list[list[int]]:
        """Return the ids generated after each prompt, up to its end token, which is among them.

        Args:
            prompts: ids without the start token, which is put before each if the tokenizer has one.
            config: the settings; those given by name come first.
            end_token_id: another token that ends a text than the tokenizer's.
            **settings: keyword arguments of `GenerationConfig`; `max_new_tokens` is needed.

        Raises:
            GenerateArgumentError: the artefact can't do what is asked, such as a sampler that it doesn't hold.
        """
        configuration = _configured("generate_ids()", ArtefactIdsSettings, config, settings)
        check_prompts(self, prompts, configuration, end_token_id=end_token_id)
        return self.generate_checked(prompts, configuration, end_token_id=end_token_id)

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Do what `generate_ids` does, whose arguments have been checked; this is what a format defines.

        Args:
            prompts: as there.
            config: the settings, with a sampler, `max_new_tokens` and one seed.
            end_token_id: as there.

        Raises:
            GenerateArgumentError: the artefact can't do what is asked.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `generate_checked`.")

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids that the artefact reads each text as, without the start token."""
        return self.tokenizer.encode_batch(texts)

    def logits(self, token_ids: Sequence[int]) -> Any:
        """Return the logits after each of these tokens, float32 `(tokens, vocabulary_size)`.

        Raises:
            GenerateArgumentError: the artefact doesn't show them.
        """
        raise GenerateArgumentError(f"{type(self).__name__} doesn't show logits; it only generates.")

    @overload
    def generate(  # a str is a Sequence[str] too, and the first match counts
        self, prompts: str, config: GenerationConfig | None = None, **settings: Unpack[GenerationSettings]
    ) -> Any: ...

    @overload
    def generate(
        self, prompts: Sequence[str], config: GenerationConfig | None = None, **settings: Unpack[GenerationSettings]
    ) -> list[Any]: ...

    @checked(GenerateArgumentError, elsewhere=as_sampler)
    @takes(GenerationSettings)
    def generate(
        self,
        prompts: str | Sequence[str],
        config: GenerationConfig | None = None,
        **settings: Unpack[GenerationSettings],
    ) -> Any:
        """Return a text for each prompt: a string for a string, a list for a list; see `Pipeline.generate`.

        Args:
            prompts: what to go on from.
            config: the settings; those given by name come first.
            **settings: keyword arguments of `GenerationConfig`; a length is needed, and the sampler is greedy where
                none is given. A runtime without an `engine` takes `max_new_tokens`, `sampler`, `valid_utf8`,
                `return_prompt` and one seed alone.

        Raises:
            GenerateArgumentError: the artefact can't do what is asked, such as a sampler that it doesn't hold.
        """
        if self.engine is not None and _needs_loops(config, settings):
            from kerasgen.generation import generate  # which imports what decodes

            prompt_list = [prompts] if isinstance(prompts, str) else prompts
            texts = generate(self.engine, prompt_list, self._looped("generate()", GenerationSettings, config, settings))
            return texts[0] if isinstance(prompts, str) else texts
        own = {name: value for name, value in settings.items() if name not in SILENT}
        beyond = ", ".join(
            f"{name}={value!r:.40}" for name, value in own.items() if name not in taken(ArtefactSettings)
        )
        if beyond:
            raise GenerateArgumentError(
                f"{type(self).__name__} decodes by itself, and takes {', '.join(taken(ArtefactSettings))}. Received "
                f"besides: {beyond}. Leave it out, or generate with the pipeline that it was exported from."
            )
        configuration = _configured("generate()", ArtefactSettings, config, own)
        written = self._texts([prompts] if isinstance(prompts, str) else list(prompts), configuration)
        return written[0] if isinstance(prompts, str) else written

    def _texts(self, prompts: list[str], config: GenerationConfig) -> list[str]:
        """Return the text for each prompt."""
        from kerasgen.generation.detokenize import write
        from kerasgen.generation.encoding import encode_prompts

        encoded = encode_prompts(self.tokenizer, prompts, config.allowed_special)
        generated = self.generate_ids(encoded, **given(config, ArtefactIdsSettings))
        ends = self.tokenizer.end_token_ids
        return [
            (prompt if config.return_prompt else "")
            + write(self.tokenizer, ids, ended=bool(ids) and ids[-1] in ends, begins=not prompt)
            for prompt, ids in zip(prompts, generated, strict=True)
        ]

    @checked(GenerateArgumentError, elsewhere=as_sampler)
    @takes(StreamSettings)
    def stream(
        self, prompt: str, config: GenerationConfig | None = None, **settings: Unpack[StreamSettings]
    ) -> Iterator[str]:
        """Yield a text in pieces of whole characters as it is generated; joined, they are what `generate` returns.

        Arguments are checked at the call, not at the first piece. The prompt, if it is returned, is a piece of its own.

        Args:
            prompt: what to go on from.
            config: the settings; those given by name come first.
            **settings: keyword arguments of `GenerationConfig`; a length is needed.

        Raises:
            GenerateArgumentError: the artefact can't do what is asked; or its runtime doesn't show a text before it is
                complete; or the sampler is one that knows a text only then.
        """
        if self.engine is None:
            raise GenerateArgumentError(
                f"{type(self).__name__} shows a text only when it is complete. Use generate, or a TFLite artefact that "
                "is not isolated, whose texts can be streamed."
            )
        configuration = self._looped("stream()", StreamSettings, config, settings)
        if not isinstance(prompt, str):
            raise GenerateArgumentError(f"One text is streamed, of one prompt. Received: {prompt!r:.80}.")
        if configuration.max_new_tokens is not None:
            from kerasgen.generation.encoding import encode_prompts

            check_prompts(
                self,
                encode_prompts(self.tokenizer, [prompt], configuration.allowed_special),
                configuration,
                end_token_id=None,
            )
        from kerasgen.generation import stream  # which imports what decodes

        return stream(self.engine, prompt, configuration)

    @checked(GenerateArgumentError, elsewhere=as_sampler)
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
        """Return the assistant's answer to a conversation; see `Pipeline.chat`.

        Args:
            messages: as there.
            config: the settings; those given by name come first.
            tools: as there.
            template_arguments: as there.
            **settings: keyword arguments of `GenerationConfig`; a length is needed.

        Raises:
            ChatTemplateError: the artefact has no chat template, or it refuses the conversation.
            GenerateArgumentError: the artefact can't do what is asked.
        """
        prompt = self._asked(messages, tools, template_arguments)
        if self.engine is not None:
            from kerasgen.generation import conversing, generate

            configuration = self._looped("chat()", ChatSettings, config, settings)
            configuration = conversing.settings_of(configuration, self, prompt)
            return generate(self.engine, [prompt], configuration, start=False)[0]
        configuration = _configured("chat()", ChatSettings, config, settings)
        from kerasgen.generation.detokenize import write
        from kerasgen.generation.encoding import encode_prompts

        (ids,) = encode_prompts(self.tokenizer, [prompt], "all", start=False)
        start = self.tokenizer.start_token_id
        if start is not None and ids[:1] != [start]:
            raise GenerateArgumentError(
                f"{type(self).__name__} puts a start token before what it reads, and the chat template writes none. "
                "Chat with the pipeline that it was exported from."
            )
        (written,) = self.generate_ids([ids if start is None else ids[1:]], **given(configuration, ArtefactIdsSettings))
        return write(self.tokenizer, written, ended=bool(written) and written[-1] in self.tokenizer.end_token_ids)

    @checked(GenerateArgumentError, elsewhere=as_sampler)
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
            **settings: keyword arguments of `GenerationConfig`; a length is needed.

        Raises:
            ChatTemplateError: as for `chat`.
            GenerateArgumentError: as for `chat`, or the runtime doesn't show a text before it is complete.
        """
        if self.engine is None:
            raise GenerateArgumentError(f"{type(self).__name__} shows a text only when it is complete. Use chat.")
        prompt = self._asked(messages, tools, template_arguments)
        from kerasgen.generation import conversing, stream

        configuration = self._looped("chat_stream()", ChatStreamSettings, config, settings)
        return stream(self.engine, prompt, conversing.settings_of(configuration, self, prompt), start=False)

    def needed_template(self) -> Any:
        """Return the chat template.

        Raises:
            ChatTemplateError: the artefact has none.
        """
        if self.chat_template is None:
            raise ChatTemplateError(
                "This artefact holds no chat template: the model that it was exported from had none. Export it from a "
                "pipeline with chat_template=…."
            )
        return self.chat_template

    def _asked(self, messages: Any, tools: Iterable[Any] | None, template_arguments: Mapping[str, Any] | None) -> str:
        from kerasgen.generation import conversing

        return conversing.asked(self.needed_template(), messages, tools, template_arguments)

    def _looped(
        self, call: str, names: type[Any], config: GenerationConfig | None, settings: Mapping[str, Any]
    ) -> GenerationConfig:
        """Return the config of a call that kerasgen's decoding loops serve with this artefact's engine."""
        configuration = configured(call, names, config, settings)
        if configuration.max_new_tokens is configuration.max_length is None:
            message = f"{call} needs 'max_new_tokens'. Write {call.removesuffix('()')}(max_new_tokens=…)."
            raise call_error(GenerateArgumentError)(message)
        return with_defaults(configuration, sampler="greedy", seed=0)


def _configured(
    call: str, names: type[Any], config: GenerationConfig | None, settings: Mapping[str, Any]
) -> GenerationConfig:
    """Return the config of an artefact's call, with the defaults that all artefacts share."""
    configuration = configured(call, names, config, settings, needs=("max_new_tokens",))
    if isinstance(configuration.seed, tuple):
        raise GenerateArgumentError(
            f"An artefact takes one seed for all prompts. Received: seed={configuration.seed!r}."
        )
    return with_defaults(configuration, sampler="greedy", seed=0)


def _needs_loops(config: GenerationConfig | None, settings: Mapping[str, Any]) -> bool:
    """Whether a call asks for more than every runtime does by itself."""
    asked = {**(config.changed() if isinstance(config, GenerationConfig) else {}), **settings}
    several_seeds = isinstance(asked.get("seed"), Sequence)
    return several_seeds or any(name not in (*taken(ArtefactSettings), *SILENT) for name in asked)


def given(config: GenerationConfig, names: type[Any]) -> dict[str, Any]:
    """Return the settings of a config that a call takes, by name."""
    return {name: getattr(config, name) for name in taken(names)}


def new_tokens_of(config: GenerationConfig) -> int:
    """Return how many tokens a call of an artefact asks for, which it must say."""
    return config.max_new_tokens or 0


def check_prompts(
    runtime: Runtime, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: Any
) -> None:
    """Check the prompts of a call before any work.

    Args:
        runtime: the runtime that is called.
        prompts: ids without the start token.
        config: the config of the call.
        end_token_id: another token that ends a text; an id beyond the vocabulary never comes.

    Raises:
        GenerateArgumentError: one of them is of another kind or out of range, or a text would not fit.
    """
    if end_token_id is not None and not is_whole(end_token_id, 0, 2**31):
        raise GenerateArgumentError(f"`end_token_id` must be a token's id, or None. Received: {end_token_id!r}.")
    new_tokens = new_tokens_of(config)
    start, longest = (0 if runtime.tokenizer.start_token_id is None else 1), runtime.max_sequence_length
    for place, prompt in enumerate(prompts):
        check_ids(prompt, runtime.tokenizer, f"prompt {place}")
        if not start and not len(prompt):
            raise GenerateArgumentError(f"Prompt {place} is empty, and this model has no start token.")
        if longest is not None and start + len(prompt) + new_tokens > longest:
            raise GenerateArgumentError(
                f"Prompt {place} has {start + len(prompt)} tokens (its start token with them); {new_tokens} new "
                f"ones would be more than the {longest} positions of this artefact."
            )


def check_ids(token_ids: Any, tokenizer: Tokenizer, what: str) -> None:
    """Check that these are ids of a tokenizer's tokens.

    Raises:
        GenerateArgumentError: one is no whole number, or beyond the vocabulary; or they are text.
    """
    size = tokenizer.vocabulary_size
    if isinstance(token_ids, (str, bytes)):
        raise GenerateArgumentError(f"{what} is text where token ids are read. Received: {token_ids!r}.")
    wrong = [token_id for token_id in token_ids if not is_whole(token_id, 0, size)]
    if wrong:
        raise GenerateArgumentError(f"Token ids are whole numbers up to {size - 1}. Received: {wrong[0]!r} in {what}.")


def check_text(token_ids: Any, tokenizer: Tokenizer, longest: int | None) -> None:
    """Check a text whose logits are asked for.

    Raises:
        GenerateArgumentError: it holds no token, other things than ids, or more than the artefact can read.
    """
    check_ids(token_ids, tokenizer, "the text")
    if not len(token_ids) or (longest is not None and len(token_ids) > longest):
        raise GenerateArgumentError(
            f"A text must have from 1 to {longest} tokens for its logits to be read. Received: {len(token_ids)}."
        )


def is_whole(value: Any, least: int, end: int) -> bool:
    """Return whether a value is a whole number, NumPy's too, in `[least, end)`."""
    return not isinstance(value, bool) and hasattr(value, "__index__") and least <= value < end


def check_threads(threads: Any) -> None:
    """Check how many threads a runtime is asked to use.

    Raises:
        GenerateArgumentError: it is no whole number of at least 1.
    """
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise GenerateArgumentError(f"`threads` must be a whole number of at least 1. Received: threads={threads!r}.")
