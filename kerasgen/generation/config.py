"""`GenerationConfig`: every setting of a call that generates, checked once and documented here alone.

Imports the standard library only, so that an artefact's runtime takes the same value where there is no Keras.
"""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from kerasgen import bounds, constraints
from kerasgen.bounds import PositiveInt, Seed
from kerasgen.constraints.base import Constraint
from kerasgen.errors import GenerateArgumentError, call_error
from kerasgen.keywords import Checked
from kerasgen.samplers import resolving
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.foreign_arguments import as_sampler

if TYPE_CHECKING:
    from kerasgen.generation.engine_registry import EngineSource

F = TypeVar("F", bound=Callable[..., Any])

COUNTS = (
    "max_length",
    "max_new_tokens",
    "num_return_sequences",
    "batch_size",
    "prompt_lookup_num_tokens",
    "num_assistant_tokens",
)
"""The settings that are a `PositiveInt` or None."""


@dataclass(frozen=True, kw_only=True, repr=False)
class GenerationConfig(metaclass=Checked):
    """The settings of a call that generates: a value that can be compared, printed, saved and given to any call.

    A call that takes one takes its settings by name too; a name that is given overrides the config's.

    Args:
        max_length: tokens of a whole text; as in KerasHub, the start token, the prompt and an end token count.
        max_new_tokens: tokens generated after the prompt; give this or `max_length`. With neither, there are as many as
            the model has positions, or 256 in all where it has no limit.
        sampler: how tokens are chosen: a `SamplerSpec`, text such as `"top_k:k=40"`, or a `keras_hub.samplers.Sampler`
            instance; None for that of the pipeline. An artefact chooses greedily then.
        stop: strings at which a text ends, wherever they lie across tokens; the text is what stands before the first.
            A search (beam, contrastive) looks for them when its texts are complete.
        constraint: a form that every text has: a `Constraint` or text such as `"verse_form:form=七言絕句"`. Its masks
            come before all that the sampler excludes, and the text is complete when its limit comes. Only a stop
            string ends it sooner.
        valid_utf8: choose only tokens that keep the text valid UTF-8. A token that would end a character in its midst,
            and U+FFFD, is left out before the sampler chooses; log-probabilities, and the scores of beams, are of the
            model as it is. KerasHub's own samplers know nothing of it. False leaves the model the choice of all.
        num_return_sequences: texts for each prompt; each is its own draw, or one of the best that a beam search found.
            Given, even as 1, each prompt's texts come as a list.
        return_logprobs: return `GeneratedText` values, with log-probabilities, instead of strings.
        return_prompt: begin each text with its prompt, exactly as it was given.
        allowed_special: special tokens to read in a prompt, such as `"<|im_start|>"`, or `"all"`. The name of any other
            special token is text like all else.
        seed: seed of the draws, 0 to 2**64 - 1; one, or one for each prompt. None for the sampler's own, for the
            pipeline's where it has none, and for 0 where that has none.
        batch_size: texts generated at once, at most; prompts of like length share a batch. None for 32, or on a GPU or
            a TPU for up to 256, as far as a quarter of its free memory holds what is kept of them.
        prompt_lookup_num_tokens: most tokens proposed at once; they are copied from what followed the same tokens
            earlier in the text, and checked in one pass of the model. The text is the same as without, and comes sooner
            where it repeats its prompt or itself and the likeliest tokens are taken; drawn texts may come later. Texts
            are generated one at a time then. It needs a model that JAX decodes, and a sampler that is compiled. None
            proposes nothing.
        assistant_model: a smaller model of the same vocabulary that proposes tokens, which one pass of the model then
            checks: a `Pipeline`, a `LanguageModel`, or an address that `Pipeline(model=…)` loads. The text is the same
            as without, and comes sooner where the small one is often right. What `prompt_lookup_num_tokens` needs, this
            needs too, and the assistant must be one that JAX decodes. None asks none.
        num_assistant_tokens: tokens that the assistant proposes at once, at most, and fewer where it is often wrong;
            None for 5.
        engine: what decodes. `"keras"`, which `"auto"` chooses, is JAX for described models in float32, and for
            others the backend that Keras runs on. `"litert"` writes an artefact of the weights into the cache
            directory, once, and decodes that, to the same ids; `"litert:quantize=int8"` to others.
        progress: show a bar on standard error; None does where that is a terminal and there is more than one batch.

    Raises:
        GenerateArgumentError: a setting is of another kind or out of range, or two exclude each other.
        SamplerArgumentError: `sampler` is no sampler.
        ConstraintArgumentError: `constraint` is no constraint.
    """

    _argument_error = GenerateArgumentError
    _elsewhere = staticmethod(as_sampler)

    max_length: int | None = None
    max_new_tokens: int | None = None
    sampler: Any = None
    stop: str | Sequence[str] | None = None
    constraint: str | Constraint | None = None
    valid_utf8: bool = True
    num_return_sequences: int | None = None
    return_logprobs: bool = False
    return_prompt: bool = True
    allowed_special: str | Collection[str] = ()
    seed: int | Sequence[int] | None = None
    batch_size: int | None = None
    prompt_lookup_num_tokens: int | None = None
    assistant_model: Any = None
    num_assistant_tokens: int | None = None
    engine: str | EngineSource = "auto"
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_new_tokens is not None:
            raise GenerateArgumentError(
                "Give `max_length`, which counts the prompt, or `max_new_tokens`, which doesn't. Received: "
                f"max_length={self.max_length}, max_new_tokens={self.max_new_tokens}."
            )
        for name in COUNTS:
            self._set(name, _count(name, getattr(self, name)))
        if self.sampler is not None:
            self._set("sampler", resolving.resolve(self.sampler))
        self._set("stop", _stop_strings(self.stop))
        if self.constraint is not None:
            self._set("constraint", constraints.REGISTRY.resolve(self.constraint))
        for name in ("valid_utf8", "return_logprobs", "return_prompt"):
            if not isinstance(getattr(self, name), bool):
                raise GenerateArgumentError(f"`{name}` must be True or False. Received: {getattr(self, name)!r}.")
        copies, num_beams = self.num_return_sequences, getattr(self.sampler, "num_beams", None)
        if copies is not None and num_beams is not None and copies > num_beams:
            raise GenerateArgumentError(
                f"Beam search over {num_beams} texts can return as many at most. Received: "
                f"num_return_sequences={copies}. Raise `num_beams`."
            )
        self._set("allowed_special", _names(self.allowed_special))
        self._set("seed", _seeds(self.seed))
        self._check_assistant()

    def _check_assistant(self) -> None:
        assistant = self.assistant_model
        if assistant is None:
            if self.num_assistant_tokens is not None:
                raise GenerateArgumentError(
                    "`num_assistant_tokens` says how many tokens `assistant_model` proposes. Received: "
                    f"num_assistant_tokens={self.num_assistant_tokens} without an assistant_model."
                )
            return
        if isinstance(assistant, os.PathLike):  # written as a path, so that it can't be a preset's name
            path = os.fspath(assistant)
            assistant = path if os.sep in path else f"{os.curdir}{os.sep}{path}"
            self._set("assistant_model", assistant)
        # A Pipeline has a `text_space`, a model or an engine a `tokenizer`, a source of models `load`.
        named = ("text_space", "tokenizer", "load")
        is_model = not isinstance(assistant, type) and any(hasattr(assistant, name) for name in named)
        if not (assistant if isinstance(assistant, str) else is_model):
            raise GenerateArgumentError(
                "`assistant_model` must be a Pipeline, a LanguageModel, or an address that Pipeline(model=…) takes, "
                f"such as 'starter'. Received: {assistant!r:.80}."
            )
        if self.prompt_lookup_num_tokens is not None:
            raise GenerateArgumentError(
                "`prompt_lookup_num_tokens` and `assistant_model` both propose what comes next. Received both: give "
                "one of them."
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # as it is compared, printed and saved

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.changed().items())})"

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings of `stop`; none for None."""
        return tuple(self.stop or ())

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, by name."""
        return {name: getattr(self, name) for name in FIELDS if not _equal(getattr(self, name), _DEFAULTS[name])}

    def override(self, settings: Mapping[str, Any]) -> GenerationConfig:
        """Return the config with some settings replaced.

        Of the two lengths, and of the two that propose tokens, the one that is given counts.

        Args:
            settings: by name.

        Raises:
            GenerateArgumentError: one of them is wrong.
        """
        changes = dict(settings)
        if changes.get("max_length") is not None:
            changes.setdefault("max_new_tokens", None)
        elif changes.get("max_new_tokens") is not None:
            changes.setdefault("max_length", None)
        if changes.get("assistant_model") is not None:
            changes.setdefault("prompt_lookup_num_tokens", None)
        elif changes.get("prompt_lookup_num_tokens") is not None:
            changes.setdefault("assistant_model", None)
        if changes.get("assistant_model", self.assistant_model) is None:
            changes.setdefault("num_assistant_tokens", None)
        return dataclasses.replace(self, **changes) if changes else self


class ArtefactIdsSettings(TypedDict, total=False):
    """What an artefact's `generate_ids` takes by name; each is documented by `GenerationConfig`."""

    max_new_tokens: int | None
    sampler: Any
    valid_utf8: bool
    seed: int | Sequence[int] | None


class ArtefactSettings(ArtefactIdsSettings, total=False):
    """What an artefact takes by name."""

    return_prompt: bool
    allowed_special: str | Collection[str]


class StreamSettings(ArtefactSettings, total=False):
    """What `stream` takes by name."""

    max_length: int | None
    stop: str | Sequence[str] | None
    constraint: str | Constraint | None
    prompt_lookup_num_tokens: int | None
    assistant_model: Any
    num_assistant_tokens: int | None
    engine: str | EngineSource


class TextSettings(StreamSettings, total=False):
    """What `generate` takes by name where it returns a string for each prompt."""

    batch_size: int | None
    progress: bool | None


class GenerationSettings(TextSettings, total=False):
    """What `generate` takes by name: all that `GenerationConfig` has."""

    num_return_sequences: int | None
    return_logprobs: bool


class ChatStreamSettings(TypedDict, total=False):
    """What `chat_stream` takes by name: what `stream` does, but for how its prompt is read and shown."""

    max_length: int | None
    max_new_tokens: int | None
    sampler: Any
    stop: str | Sequence[str] | None
    constraint: str | Constraint | None
    valid_utf8: bool
    seed: int | Sequence[int] | None
    prompt_lookup_num_tokens: int | None
    assistant_model: Any
    num_assistant_tokens: int | None
    engine: str | EngineSource


class ChatSettings(ChatStreamSettings, total=False):
    """What `chat` takes by name: what `generate` does, but for how its prompt is read and shown."""

    num_return_sequences: int | None
    return_logprobs: bool


class IdsSettings(TypedDict, total=False):
    """What `generate_ids` takes by name: all that does not speak of text."""

    max_length: int | None
    max_new_tokens: int | None
    sampler: Any
    stop: str | Sequence[str] | None
    constraint: str | Constraint | None
    valid_utf8: bool
    num_return_sequences: int | None
    seed: int | Sequence[int] | None
    batch_size: int | None
    prompt_lookup_num_tokens: int | None
    assistant_model: Any
    num_assistant_tokens: int | None
    engine: str | EngineSource
    progress: bool | None


FIELDS = tuple(field.name for field in dataclasses.fields(GenerationConfig))
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(GenerationConfig)}
SILENT = ("batch_size", "prompt_lookup_num_tokens", "assistant_model", "num_assistant_tokens", "progress")
"""Settings on which no text depends."""


def taken(settings: type[Any]) -> tuple[str, ...]:
    """Return the names of a TypedDict of settings, in the order of the config's fields."""
    return tuple(name for name in FIELDS if name in settings.__annotations__)


def takes(settings: type[Any]) -> Callable[[F], F]:
    """Return a decorator that shows what a function's `**settings` are, in its signature and in its documentation.

    Args:
        settings: a TypedDict of names that `GenerationConfig` has.
    """
    names = taken(settings)

    def decorate(function: F) -> F:
        hints = inspect.get_annotations(GenerationConfig)
        parameters = list(inspect.signature(function).parameters.values())
        own = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
        by_name = inspect.Parameter.KEYWORD_ONLY
        own += [
            inspect.Parameter(name, by_name, default=_DEFAULTS[name], annotation=hints[name])
            for name in names
            if name not in [parameter.name for parameter in own]
        ]
        function.__signature__ = inspect.signature(function).replace(parameters=own)  # type: ignore[attr-defined]
        if function.__doc__:
            function.__doc__ = _documented(function.__doc__, names)
        return function

    return decorate


def configured(
    call: str,
    settings: type[Any],
    config: Any,
    arguments: Mapping[str, Any],
    *,
    default: GenerationConfig | None = None,
    needs: Iterable[str] = (),
) -> GenerationConfig:
    """Return the config of a call: its own or the default one, overridden by what is given by name.

    Args:
        call: its name, for messages.
        settings: a TypedDict of the names that the call takes.
        config: a `GenerationConfig`, or None.
        arguments: settings by name.
        default: where `config` is None; of its settings those that the call takes count.
        needs: names that must be given by either.

    Raises:
        TypeError: a name is none that the call takes; `keywords.checked` says it in words.
        GenerateArgumentError: a setting is wrong, missing, or none that the call takes.
    """
    names = taken(settings)
    if any(name not in names for name in arguments):
        raise TypeError(f"{call} got an unexpected keyword argument")
    if config is not None and not isinstance(config, GenerationConfig):
        raise GenerateArgumentError(
            f"{call} takes a kg.GenerationConfig without a name, as `config`. Received besides: {config!r:.80}. "
            f"By name it takes: {', '.join(names)}."
        )
    if config is not None:
        beyond = [f"{name}={value!r}" for name, value in config.changed().items() if name not in (*names, *SILENT)]
        if beyond:
            raise GenerateArgumentError(
                f"{call} takes {', '.join(names)}. Received besides, in `config`: {', '.join(beyond)}. Leave it out."
            )
    base = config or default or GenerationConfig()
    beyond_names = [name for name in base.changed() if name not in names]
    configuration = base.override({name: _DEFAULTS[name] for name in beyond_names} | dict(arguments))
    for name in needs:
        if getattr(configuration, name) is None:
            message = f"{call} needs {name!r}. Write {call.removesuffix('()')}({name}=…)."
            raise call_error(GenerateArgumentError)(message)
    return configuration


def with_defaults(config: GenerationConfig, *, sampler: Any, seed: int | Sequence[int]) -> GenerationConfig:
    """Return a config that has a sampler and a seed: these where it has none, a sampler's own seed before this one.

    Args:
        config: of a call.
        sampler: where the config has none.
        seed: where neither the config nor the sampler has one.
    """
    chosen = resolving.resolve(sampler) if config.sampler is None else config.sampler
    own = chosen.seed if isinstance(chosen, SamplerSpec) else None
    fallback = seed if own is None else own
    return config.override({"sampler": chosen, "seed": fallback if config.seed is None else config.seed})


def _documented(documentation: str, names: Sequence[str]) -> str:
    """Return a call's documentation, with the config's text of each setting in place of its `**settings`."""
    entries = "".join(f"    {name}: {text}" for name, text in _entries().items() if name in names)
    return re.sub(r"^ +\*\*settings: .*\n(?: {8}.*\n)*", lambda _: entries, inspect.cleandoc(documentation), flags=re.M)


def summary(name: str) -> str:
    """Return the first words of a setting's documentation, as a help text takes them; empty where there is none."""
    return re.split(r"[.;:]\s", " ".join(_entries().get(name, "").split()) + " ", maxsplit=1)[0].strip()


def _entries() -> dict[str, str]:
    """Return the documentation of each setting, by name."""
    documentation = inspect.getdoc(GenerationConfig) or ""
    return dict(re.findall(r"^ {4}(\w+): (.*\n(?: {8}.*\n)*)", documentation, re.MULTILINE))


def _equal(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and bool(value == default))


def _count(name: str, value: Any) -> int | None:
    """Check for a whole number of at least 1, or None."""
    if value is None:
        return None
    whole = _whole(value)
    if not bounds.accepts(whole, PositiveInt):
        shown = f"{name}=" if name.startswith("max_") else ""
        raise GenerateArgumentError(f"`{name}` must be {bounds.say(PositiveInt)}. Received: {shown}{value!r}.")
    return int(whole)


def _whole(value: Any) -> Any:
    """Return an int for a whole number of another library, such as NumPy's; anything else as it is."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return int(value) if is_whole else value


def _stop_strings(stop: Any) -> tuple[str, ...] | None:
    is_collection = stop is None or (isinstance(stop, Iterable) and not isinstance(stop, (str, bytes)))
    strings: tuple[Any, ...] = tuple(stop or ()) if is_collection else (stop,)
    if not all(isinstance(string, str) and string for string in strings):
        raise GenerateArgumentError(f"`stop` must be strings that are not empty. Received: stop={stop!r}.")
    return strings or None


def _names(allowed: Any) -> str | tuple[str, ...]:
    """Return `"all"`, or the names sorted."""
    names = (allowed,) if isinstance(allowed, str) else tuple(allowed) if isinstance(allowed, Iterable) else (None,)
    if names == ("all",):
        return "all"
    if not all(isinstance(name, str) and name for name in names):
        raise GenerateArgumentError(
            f"`allowed_special` must be 'all' or names of special tokens. Received: allowed_special={allowed!r}."
        )
    return tuple(sorted(set(names)))


def _seeds(seed: Any) -> int | tuple[int, ...] | None:
    if seed is None:
        return None
    is_one = not isinstance(seed, Iterable) or isinstance(seed, str)
    seeds = (seed,) if is_one else tuple(seed)
    for value in seeds:
        if not bounds.accepts(_whole(value), Seed):
            raise GenerateArgumentError(f"`seed` must be {bounds.say(Seed)}. Received: seed={value!r}.")
    return int(seeds[0]) if is_one else tuple(map(int, seeds))
