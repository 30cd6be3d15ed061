"""What every corpus must do: inherit `CorpusContract`, say which corpus to test, and run pytest."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest

from kerasgen.corpora import REGISTRY
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.resolving import resolve
from kerasgen.testing.values import PluginContract


class CorpusContract(PluginContract):
    r"""The tests that every `CorpusSource` passes.

    ```python
    class TestMine(CorpusContract):
        bad_arguments = ({"rows": -1},)

        @pytest.fixture
        def corpus(self, tmp_path):
            (tmp_path / "mine.dat").write_text("one\ntwo\n")
            return MyCorpus(path=tmp_path / "mine.dat")

        @pytest.fixture
        def spec(self, tmp_path):
            return f"mine:path={tmp_path / 'mine.dat'}"
    ```

    The corpus should be small, hold at least two documents, and one that it drops if it ever drops any.

    """

    registry = REGISTRY

    @pytest.fixture
    def corpus(self) -> CorpusSource:
        """The corpus under test; override this."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `corpus`.")

    @pytest.fixture
    def plugin(self, corpus: CorpusSource) -> CorpusSource:
        """What the tests of every kind look at."""
        return corpus

    def test_it_can_be_resolved(self, corpus: CorpusSource, spec: str | None) -> None:
        """A pipeline takes it, or its text."""
        assert resolve(corpus) is corpus
        if spec is not None:
            assert resolve(spec) == corpus

    def test_construction_does_no_input_or_output(self, corpus: CorpusSource) -> None:
        """A pipeline is made where the data need not be."""
        with _watched() as seen:
            _again(corpus)
        assert seen == [], f"constructing {type(corpus).__name__} did: {', '.join(seen)}"

    def test_documents_hold_a_text_an_id_of_their_own_and_metadata(self, corpus: CorpusSource) -> None:
        """What a report, a manifest or a split needs of each document is there."""
        documents = list(corpus.documents())
        assert len(documents) >= 2, "the contract needs a corpus of two documents at least"
        for document in documents:
            assert isinstance(document, Document)
            assert isinstance(document.text, str)
            assert document.text
            assert isinstance(document.id, str)
            assert json.loads(json.dumps(dict(document.metadata))) == dict(document.metadata)
        ids = [document.id for document in documents]
        assert len(set(ids)) == len(ids), "two documents have one id"

    def test_documents_come_twice_the_same(self, corpus: CorpusSource) -> None:
        """A second epoch, and a resumed run, see what the first saw."""
        first = list(corpus.documents())
        assert list(corpus.documents()) == first

    def test_two_readers_do_not_disturb_each_other(self, corpus: CorpusSource) -> None:
        """The training side and the held-out side may be drawn at once."""
        every = list(corpus.documents())
        first, second = corpus.documents(), corpus.documents()
        drawn = [(next(first), next(second)) for _ in every]
        assert drawn == [(document, document) for document in every]
        assert next(first, None) is None
        assert next(second, None) is None

    def test_documents_are_yielded_one_at_a_time(self, corpus: CorpusSource) -> None:
        """The tally grows with what is drawn: nothing has been read to its end before the first document."""
        tally = CorpusTally()
        documents = corpus.documents(tally)
        assert iter(documents) is documents, "documents() must return an iterator"
        assert tally == CorpusTally(), "something was read before a document was asked for"
        for count, document in enumerate(islice(documents, 2), start=1):
            assert tally.kept == count
            assert tally.characters >= len(document.text)

    def test_the_tally_adds_up(self, corpus: CorpusSource) -> None:
        """Each document that was read is kept or dropped for a reason; none is lost silently."""
        tally = CorpusTally()
        documents = list(corpus.documents(tally))
        assert tally.kept == len(documents)
        assert tally.characters == sum(len(document.text) for document in documents)
        assert tally.read == tally.kept + sum(tally.dropped.values())
        assert all(reason and count > 0 for reason, count in tally.dropped.items())
        assert json.loads(json.dumps(tally.to_dict())) == tally.to_dict()
        assert list(corpus.documents()) == documents, "the tally changed what is yielded"


def _again(corpus: CorpusSource) -> CorpusSource:
    """A new value from the same arguments."""
    return dataclasses.replace(corpus)  # type: ignore[type-var]


_WATCH = threading.local()
_INPUT_AND_OUTPUT = (
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "glob.glob",
    "shutil.",
    "socket.",
    "sqlite3.connect",
    "subprocess.Popen",
    "urllib.Request",
)
_hooked = False


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Collect what this thread opens, lists or connects to, as Python's audit events report it (a stat has none)."""
    global _hooked
    if not _hooked:
        # An audit hook can't be taken out again: one for the process, which looks whether it is wanted.
        sys.addaudithook(_note)
        _hooked = True
    seen: list[str] = []
    _WATCH.seen = seen
    try:
        yield seen
    finally:
        _WATCH.seen = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    seen: list[str] | None = getattr(_WATCH, "seen", None)
    if seen is not None and event.startswith(_INPUT_AND_OUTPUT):
        seen.append(f"{event} {arguments[:1]!r}")
