"""Makes texts of a request's body: what OpenAI's API calls a completion or a chat completion."""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kerasgen.constraints.base import Constraint
from kerasgen.constraints.valid_utf8 import masks_of
from kerasgen.errors import ConstraintArgumentError, KerasgenError
from kerasgen.generation.detokenize import Writer
from kerasgen.samplers.base import TokenSampler
from kerasgen.serving.fields import Fields, RequestError
from kerasgen.serving.served_model import ServedModel
from kerasgen.serving.settings import ServerSettings
from kerasgen.serving.texts import MOST_LOGPROBS, Event, Text
from kerasgen.tokens.base import Tokenizer

_COMPLETION_TOKENS = 16
"""Tokens of a completion where a request says nothing, as OpenAI's API has it."""
_ANSWER_TOKENS = 1024
_MOST_COPIES = 128
_MOST_STOPS = 16
_LEAST_TEMPERATURE = 1e-4  # below it, the likeliest token
# Fields of OpenAI's API that change no text here.
_SILENT = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
    "parallel_tool_calls", "verbosity", "reasoning_effort", "prediction",
)  # fmt: skip

Tell = Callable[[Text, list[Event]], None]


@dataclass(frozen=True)
class Prompt:
    """The prompt of a text, as text or token ids.

    Args:
        ids: as the model reads them, the start token with them.
        shown: how many of the last ids the client gave; what stands before them was put there.
        text: of the prompt, for `echo`.
        begins: whether a text begins with its first token, so that a space which encoding puts there is not shown.
    """

    ids: tuple[int, ...]
    shown: int
    text: str
    begins: bool = False


@dataclass(frozen=True)
class Asked:
    """A request that was read.

    Args:
        prompts: of a completion any number; of a chat one.
        copies: texts of each prompt.
        sampler: chooses tokens.
        seed: of the draws.
        max_new_tokens: of each text, 0 for one that is only read; None for as many as there is room for.
        stop: strings before which a text ends.
        logprobs: how many likeliest tokens are told of with each; None for no log-probabilities.
        echo: whether the prompt stands before its text.
        constraint: the form, or None.
        valid_utf8: whether texts are kept valid UTF-8.
        stream: whether the answer comes in pieces.
        stream_usage: whether its last piece tells of the tokens.
        is_chat: whether it is a chat.
    """

    prompts: tuple[Prompt, ...]
    copies: int
    sampler: TokenSampler
    seed: int
    max_new_tokens: int | None
    stop: tuple[str, ...]
    logprobs: int | None
    echo: bool
    constraint: Constraint | None
    valid_utf8: bool
    stream: bool
    stream_usage: bool
    is_chat: bool


def completion(body: Mapping[str, Any], model: ServedModel) -> Asked:
    """Read a completion's body.

    Raises:
        RequestError: it can't be carried out as written.
    """
    fields = Fields(body)
    prompts = _prompts(fields.get("prompt"), model.tokenizer)
    logprobs = fields.whole("logprobs", None, most=MOST_LOGPROBS)
    echo, max_tokens = fields.flag("echo"), fields.whole("max_tokens", _COMPLETION_TOKENS)
    best_of = fields.whole("best_of", None, least=1)
    if best_of is not None and best_of != fields.whole("n", 1, least=1):
        raise RequestError(f"`best_of` must be `n` here. Received: {best_of}. Leave it out.", "best_of")
    fields.refuse("suffix", unless=("",), why="is for models that fill a gap, and this one goes on from a prompt")
    if not max_tokens and not echo:
        raise RequestError(
            "`max_tokens` of 0 goes with `echo`, for there would be no text. Ask for 1 or more.", "max_tokens"
        )
    return _asked(fields, model, prompts, max_new_tokens=max_tokens, logprobs=logprobs, echo=echo, is_chat=False)


def chat(body: Mapping[str, Any], model: ServedModel) -> Asked:
    """Read a chat completion's body.

    Raises:
        RequestError: it can't be carried out as written, or the model has no chat template.
    """
    from kerasgen.generation import conversing
    from kerasgen.generation.encoding import encode_prompts

    fields = Fields(body)
    messages, tools = fields.get("messages"), fields.get("tools")
    if model.template is None:
        raise RequestError(
            f"The model {model.name!r} has no chat template, so it can't chat. Ask /v1/completions, or serve it with "
            "--chat-template chatml once it was tuned on conversations.",
            "messages",
            code="no_chat_template",
        )
    if not isinstance(messages, list):
        raise RequestError(f"`messages` must be a list of messages. Received: {messages!r:.80}.", "messages")
    arguments = fields.get("chat_template_kwargs")
    if arguments is not None and not isinstance(arguments, dict):
        raise RequestError(
            f"`chat_template_kwargs` must be an object. Received: {arguments!r:.80}.", "chat_template_kwargs"
        )
    try:
        written = conversing.asked(model.template, [_message(one) for one in messages], tools, arguments)
    except RequestError:
        raise
    except KerasgenError as error:
        raise RequestError(str(error), "messages") from error
    (ids,) = encode_prompts(model.tokenizer, [written], "all", start=False)
    wants, count = fields.flag("logprobs"), fields.whole("top_logprobs", None, most=MOST_LOGPROBS)
    if count is not None and not wants:
        raise RequestError("`top_logprobs` goes with `logprobs` true.", "top_logprobs")
    fields.refuse("tool_choice", unless=("auto", "none"), why="can't be enforced here")
    for name in ("functions", "function_call"):
        fields.refuse(name, unless=(), why="is an old name of `tools`")
    fields.refuse("audio", unless=(), why="asks for sound, and this model writes text")
    fields.refuse("modalities", unless=(["text"],), why="asks for more than text")
    older = fields.whole("max_tokens", None, least=1)
    max_tokens = fields.whole("max_completion_tokens", older, least=1)
    logprobs = (count or 0) if wants else None
    prompt = Prompt(tuple(ids), len(ids), written)
    return _asked(fields, model, (prompt,), max_new_tokens=max_tokens, logprobs=logprobs, echo=False, is_chat=True)


def _message(message: Any) -> Any:
    """Return a message whose content is text where it came in parts, and whose developer is the system.

    Raises:
        RequestError: a part is no text.
    """
    if not isinstance(message, dict):
        return message
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content
        ]
        if not all(isinstance(part, str) for part in parts):
            raise RequestError(
                f"This model reads text alone. Received: {content!r:.80}.", "messages", code="unsupported"
            )
        content = "".join(map(str, parts))
    role = "system" if message.get("role") == "developer" else message.get("role")
    return message | {"role": role, "content": content}


def _asked(
    fields: Fields,
    model: ServedModel,
    prompts: tuple[Prompt, ...],
    *,
    max_new_tokens: int | None,
    logprobs: int | None,
    echo: bool,
    is_chat: bool,
) -> Asked:
    """Read what completions and chats share."""
    for name in ("frequency_penalty", "presence_penalty"):
        fields.refuse(name, unless=(0, 0.0), why="is not known here; `repetition_penalty` is")
    fields.refuse("logit_bias", unless=({},), why="is not known here")
    if logprobs is not None and not model.decoder.shows_logprobs:
        raise RequestError(f"{model.name!r} runs in a runtime that shows no log-probabilities.", "logprobs")
    constraint = _constraint(fields, is_chat=is_chat)
    if constraint is not None and not model.decoder.shows_logprobs:
        raise RequestError(f"{model.name!r} runs in a runtime that takes no constraints.", "constraint")
    options = fields.get("stream_options") or {}
    stream = fields.flag("stream")
    if not isinstance(options, dict) or (options and not stream):
        raise RequestError("`stream_options` is an object that goes with `stream`.", "stream_options")
    sampler, seed = _sampler(fields, model.sampler), fields.whole("seed", None, least=-(2**63), most=2**64 - 1)
    copies = fields.whole("n", 1, least=1, most=_MOST_COPIES)
    valid_utf8 = True if fields.get("valid_utf8") is None else fields.flag("valid_utf8")
    stop = fields.strings("stop", most=_MOST_STOPS)
    name = fields.get("model")
    fields.ignore(_SILENT)
    fields.finish()
    if name is not None and name != model.name:
        raise RequestError(
            f"The model {name!r:.80} is not served here; {model.name!r} is.",
            "model",
            status=404,
            code="model_not_found",
        )
    if seed is None:
        seed = secrets.randbits(63)
    return Asked(
        prompts,
        copies,
        sampler,
        seed % 2**64,
        max_new_tokens,
        stop,
        logprobs,
        echo,
        constraint,
        valid_utf8,
        stream,
        bool(options.get("include_usage")),
        is_chat,
    )


def texts_of(asked: Asked, model: ServedModel, settings: ServerSettings, tell: Tell) -> list[Text]:
    """Return the texts of a request, the copies of each prompt one after another.

    Raises:
        RequestError: a prompt is too long, or no text of the form can follow it.
    """
    tokenizer, texts = model.tokenizer, []
    count = len(asked.prompts) * asked.copies
    if count > settings.queue_size + model.decoder.capacity:
        most = settings.queue_size + model.decoder.capacity
        raise RequestError(
            f"A request may ask for {most} texts here. Received: {count}.", "n" if asked.is_chat else "prompt"
        )
    for prompt in asked.prompts:
        limit = _limit(asked, prompt, model, settings)
        for copy in range(asked.copies):
            try:
                model.decoder.check(prompt.ids, limit)
                states = _begun(asked.constraint, tokenizer, prompt, limit)
            except KerasgenError as error:
                raise RequestError(str(error), "constraint" if asked.constraint is not None else "prompt") from error
            is_whole = asked.constraint is not None and type(asked.constraint).begin is Constraint.begin
            texts.append(
                Text(
                    prompt.ids,
                    limit,
                    asked.sampler,
                    asked.seed,
                    copy,
                    Writer(tokenizer, asked.stop, begins=prompt.begins and asked.constraint is None),
                    tell,
                    asked.stream,
                    states,
                    masks_of(tokenizer) if asked.valid_utf8 and not is_whole else None,
                    asked.logprobs,
                    asked.echo and asked.logprobs is not None,
                )
            )
    return texts


def _begun(constraint: Constraint | None, tokenizer: Tokenizer, prompt: Prompt, limit: int) -> Any:
    if constraint is None:
        return None
    first = 1 if tokenizer.start_token_id is not None and prompt.ids[:1] == (tokenizer.start_token_id,) else 0
    return constraint.begin(tokenizer, prompt.ids[first:], limit - len(prompt.ids))


def _limit(asked: Asked, prompt: Prompt, model: ServedModel, settings: ServerSettings) -> int:
    """Return how many tokens a text may have, its prompt with them."""
    length, positions = len(prompt.ids), model.max_sequence_length
    wanted = asked.max_new_tokens
    most = settings.max_new_tokens
    if most is not None and wanted is not None and wanted > most:
        raise RequestError(
            f"A text may get {most} tokens here at most. Received: {wanted}.",
            "max_completion_tokens" if asked.is_chat else "max_tokens",
        )
    if wanted is None:
        wanted = min(_ANSWER_TOKENS, most or _ANSWER_TOKENS)
        if positions is not None:
            wanted = max(1, min(wanted, positions - length))
    if positions is not None and length + wanted > positions:
        raise RequestError(
            f"This model has {positions} positions. The prompt has {length} tokens (with what is put before it), and "
            f"{wanted} more were asked for. Shorten the prompt, or ask for fewer.",
            "messages" if asked.is_chat else "prompt",
            code="context_length_exceeded",
        )
    return length + wanted


def _prompts(given: Any, tokenizer: Tokenizer) -> tuple[Prompt, ...]:
    """Read `prompt`: a text, several, the token ids of one, or those of several."""
    if given is None:
        given = ""
    several: list[Any]
    if isinstance(given, str) or (isinstance(given, list) and given and all(map(_is_id, given))):
        several = [given]
    elif isinstance(given, list) and given:
        several = given
    else:
        several = [None]
    prompts = []
    start, size = tokenizer.start_token_id, tokenizer.vocabulary_size
    for one in several:
        if isinstance(one, str):
            ids, text = tokenizer.encode(one), one
        elif isinstance(one, list) and one and all(map(_is_id, one)):
            ids = one
            wrong = [token_id for token_id in ids if not 0 <= token_id < size]
            if wrong:
                raise RequestError(f"Token ids must lie between 0 and {size - 1}. Received: {wrong[0]}.", "prompt")
            text = tokenizer.decode(ids)
        else:
            raise RequestError(
                "`prompt` must be a text, a list of texts, the token ids of a text, or a list of those. "
                f"Received: {given!r:.80}.",
                "prompt",
            )
        whole = ids if start is None or ids[:1] == [start] else [start, *ids]
        if not whole:
            raise RequestError("An empty prompt needs a start token, which this model doesn't have.", "prompt")
        prompts.append(Prompt(tuple(whole), len(ids), text, begins=not ids))
    return tuple(prompts)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _sampler(fields: Fields, default: TokenSampler) -> TokenSampler:
    """Return what chooses tokens: the served one, changed by what the request says."""
    from kerasgen.samplers import resolving
    from kerasgen.samplers.sampling import Greedy, MinP, Random, TopK, TopP
    from kerasgen.serving.mixed_sampler import TopKTopP

    named = fields.get("sampler")
    temperature = fields.number("temperature", least=0, most=1000)
    top_p, min_p = fields.number("top_p", least=0, most=1), fields.number("min_p", least=0, most=1)
    top_k = fields.whole("top_k", None, least=-1)
    penalty = fields.number("repetition_penalty", least=1e-3, most=1000)
    shared: dict[str, Any] = {} if penalty is None else {"repetition_penalty": penalty}
    if named is not None:
        if not isinstance(named, str) or not (temperature is top_p is min_p is top_k is penalty is None):
            raise RequestError(
                "`sampler` is a name with settings, such as 'top_p:p=0.9,temperature=0.8', and goes without "
                "`temperature` and the others.",
                "sampler",
            )
        try:
            sampler = resolving.resolve(named)
        except KerasgenError as error:
            raise RequestError(str(error), "sampler") from error
        if not isinstance(sampler, TokenSampler):
            raise RequestError(f"A server's sampler chooses token by token. Received: {named!r}.", "sampler")
        return sampler
    if temperature is top_p is min_p is top_k is None:
        return dataclasses.replace(default, **shared)
    if temperature is not None and temperature < _LEAST_TEMPERATURE:
        return Greedy(**shared)
    if temperature is not None:
        shared["temperature"] = temperature
    k = None if top_k is None or top_k < 1 else top_k
    p = None if top_p is None or top_p >= 1 else max(top_p, 1e-6)
    if min_p and (k is not None or p is not None):
        raise RequestError("`min_p` goes without `top_p` and `top_k`.", "min_p")
    if min_p:
        return MinP(p=min_p, **shared)
    if k is not None and p is not None:
        return TopKTopP(k=k, p=p, **shared)
    if k is not None:
        return TopK(k=k, **shared)
    if p is not None:
        return TopP(p=p, **shared)
    if top_k is top_p is None and default.draws:  # a temperature alone is that of the model's own sampler
        return dataclasses.replace(default, **shared)
    return Random(**shared)


def _constraint(fields: Fields, *, is_chat: bool) -> Constraint | None:
    """Return the form that a request asks for, by `constraint` or by `response_format`."""
    from kerasgen import constraints

    given, shape = fields.get("constraint"), fields.get("response_format")
    if isinstance(shape, dict) and shape.get("type") == "text":
        shape = None
    if given is not None and shape is not None:
        raise RequestError("`constraint` and `response_format` both say what form a text has. Give one.", "constraint")
    try:
        if shape is not None:
            return _of_shape(shape)
        if given is None:
            return None
        if isinstance(given, dict) and isinstance(given.get("name"), str):
            settings = {name: value for name, value in given.items() if name != "name"}
            constraint = constraints.REGISTRY.build(given["name"], settings)
        elif isinstance(given, str):
            constraint = constraints.create(given)
        else:
            raise RequestError(
                "`constraint` is text such as 'verse_form:form=七言絕句', or an object with a `name` and settings. "
                f"Received: {given!r:.80}.",
                "constraint",
            )
        return dataclasses.replace(constraint, whole_text=False) if is_chat else constraint
    except RequestError:
        raise
    except KerasgenError as error:
        raise RequestError(str(error), "response_format" if given is None else "constraint") from error


def _of_shape(shape: Any) -> Constraint:
    """Return the constraint of a `response_format`.

    Raises:
        RequestError: it is of another kind, or its schema holds what no regular expression can say.
    """
    from kerasgen.constraints.regex import Regex

    kind = shape.get("type") if isinstance(shape, dict) else None
    schema: Any = {"type": "object"}
    if kind == "json_schema":
        schema = (shape.get("json_schema") or {}).get("schema") if isinstance(shape.get("json_schema"), dict) else None
    if kind not in ("json_object", "json_schema") or not isinstance(schema, dict):
        raise RequestError(
            "`response_format` must be {'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', "
            f"'json_schema': {{'schema': …}}}}. Received: {shape!r:.80}.",
            "response_format",
        )
    Regex(pattern="")  # says what to install where outlines-core is missing
    from outlines_core import json_schema

    try:
        return Regex(pattern=json_schema.build_regex_from_schema(json.dumps(schema, allow_nan=False)), whole_text=False)
    except (ValueError, TypeError, ConstraintArgumentError) as cause:
        raise RequestError(
            f"This JSON schema can't be written as a regular expression: {cause!s:.300}.", "response_format"
        ) from cause


def prompt_tokens(asked: Asked) -> int:
    """Return how many tokens the prompts have."""
    return sum(len(prompt.ids) for prompt in asked.prompts)


def shown(asked: Asked, scored: Sequence[Any], number: int) -> list[Any]:
    """Return those of a prompt's tokens that the client gave."""
    prompt = asked.prompts[number // asked.copies]
    return list(scored[len(prompt.ids) - prompt.shown :])
