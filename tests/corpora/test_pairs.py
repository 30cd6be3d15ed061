"""Corpora of pairs: a better and a worse answer behind one prompt, from files and as documents of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasgen as kg
from kerasgen.corpora.base import Document, Part
from kerasgen.corpora.conversations import conversation
from kerasgen.errors import CorpusArgumentError, CorpusFormatError

pytestmark = pytest.mark.one_backend

ROWS = [("How?", "So.", "No."), ("Why, then?", "Because.", "Why not?")]


def written(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    if path.suffix == ".jsonl":
        lines = [json.dumps({"q": ask, "good": good, "bad": bad, "n": 1}) for ask, good, bad in rows]
    else:
        lines = ["q,good,bad,n", *(f'"{ask}","{good}","{bad}",1' for ask, good, bad in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def corpus(path: Path, settings: str = "prompt=q,chosen=good,rejected=bad") -> Any:
    return kg.corpora.create(f"{path.suffix[1:]}:path={path},{settings}")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_record_becomes_a_document_with_a_worse_text(tmp_path: Path, kind: str) -> None:
    first, second = corpus(written(tmp_path / f"pairs.{kind}", ROWS))
    assert first.parts == (Part("How?\n", 0, "user"), Part("So.", 1, "assistant"))
    assert first.rejected == (Part("How?\n", 0, "user"), Part("No.", 1, "assistant"))
    assert (second.text, second.rejected_text) == ("Why, then?\nBecause.", "Why, then?\nWhy not?")
    assert set(second.metadata) == {"n"}
    alone = next(iter(corpus(tmp_path / f"pairs.{kind}", "chosen=good,rejected=bad")))
    assert (alone.text, alone.rejected_text) == ("So.", "No.")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("Who?", "She.", "She."), "'good' equal to 'bad'"),
        (("Who?", " ", "She."), "empty 'good'"),
        (("Who?", "She.", ""), "empty 'bad'"),
    ],
)
def test_what_is_no_pair_is_told_with_its_line(
    tmp_path: Path, kind: str, wrong: tuple[str, str, str], message: str
) -> None:
    path = written(tmp_path / f"pairs.{kind}", [*ROWS, wrong])
    line = 3 if kind == "jsonl" else 4
    with pytest.raises(CorpusFormatError, match=rf"line {line} holds no pair: {message}"):
        list(corpus(path))
    tally = kg.CorpusTally()
    assert len(list(corpus(path, "prompt=q,chosen=good,rejected=bad,on_error=skip").documents(tally))) == 2
    assert tally.dropped == {message: 1}
    with pytest.raises(CorpusFormatError, match=r"no (field|column) 'worse'"):
        list(corpus(path, "prompt=q,chosen=good,rejected=worse"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("chosen=good", "chosen without rejected"),
        ("prompt=q,rejected=bad", "rejected without chosen"),
        ("prompt=q,response=good,chosen=good,rejected=bad", "Leave out response"),
        ("prompt=q,chosen=good,rejected=good", "chosen and rejected must be different fields"),
        ("chosen=good,rejected=bad,field=q", "Leave out field='q'"),
    ],
)
def test_settings_that_make_no_pairs_are_refused_at_once(tmp_path: Path, settings: str, message: str) -> None:
    with pytest.raises(CorpusArgumentError, match=message):
        corpus(tmp_path / "not-there.jsonl", settings)


def test_a_document_of_ones_own_is_checked() -> None:
    ask = Part("How? ", 0)
    assert Document.of((ask, Part("So.")), "1", rejected=(ask, Part("No."))).rejected_text == "How? No."
    with pytest.raises(CorpusArgumentError, match="document '1' is its text"):
        Document.of((ask, Part("So.")), "1", rejected=(ask, Part("So.")))
    with pytest.raises(CorpusArgumentError, match="no part that is learned"):
        Document.of((ask, Part("So.")), "1", rejected=(ask, Part("No.", 0)))


# Pairs of conversations, in TRL's two forms.


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be kind."}
EARLIER = [SYSTEM, user("Hi"), said("Hello."), user("How?")]


def pair_of(row: dict[str, Any]) -> Document:
    (document,) = kg.Texts([row])
    return document


def test_a_prompt_of_messages_is_read_and_the_answers_turns_are_compared() -> None:
    """TRL's explicit form, its implicit one, and UltraFeedback's with the prompt as text are one pair."""
    explicit = pair_of({"prompt": EARLIER, "chosen": [said("So.")], "rejected": [said("No.")], "n": 1})
    assert [part.weight for part in explicit.parts] == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert explicit.text == "Be kind.\nHi\nHello.\nHow?\nSo."
    assert explicit.rejected_text == "Be kind.\nHi\nHello.\nHow?\nNo."
    assert explicit.metadata == {"n": 1}
    whole = {"chosen": [*EARLIER, said("So.")], "rejected": [*EARLIER, said("No.")], "n": 1}
    assert pair_of(whole) == explicit
    assert pair_of({"prompt": "How?", **whole}) == explicit
    assert pair_of({"messages": whole["chosen"], **whole}).rejected == explicit.rejected
    assert pair_of({"prompt": EARLIER, "chosen": "So.", "rejected": "No.", "n": 1}) == explicit
    assert pair_of({"prompt": "Q", "chosen": [said("a")], "rejected": [said("b")]}).text == "Q\na"
    longer = pair_of({"prompt": [user("q")], "chosen": [said("a"), user("b"), said("c")], "rejected": [said("d")]})
    assert [part.weight for part in longer.parts] == [0, 0, 1, 0, 0, 0, 1]
    # A prompt and its completion: what the assistant said in the prompt is only read.
    assert [part.weight for part in pair_of({"prompt": EARLIER, "completion": [said("So.")]}).parts][4::4] == [0, 1]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_files_hold_pairs_of_conversations_and_wrong_ones_are_told_with_their_line(tmp_path: Path, kind: str) -> None:
    import csv

    right = {"prompt": [user("q")], "chosen": [said("a")], "rejected": [said("b")]}
    whole = {"chosen": [user("q"), said("a")], "rejected": [user("q"), said("b")]}
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("prompt=prompt,", {**right, "chosen": [said(" ")]}, "answer of the assistant, is empty"),
        ("prompt=prompt,", {**right, "rejected": [said("a")]}, "its chosen and its rejected answer are equal"),
        ("prompt=prompt,", {**right, "rejected": [user("b")]}, "message 1, of 'user', stands after one of 'user'"),
        ("prompt=prompt,", {**right, "rejected": "b"}, "one of its two answers is a list of messages"),
        ("prompt=prompt,", {**right, "prompt": [user("q"), said("a")]}, "'assistant', stands after"),
        ("", {**whole, "rejected": [user("r"), said("b")]}, "differ before an answer does: in message 0, of 'user'"),
        ("", {**whole, "rejected": [*whole["chosen"], user("r"), said("b")]}, "all its chosen messages stand in"),
        ("", {**whole, "rejected": whole["chosen"]}, "its chosen and its rejected answer are equal"),
        ("", {**whole, "chosen": [said("a")], "rejected": [said("b")]}, "of 'assistant', stands at the beginning"),
        ("prompt=prompt,", {"prompt": "other", **whole}, "its prompt 'other' is no message"),
        (
            "prompt=prompt,",
            {**right, "chosen": [{**said("a"), "weight": 0}]},
            "no answer behind its prompt has a weight",
        ),
    ]
    for count, (settings, row, message) in enumerate(wrong):
        path = tmp_path / f"{count}.{kind}"
        first = right if settings and row.keys() == right.keys() else whole
        if settings and row.get("prompt") == "other":
            first = {"prompt": "q", **whole}
        if kind == "jsonl":
            path.write_text("\n".join(json.dumps(each) for each in (first, row)), encoding="utf-8")
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(first))
                writer.writeheader()
                for each in (first, row):
                    writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in each.items()})
        line = 2 if kind == "jsonl" else 3
        found = corpus(path, f"{settings}chosen=chosen,rejected=rejected")
        with pytest.raises(CorpusFormatError, match=rf"line {line}: .*{message}"):
            list(found)
        (document,) = corpus(path, f"{settings}chosen=chosen,rejected=rejected,on_error=skip")
        assert (document.text, document.rejected_text) == ("q\na", "q\nb")
    with pytest.raises(CorpusFormatError, match="Item 0 of the rows holds no conversation"):
        list(kg.Texts([wrong[0][1]]))


def test_a_rejected_text_behind_another_prompt_is_refused() -> None:
    for prompt in ((), (Part("Why? ", 0),)):
        with pytest.raises(CorpusArgumentError, match="stands behind another prompt"):
            Document.of((Part("How? ", 0), Part("So.")), "1", rejected=(*prompt, Part("No.")))


def test_the_template_writes_both_conversations_and_ends_of_turns_are_compared() -> None:
    from tiny import tiny_gpt2

    from kerasgen.models import chat
    from kerasgen.tokens.encoding import encode_documents

    model = tiny_gpt2(num_layers=1, hidden_dim=16)
    chat.give(model, "chatml", seed=0)
    template = chat.needed(model)
    document = pair_of({"prompt": EARLIER, "chosen": [said("So.")], "rejected": [said("No, no.")]})
    encoded = encode_documents([document], model.tokenizer, template)
    assert encoded.rejected is not None
    for side, answer in ((encoded, "So."), (encoded.rejected, "No, no.")):
        assert side.parts is not None
        learned = side.parts.weights_of(np.arange(side.offsets[-1])) > 0
        ids = side[0]
        turn = [*model.tokenizer.encode(answer), model.tokenizer.special_tokens["<|im_end|>"]]
        assert ids[learned].tolist() == turn
        text = template.render(conversation([*EARLIER, said(answer)]))
        assert ids.tolist()[: len(ids)] == model.tokenizer.encode_with_spans(text, "all")[0][: len(ids)]
