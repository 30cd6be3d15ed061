"""Conversations become documents from files and from Python, and what is wrong with one is said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kerasgen as kg
from kerasgen.errors import CorpusArgumentError, CorpusFormatError

pytestmark = pytest.mark.one_backend

SYSTEM = {"role": "system", "content": "Be kind."}
ASKED = {"role": "user", "content": "Who?"}
SAID = {"role": "assistant", "content": "Nobody."}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
TOLD = {"role": "tool", "content": "3"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_field_of_messages_is_a_conversation_whose_answers_are_learned(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [SYSTEM, ASKED, SAID], "tools": [{"name": "look"}], "from": "me"})
    (document,) = kg.Jsonl(path, messages="messages").documents()
    assert document.text == "Be kind.\nWho?\nNobody."
    assert [(part.text, part.weight, part.role) for part in document.parts if part.role] == [
        ("Be kind.", 0, "system"),
        ("Who?", 0, "user"),
        ("Nobody.", 1.0, "assistant"),
    ]
    assert document.metadata == {"from": "me"}
    assert document.conversation.tools == ({"name": "look"},)
    assert kg.corpora.create(f"jsonl:path={path},messages=messages") == kg.Jsonl(path, messages="messages")


def test_a_column_of_messages_holds_json(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    talk = json.dumps([ASKED, SAID]).replace('"', '""')
    path.write_text(f'talk,tools\n"{talk}",\n', encoding="utf-8")
    (document,) = kg.Csv(path, messages="talk").documents()
    assert document.text == "Who?\nNobody."
    assert document.conversation.tools is None
    path.write_text("talk\n[1\n", encoding="utf-8")
    with pytest.raises(CorpusFormatError, match="line 2: its column 'talk' is not JSON"):
        list(kg.Csv(path, messages="talk").documents())


WRONG = [
    ([ASKED, {"role": "assistant", "content": " "}], "message 1, an answer of the assistant, is empty"),
    ([ASKED, {"role": "assistant"}], "message 1 has no content"),
    ([ASKED, {"role": "asistant", "content": "x"}], "message 1 has the role 'asistant'"),
    ([{"content": "x"}], "message 0 has no role"),
    ([ASKED, ASKED, SAID], "message 1, of 'user', stands after one of 'user'"),
    ([SAID], "message 0, of 'assistant', stands at the beginning"),
    ([ASKED, SYSTEM, SAID], "message 1, of 'system'"),
    ([ASKED, TOLD, SAID], "message 1, of 'tool'"),
    ([ASKED, SAID, ASKED], "its last message is of 'user'"),
    ([], "the conversation has no message"),
    ("Who?", "a conversation is a list of messages"),
    ([ASKED, "Nobody."], "message 1 is 'Nobody.'"),
    ([ASKED, {"role": "assistant", "content": 3}], "message 1 has a content that is no text"),
    ([ASKED, {**SAID, "weight": -1}], "message 1 has the weight -1"),
]


@pytest.mark.parametrize(("messages", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_conversation_is_named_with_its_line(messages: Any, said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"messages": [ASKED, SAID]}, {"messages": messages})
    with pytest.raises(CorpusFormatError) as caught:
        list(kg.Jsonl(path, messages="messages").documents())
    assert f"line 2: {said}" in str(caught.value)
    assert caught.value.line == 2
    tally = kg.CorpusTally()
    assert len(list(kg.Jsonl(path, messages="messages", on_error="skip").documents(tally))) == 1
    assert sum(tally.dropped.values()) == 1


def test_tools_may_be_called_and_answer() -> None:
    documents = kg.Texts([{"messages": [ASKED, CALLED, TOLD, SAID]}]).documents()
    assert [part.role for part in next(documents).parts if part.role] == ["user", "assistant", "tool", "assistant"]


def test_sharegpts_keys_and_contents_in_pieces_are_understood() -> None:
    rows = [
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Nobody."}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}, SAID]},
    ]
    talks = [document.conversation.messages for document in kg.Texts(rows).documents()]
    assert talks == [(ASKED, SAID), (ASKED, SAID)]


def test_rows_and_documents_are_a_corpus() -> None:
    own = kg.Document.of([kg.Part("x", 0), kg.Part("y")], "mine")
    rows: list[Any] = [
        {"prompt": "a", "response": "b"},
        {"prompt": "a ", "completion": "b"},
        {"prompt": [ASKED], "completion": [SAID]},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"text": "t", "likes": 3},
        own,
        "plain",
        {"text": " "},
        {"prompt": "a", "response": ""},
    ]
    tally = kg.CorpusTally()
    documents = list(kg.Texts(rows).documents(tally))
    assert [each.text for each in documents] == ["a\nb", "a b", "Who?\nNobody.", "a\nb", "t", "xy", "plain"]
    assert documents[3].rejected_text == "a\nc"
    assert documents[4].metadata == {"likes": 3}
    assert documents[5] is own
    assert dict(tally.dropped) == {"empty": 1, "empty response": 1}
    assert [each.text for each in kg.Pipeline(corpus=iter(rows)).corpus.documents()][:2] == ["a\nb", "a b"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [ASKED]}, "Item 0 of the rows holds no conversation that can be learned: its last message"),
        ({"prompt": "a", "response": 3}, "Item 0 of the rows has a field 'response' that is no text"),
        ({"rejected": "a"}, "has no field 'chosen'"),
    ],
)
def test_a_wrong_row_is_named_with_its_place(row: dict[str, Any], said: str) -> None:
    with pytest.raises(CorpusFormatError) as caught:
        list(kg.Texts([row]).documents())
    assert said in str(caught.value)


def test_a_row_without_known_fields_is_refused_at_once() -> None:
    with pytest.raises(CorpusArgumentError, match="A row is taken as it is with the fields"):
        kg.Texts([{"body": "x"}])


def test_messages_exclude_other_fields(tmp_path: Path) -> None:
    for settings in ({"prompt": "a", "response": "b"}, {"field": "body"}):
        with pytest.raises(CorpusArgumentError, match="names the field of conversations"):
            kg.Jsonl(tmp_path, messages="messages", **settings)


@pytest.mark.parametrize("weight", [1e300, 1e-40, 10**400, -1, float("nan"), "1", None, True])
def test_a_weight_that_no_float32_holds_is_refused(weight: Any) -> None:
    with pytest.raises(CorpusArgumentError, match="a float32 holds"):
        kg.Part("x", weight)


def test_numpys_numbers_are_weights() -> None:
    import numpy as np

    for number in (np.float32(0.5), np.float64(0.5), np.int64(2), np.float16(0.25)):
        assert kg.Part("x", number).weight == float(number)
        assert type(kg.Part("x", number).weight) is float


@pytest.mark.parametrize("parts", [["x"], "x", kg.Part("x"), [kg.Part("x"), None], 3])
def test_what_are_no_parts_is_said(parts: Any) -> None:
    with pytest.raises(CorpusArgumentError, match="A document is made of kerasgen"):
        kg.Document.of(parts, "a")


def test_a_document_is_checked_and_can_be_hashed() -> None:
    with pytest.raises(CorpusArgumentError, match="A document's `id` must be text"):
        kg.Document("x", 3)  # type: ignore[arg-type]
    with pytest.raises(CorpusArgumentError, match="is empty"):
        kg.Document.of([kg.Part(""), kg.Part("")], "a")
    document = kg.Document("x", "a", {"list": [1]})
    assert hash(document) == hash(kg.Document("x", "a", {"list": [2]}))
    assert document in {document}


def test_an_id_may_be_the_prompt(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"q": "Who?", "a": "Nobody."})
    (document,) = kg.Jsonl(path, prompt="q", response="a", id_field="q").documents()
    assert (document.id, document.text) == ("Who?", "Who?\nNobody.")


def test_another_delimiter_is_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("q;a\nx;y\n", encoding="utf-8")
    with pytest.raises(CorpusFormatError, match="pass delimiter=';'"):
        list(kg.Csv(path, prompt="q", response="a").documents())
    path.write_text("q,a\nx,y,z\n", encoding="utf-8")
    with pytest.raises(CorpusFormatError, match=r"has another delimiter than ','\. Mend"):
        list(kg.Csv(path, prompt="q", response="a").documents())
