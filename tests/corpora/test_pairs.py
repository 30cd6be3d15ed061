"""Corpora of pairs: a better and a worse answer behind one prompt, from files and as documents of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import kerasgen as kg
from kerasgen.corpora.base import Document, Part
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
