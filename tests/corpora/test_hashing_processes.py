"""Other processes hash texts as this one does, and what becomes of them changes no group of near-duplicates."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from kerasgen.corpora import hashing_processes, near_duplicates, splits, text_lines
from kerasgen.corpora.held_out_split import DividedCorpus
from kerasgen.corpora.near_duplicates import NearDuplicates
from kerasgen.corpora.texts import Texts
from kerasgen.errors import CorpusError

pytestmark = pytest.mark.one_backend

TEXTS = [
    "One. Two three? 「四。」\n5.",
    "牀前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。" * 4,
    "a lone surrogate \ud800 stands in these words, of which there are more than twelve in all, none twice",
    "",
    " ".join(f"word{n}" for n in range(900)),
]


def texts_with_near_duplicates(count: int = 300) -> list[str]:
    source = random.Random(0)
    words = [f"w{n}" for n in range(2000)]
    found = [" ".join(source.choices(words, k=16)) for _ in range(count)]
    for text in found[: count // 3]:
        changed = text.split()
        changed[source.randrange(16)] = "another"
        found.append(" ".join(changed))
    return found


def groups(texts: list[str]) -> dict[int, int]:
    found = NearDuplicates()
    for text in texts:
        found.add(text)
    return found.groups()


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_ALONE", 20)
    monkeypatch.setattr(near_duplicates, "_PORTION_TEXTS", 7)
    monkeypatch.setattr(hashing_processes, "_cores", lambda: 3)


def test_a_process_answers_with_the_hashes_that_are_computed_here() -> None:
    taken: list[text_lines.Hashes] = []
    child = hashing_processes._started()
    assert child is not None
    process = hashing_processes._Process(child)
    try:
        taken = [process.begin(TEXTS, first).result(60) for first in (0, 7)]
        assert child.poll() is None, "it has answered itself"
    finally:
        process.close()
    assert taken == [text_lines.hashed(TEXTS, 0), text_lines.hashed(TEXTS, 7)]
    assert set(taken[1].line_texts) == {7, 8, 9, 11}
    assert child.poll() is not None


def test_pieces_have_as_many_hashes_as_there_are_pieces() -> None:
    for text in TEXTS:
        pieces, lines = text_lines.pieces_of(text), text_lines.lines_of(text)
        found = text_lines.hashed([text], 0)
        assert len(set(found.pieces)) == (len(pieces) if len(pieces) >= 12 and len(lines) < 4 else 0)


@pytest.mark.parametrize("text", ["Title says it all", "牀前明月"])
def test_one_line_that_tells_nothing_is_none(text: str) -> None:
    assert not text_lines.hashed([text], 0).lines


def ends_at_once() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def answers_by_half() -> subprocess.Popen[bytes]:
    half = "import sys; sys.stdin.buffer.read(20); sys.stdout.buffer.write((99).to_bytes(8, 'little') + b'x')"
    return subprocess.Popen([sys.executable, "-c", half], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("start", [hashing_processes._started, ends_at_once, answers_by_half, lambda: None])
def test_groups_are_the_same_with_processes_without_and_with_ones_that_end(
    start: Callable[[], subprocess.Popen[bytes] | None], shared: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = texts_with_near_duplicates()
    with monkeypatch.context() as alone:
        alone.setattr(near_duplicates, "_ALONE", 10**9)
        wanted = groups(texts)
    assert len(wanted) > 100
    monkeypatch.setattr(hashing_processes, "_started", start)
    assert groups(texts) == wanted


def test_no_process_stays_when_the_corpus_breaks_off(shared: None, monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[subprocess.Popen[bytes]] = []
    start = hashing_processes._started

    def started() -> subprocess.Popen[bytes] | None:
        child = start()
        assert child is not None
        children.append(child)
        return child

    monkeypatch.setattr(hashing_processes, "_started", started)
    monkeypatch.setattr("kerasgen.corpora.held_out_split.MOST_CHARACTERS", 1000)
    corpus = DividedCorpus(Texts(texts_with_near_duplicates()), 0.5)
    monkeypatch.setattr(type(corpus.source), "documents", _breaking(type(corpus.source).documents))
    with pytest.raises(CorpusError, match="cable"):
        _ = corpus.division
    assert len(children) == 2
    assert all(child.poll() is not None for child in children)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("kerasgen-hashes")]


def _breaking(documents):  # type: ignore[no-untyped-def]
    def broken(self, tally=None):  # type: ignore[no-untyped-def]
        yield from documents(self, tally)
        raise CorpusError("the cable is cut")

    return broken


def test_every_text_of_a_division_has_its_side(shared: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kerasgen.corpora.held_out_split.MOST_CHARACTERS", 1000)
    texts = texts_with_near_duplicates()
    division = DividedCorpus(Texts(texts), 0.5).division
    for text, near in zip(texts[:100], texts[300:], strict=True):
        assert division.side(text) == division.side(near)
    assert set(division.groups) == {splits.point(text) for text in (*texts[:100], *texts[300:])}
