"""Datasets and tables that a person has in Python: strings are a corpus, anything else is told how to become one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kerasgen as kg
from kerasgen.corpora import resolving
from kerasgen.corpora.texts import Texts
from kerasgen.errors import CorpusArgumentError, CorpusFormatError

pytestmark = pytest.mark.one_backend

TEXTS = ["the sea", "春曉", "", "a line\n\nand another"]
KEPT = [text for text in TEXTS if text]


def read(corpus: Any) -> list[str]:
    return [document.text for document in resolving.resolve(corpus)]


@pytest.fixture(scope="module")
def tf() -> Any:
    return pytest.importorskip("tensorflow", reason="a tf.data.Dataset is TensorFlow's")


class TestTensorFlow:
    def test_strings_batched_or_not_are_the_texts(self, tf: Any) -> None:
        dataset = tf.data.Dataset.from_tensor_slices(TEXTS)
        for given in (dataset, dataset.batch(3), dataset.batch(2).batch(2), dataset.padded_batch(3)):
            assert read(given) == KEPT

    def test_a_shuffled_one_gives_the_same_texts_at_each_pass(self, tf: Any) -> None:
        dataset = tf.data.Dataset.from_tensor_slices([f"text {n}" for n in range(50)]).shuffle(50).take(20)
        corpus = Texts(dataset)
        first = read(corpus)
        assert len(first) == 20
        assert read(corpus) == first

    def test_rows_are_told_which_part_to_pick(self, tf: Any) -> None:
        rows = {"label": [0] * 4, "text": TEXTS}
        by_key = tf.data.Dataset.from_tensor_slices(rows)
        with pytest.raises(CorpusArgumentError, match=r"dataset\.map\(lambda row: row\['text'\]\)"):
            kg.Pipeline(by_key)
        assert read(by_key.map(lambda row: row["text"])) == KEPT
        by_place = tf.data.Dataset.from_tensor_slices((TEXTS, [0] * 4)).batch(2)
        with pytest.raises(CorpusArgumentError, match=r"dataset\.map\(lambda \*parts: parts\[0\]\)"):
            kg.Pipeline(by_place)
        assert read(by_place.map(lambda *parts: parts[0])) == KEPT
        assert read(tf.data.Dataset.from_tensors(tf.ragged.constant([TEXTS[:1], TEXTS[1:]]))) == KEPT
        with pytest.raises(CorpusArgumentError, match="Map each element to its text"):
            kg.Pipeline(tf.data.Dataset.range(3))

    def test_one_without_an_end_needs_a_number_of_documents(self, tf: Any) -> None:
        endless = tf.data.Dataset.from_tensor_slices(KEPT).repeat()
        for given in (endless, Texts(endless)):
            with pytest.raises(CorpusArgumentError, match=r"dataset\.take\(n\).*max_documents=n"):
                kg.Pipeline(given)
        pipe = kg.Pipeline(endless, max_documents=5)
        assert len([*pipe._corpus().texts("train"), *pipe._corpus().texts("held_out")]) == 5
        assert read(endless.take(4)) == [*KEPT, KEPT[0]]

    def test_a_tensor_and_an_iterator_are_told_how_to_become_one(self, tf: Any) -> None:
        tensor = tf.constant(TEXTS)
        with pytest.raises(CorpusArgumentError, match=r"tensor of string.*Dataset\.from_tensor_slices\(tensor\)"):
            kg.Pipeline(tensor)
        assert read(tf.data.Dataset.from_tensor_slices(tensor)) == KEPT
        with pytest.raises(CorpusArgumentError, match=r"tensor of int32.*Pass the texts"):
            kg.Pipeline(tf.constant([1, 2]))
        with pytest.raises(CorpusArgumentError, match="Pass the dataset itself"):
            kg.Pipeline(iter(tf.data.Dataset.from_tensor_slices(TEXTS)))

    def test_bytes_that_are_no_utf_8_are_named_by_their_position(self, tf: Any) -> None:
        dataset = tf.data.Dataset.from_tensor_slices([b"a", "春".encode("gb18030")])
        with pytest.raises(CorpusFormatError, match=r"Item 1 .*unicode_transcode"):
            read(dataset)
        assert read(dataset.map(lambda text: tf.strings.unicode_transcode(text, "GB18030", "UTF-8"))) == ["a", "春"]


def test_a_function_that_makes_a_corpus_is_told_to_be_called() -> None:
    def lines() -> Any:
        yield from TEXTS

    with pytest.raises(CorpusArgumentError, match=r"Call it: lines\(\)"):
        kg.Pipeline(lines)  # type: ignore[arg-type]
    assert read(lines()) == KEPT


@pytest.mark.parametrize("path", ["nothere.txt", "a,b.txt"])
def test_a_path_without_its_key_gets_the_text_that_reads_it(path: str, tmp_path: Path) -> None:
    given = f'text:"{path}"' if "," in path else f"text:{path}"
    with pytest.raises(CorpusArgumentError, match="written key=value") as caught:
        kg.Pipeline(given)
    advice = str(caught.value).partition(" Write '")[2].removesuffix("'.")
    corpus = resolving.resolve(advice)
    assert isinstance(corpus, kg.Text)
    assert corpus.path == path


class Table:
    """What tables of several libraries have in common: iterating gives the names of the columns, or rows."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = list(columns)
        self._values = columns

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self._values[name]


def test_a_table_is_no_list_of_its_columns_names() -> None:
    table = Table(label=[0, 1], text=["a", "b"])
    with pytest.raises(CorpusArgumentError, match=r"columns 'label', 'text'.*table\['text'\]"):
        kg.Pipeline(table)
    assert read(table["text"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "advice", "picked"),
    [
        ([{"id": 1, "body": "a"}], r"\(row\['body'\] for row in rows\)", lambda rows: (row["body"] for row in rows)),
        ([(0, "a")], r"\(row\[1\] for row in rows\)", lambda rows: (row[1] for row in rows)),
        ([b"a"], r"text\.decode\('utf-8'\)", lambda rows: (row.decode("utf-8") for row in rows)),
    ],
)
def test_rows_are_told_how_to_become_texts(rows: Any, advice: str, picked: Any) -> None:
    with pytest.raises(CorpusArgumentError, match=f"Item 0 .*{advice}"):
        kg.Pipeline(rows)
    with pytest.raises(CorpusFormatError, match=f"Item 0 .*{advice}"):
        read(iter(rows))
    assert read(picked(rows)) == ["a"]


def test_an_array_of_strings_is_a_corpus() -> None:
    assert read(np.array(TEXTS)) == KEPT
    assert read(np.array(TEXTS, dtype=object)) == KEPT


def test_a_corpus_is_iterated_over(tmp_path: Path) -> None:
    path = tmp_path / "poems.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    corpus = kg.Jsonl(path)
    for _ in range(2):
        assert [document.text for document in corpus] == KEPT
    with pytest.raises(CorpusArgumentError, match="is a corpus already"):
        Texts(corpus)
    with pytest.raises(TypeError, match="no len"):
        len(corpus)
