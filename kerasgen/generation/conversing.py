"""Turns a conversation into the prompt of a call, and settings of a call into those of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kerasgen.chat.template import ChatTemplate
from kerasgen.corpora.base import Conversation
from kerasgen.corpora.conversations import ConversationError, conversation
from kerasgen.errors import GenerateArgumentError
from kerasgen.generation.config import GenerationConfig
from kerasgen.generation.encoding import encode_prompts
from kerasgen.generation.engine import TextSpace

_OWN_ARGUMENTS = ("messages", "tools", "documents", "add_generation_prompt")

MAX_NEW_TOKENS = 1024
"""Tokens of an answer at most, where neither a call nor its config says how many."""


def asked(
    template: ChatTemplate,
    messages: Any,
    tools: Iterable[Any] | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> str:
    """Return what a model reads before its answer.

    Args:
        template: the model's.
        messages: the conversation, which ends with a user's message or a tool's, or a user's message alone, as text.
        tools: JSON schemas of tools that the template may tell of.
        template_arguments: further values that the template asks for.

    Raises:
        GenerateArgumentError: `messages` is no conversation that an answer can follow.
        ChatTemplateError: the template refuses it.
    """
    talk = checked_talk(messages, tools)
    given = [name for name in template_arguments or {} if name in _OWN_ARGUMENTS]
    if given:
        raise GenerateArgumentError(
            f"`template_arguments` are further values of a template. Received: {', '.join(map(repr, given))}, which "
            "the call says itself."
        )
    return template.render(talk, add_generation_prompt=True, arguments=template_arguments)


def checked_talk(messages: Any, tools: Iterable[Any] | None = None) -> Conversation:
    """Return a conversation that an answer can follow.

    Args:
        messages: as of `asked`.
        tools: as there.

    Raises:
        GenerateArgumentError: `messages` is no such conversation.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, Iterable) and not isinstance(messages, (Sequence, Mapping)):
        messages = list(messages)
    if isinstance(tools, Iterable) and not isinstance(tools, (str, Mapping)):
        tools = list(tools)
    try:
        return conversation(messages, tools, answered=False)
    except ConversationError as fault:
        raise GenerateArgumentError(
            f"No answer can follow these messages: {fault.what}. A conversation is a list of "
            "{'role': 'system', 'user', 'assistant' or 'tool', 'content': …}. "
            f"Received: {messages!r:.100}."
        ) from fault


def settings_of(config: GenerationConfig, space: TextSpace, prompt: str) -> GenerationConfig:
    """Return the settings of an answer: the prompt is not returned, and special tokens in it are those.

    Args:
        config: of the call.
        space: the text space whose positions bound the answer.
        prompt: what `asked` returned.
    """
    changes: dict[str, Any] = {"return_prompt": False, "allowed_special": "all"}
    if config.max_length is config.max_new_tokens is None:
        positions = space.max_sequence_length
        room = MAX_NEW_TOKENS
        if positions is not None:
            (ids,) = encode_prompts(space.tokenizer, [prompt], "all", start=False)
            room = max(1, min(room, positions - len(ids)))
        changes["max_new_tokens"] = room
    return config.override(changes)
