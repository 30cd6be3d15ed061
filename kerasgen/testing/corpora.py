"""What every corpus must do: inherit `CorpusContract`, say which corpus to test, and run pytest."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

import pytest

from kerasgen import specs
from kerasgen.corpora import REGISTRY
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.resolving import resolve
from kerasgen.errors import CorpusArgumentError

HEAVY = ("keras", "keras_hub", "keras_nlp", "jax", "tensorflow", "tensorflow_datasets", "torch", "numpy")


class CorpusContract:
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

    Attributes:
        bad_arguments: arguments that the constructor must refuse, each with otherwise the arguments of `corpus`.
    """

    bad_arguments: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @pytest.fixture
    def corpus(self) -> CorpusSource:
        """The corpus under test; override this."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `corpus`.")

    @pytest.fixture
    def spec(self) -> str | None:
        """The spec string that stands for `corpus`; override this if the class is registered."""
        return None

    def test_a_corpus_is_a_frozen_value_equal_to_its_like(self, corpus: CorpusSource) -> None:
        """Saved pipelines compare and rebuild it."""
        assert isinstance(corpus, CorpusSource)
        assert dataclasses.is_dataclass(corpus)
        for field in dataclasses.fields(corpus):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(corpus, field.name, None)
        assert _again(corpus) == corpus

    def test_construction_does_no_input_or_output(self, corpus: CorpusSource) -> None:
        """A pipeline is made where the data need not be."""
        with _watched() as seen:
            _again(corpus)
        assert seen == [], f"constructing {type(corpus).__name__} did: {', '.join(seen)}"

    def test_importing_the_corpus_loads_nothing_heavy(self, corpus: CorpusSource) -> None:
        """Names and settings can be had where nothing but the standard library is wanted."""
        module = type(corpus).__module__
        code = f"import sys, {module}; print(','.join(m for m in {HEAVY!r} if m in sys.modules))"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        assert run.stdout.strip() == ""

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

    def test_bad_arguments_are_refused_at_birth(self, corpus: CorpusSource) -> None:
        """Before any expensive work, with an error that says which argument."""
        for bad in self.bad_arguments:
            with pytest.raises(CorpusArgumentError) as caught:
                dataclasses.replace(corpus, **bad)  # type: ignore[type-var]
            assert any(name in str(caught.value) for name in bad), f"{caught.value} names none of {list(bad)}"

    def test_an_unknown_argument_is_refused(self, corpus: CorpusSource) -> None:
        """A misspelt argument is never passed over."""
        with pytest.raises(CorpusArgumentError, match="no_such_argument"):
            specs.build(type(corpus), {"no_such_argument": "1"}, name="it", error=CorpusArgumentError)

    def test_the_spec_string_is_the_constructors_value(self, corpus: CorpusSource, spec: str | None) -> None:
        """What is written on a command line and in Python is the same corpus."""
        if spec is None:
            assert REGISTRY.name_of(corpus) is None, "the corpus is registered: override the fixture `spec`"
            pytest.skip(f"{type(corpus).__name__} is not registered, so no spec string names it")
        assert resolve(spec) == corpus
        assert resolve(corpus) is corpus

    def test_a_manifest_brings_the_corpus_back(self, corpus: CorpusSource, spec: str | None) -> None:
        """A saved pipeline names its corpus."""
        if spec is None:
            pytest.skip(f"{type(corpus).__name__} is not registered, so no manifest can name it")
        manifest = json.loads(json.dumps(REGISTRY.to_manifest(corpus)))
        assert REGISTRY.from_manifest(manifest) == corpus


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
