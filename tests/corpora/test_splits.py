"""Splits, iterables of strings, and what a person may write for a corpus."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasgen import corpora
from kerasgen.corpora.base import CorpusTally, Document
from kerasgen.corpora.resolving import resolve
from kerasgen.corpora.splits import held_out_documents, side, train_documents
from kerasgen.corpora.texts import Texts
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, UnknownNameError

pytestmark = pytest.mark.one_backend

FRACTIONS = st.floats(min_value=0, max_value=1, exclude_max=True)
TEXTS = st.text(st.characters(codec=None))


@given(text=TEXTS, held_out=FRACTIONS, salt=st.integers(0, 2**64 - 1))
def test_a_side_depends_on_the_text_alone(text: str, held_out: float, salt: int) -> None:
    here = side(Document(text=text, id="3", metadata={"title": "a"}), held_out=held_out, salt=salt)
    assert here == side(Document(text=text, id="other"), held_out=held_out, salt=salt)
    assert here == side(text, held_out=held_out, salt=salt)


@given(text=TEXTS, fractions=st.tuples(FRACTIONS, FRACTIONS))
def test_raising_held_out_never_moves_a_text_back_to_training(text: str, fractions: tuple[float, float]) -> None:
    lower, higher = sorted(fractions)
    if side(text, held_out=lower) == "held_out":
        assert side(text, held_out=higher) == "held_out"


@given(texts=st.lists(TEXTS), seed=st.randoms(use_true_random=False))
def test_the_order_of_the_corpus_changes_no_side(texts: list[str], seed: object) -> None:
    shuffled = list(texts)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    chosen = [document.text for document in held_out_documents(Texts(texts), held_out=0.5)]
    chosen_shuffled = [document.text for document in held_out_documents(Texts(shuffled), held_out=0.5)]
    assert sorted(chosen) == sorted(chosen_shuffled)


@pytest.mark.parametrize("held_out", [0.01, 0.1, 0.5, 0.9])
def test_the_held_out_fraction_is_near_the_one_asked_for(held_out: float) -> None:
    """20,000 texts: five standard deviations of a fair draw."""
    count = 20_000
    found = sum(side(f"poem {number}", held_out=held_out) == "held_out" for number in range(count))
    assert abs(found / count - held_out) < 5 * (held_out * (1 - held_out) / count) ** 0.5


def test_another_salt_is_an_independent_division() -> None:
    """Of a half held out under each of two salts, a quarter is held out under both."""
    both = sum(
        side(str(number), held_out=0.5) == side(str(number), held_out=0.5, salt=1) == "held_out"
        for number in range(10_000)
    )
    assert abs(both / 10_000 - 0.25) < 0.025


def test_sides_are_the_same_in_another_process_with_another_hash_seed() -> None:
    code = "from kerasgen.corpora.splits import side; print([side(str(n), held_out=0.5) for n in range(64)])"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert answers == {str([side(str(number), held_out=0.5) for number in range(64)])}


def test_nothing_is_held_out_at_zero() -> None:
    assert {side(str(number), held_out=0) for number in range(1000)} == {"train"}


def test_the_two_sides_are_the_corpus_and_the_tally_says_where_the_rest_went() -> None:
    source = Texts([f"text {number}" for number in range(200)] + [""])
    train_tally, held_out_tally = CorpusTally(), CorpusTally()
    train = list(train_documents(source, held_out=0.3, tally=train_tally))
    held_out = list(held_out_documents(source, held_out=0.3, tally=held_out_tally))
    everything = list(source.documents())
    assert sorted(train + held_out, key=lambda document: int(document.id)) == everything
    for documents, tally, other in (
        (train, train_tally, ("held out", len(held_out))),
        (held_out, held_out_tally, ("for training", len(train))),
    ):
        assert tally.read == 201
        assert tally.kept == len(documents)
        assert tally.characters == sum(len(document.text) for document in documents)
        assert dict(tally.dropped) == {"empty": 1, other[0]: other[1]}


def test_one_side_is_drawn_lazily() -> None:
    def endless() -> Iterator[str]:
        number = 0
        while True:
            yield f"text {number}"
            number += 1

    assert next(train_documents(Texts(endless()))).text.startswith("text ")


@pytest.mark.parametrize("held_out", [-0.1, 1, 1.5, float("nan"), "0.1", True])
def test_a_fraction_out_of_range_is_refused_at_the_call(held_out: float) -> None:
    with pytest.raises(CorpusArgumentError, match="held_out"):
        side("a", held_out=held_out)
    with pytest.raises(CorpusArgumentError, match="held_out"):
        train_documents(Texts(["a"]), held_out=held_out)


@pytest.mark.parametrize("salt", [-1, 2**64, 0.5])
def test_a_salt_out_of_range_is_refused(salt: int) -> None:
    with pytest.raises(CorpusArgumentError, match="salt"):
        held_out_documents(Texts(["a"]), salt=salt)


def test_a_generator_is_drawn_once_and_yields_twice_the_same() -> None:
    drawn: list[int] = []

    def numbers() -> Iterator[str]:
        for number in range(5):
            drawn.append(number)
            yield f"text {number}"

    source = Texts(numbers())
    assert drawn == []
    first = source.documents()
    assert next(first).text == "text 0"
    assert drawn == [0]
    second = [document.text for document in source.documents()]
    assert second == [f"text {number}" for number in range(5)]
    assert [document.text for document in first] == second[1:]
    assert drawn == [0, 1, 2, 3, 4]


def test_threads_that_share_a_generator_all_see_every_text() -> None:
    source = Texts(f"text {number}" for number in range(2000))
    seen: list[list[str]] = []
    readers = [
        threading.Thread(target=lambda: seen.append([document.text for document in source.documents()]))
        for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert seen == [[f"text {number}" for number in range(2000)]] * 4


def test_a_generator_that_fails_fails_again_and_is_not_taken_for_a_shorter_one() -> None:
    def failing() -> Iterator[str]:
        yield "one"
        raise RuntimeError("the line is cut")

    source = Texts(failing())
    for _ in range(2):
        documents = source.documents()
        assert next(documents).text == "one"
        with pytest.raises(RuntimeError, match="the line is cut"):
            next(documents)


def test_a_list_that_changes_afterwards_changes_no_corpus() -> None:
    texts = ["a", "b"]
    source = Texts(texts)
    texts.append("c")
    assert [document.text for document in source.documents()] == ["a", "b"]


def test_a_set_is_put_in_order() -> None:
    """A set of strings has another order in each process."""
    source = Texts({"c", "a", "b"})
    assert [document.text for document in source.documents()] == ["a", "b", "c"]


def test_empty_texts_are_dropped_and_counted() -> None:
    tally = CorpusTally()
    documents = list(Texts(["a", "", " \n", "bc"]).documents(tally))
    assert [(document.text, document.id) for document in documents] == [("a", "0"), ("bc", "3")]
    assert tally.to_dict() == {"read": 4, "kept": 2, "characters": 3, "dropped": {"empty": 2}, "changed": {}}


def test_an_item_that_is_no_string_is_named_by_its_position() -> None:
    with pytest.raises(CorpusFormatError, match=r"Item 1 .*7 \(int\)"):
        list(Texts(iter(["a", 7])).documents())  # type: ignore[list-item]
    with pytest.raises(CorpusArgumentError, match=r"Item 1 .*7 \(int\)"):
        Texts(["a", 7])  # type: ignore[list-item]


@pytest.mark.parametrize("texts", ["one string", b"bytes", {"a": "mapping"}, 7, None])
def test_what_is_no_iterable_of_strings_is_refused_at_once(texts: object) -> None:
    with pytest.raises(CorpusArgumentError, match="iterable of strings"):
        Texts(texts)  # type: ignore[arg-type]


def test_a_long_list_prints_short() -> None:
    assert repr(Texts(["x"] * 1000)) == "Texts(<1000 texts>)"


def test_a_source_resolves_to_itself_and_texts_to_texts() -> None:
    source = Texts(["a"])
    assert resolve(source) is source
    assert resolve(["a"]) == source
    assert [document.text for document in resolve(text for text in ["a", "b"]).documents()] == ["a", "b"]


def test_a_spec_string_resolves_to_the_constructors_value() -> None:
    source = resolve("text:path=poems.txt,split=line")
    assert source == corpora.get("text")(path="poems.txt", split="line")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("path", "spec"),
    [
        ("poems.txt", "text:path=poems.txt"),
        ("data/posts.jsonl.xz", "jsonl:path=data/posts.jsonl.xz"),
        ("table.csv", "csv:path=table.csv"),
        ("data/*", "text:path=data/*"),
        ("a, b.txt", 'text:"path=a, b.txt"'),
        (Path("posts.jsonl"), "jsonl:path=posts.jsonl"),
    ],
)
def test_a_bare_path_is_refused_with_the_spec_that_reads_it(path: str | Path, spec: str) -> None:
    with pytest.raises(CorpusArgumentError) as caught:
        resolve(path)  # type: ignore[arg-type]
    assert repr(spec) in str(caught.value)


def test_the_spec_that_a_path_gets_is_one_that_can_be_read() -> None:
    assert resolve('text:"path=a, b.txt"') == corpora.get("text")(path="a, b.txt")  # type: ignore[call-arg]


def test_an_unknown_name_lists_the_near_ones() -> None:
    with pytest.raises(UnknownNameError) as caught:
        resolve("chinese_poetri")
    assert caught.value.near[0] == "chinese_poetry"


@pytest.mark.parametrize("value", [7, None, Texts, "", "text:", "text:path", 'text:"path=a'])
def test_what_is_no_corpus_is_refused_at_once(value: object) -> None:
    with pytest.raises(CorpusArgumentError):
        resolve(value)  # type: ignore[arg-type]
