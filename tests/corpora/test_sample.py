"""The package's own texts: there, readable, and each its own."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
import zipfile
from importlib.resources import files
from pathlib import Path

import pytest

from kerasgen.corpora.base import Document
from kerasgen.corpora.sample import Sample
from kerasgen.corpora.splits import held_out_documents, train_documents
from kerasgen.errors import CorpusArgumentError

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def quatrains() -> list[Document]:
    return list(Sample("zh").documents())


@pytest.fixture(scope="module")
def anecdotes() -> list[Document]:
    return list(Sample("en").documents())


def test_all_is_the_quatrains_and_then_the_anecdotes(quatrains: list[Document], anecdotes: list[Document]) -> None:
    assert list(Sample().documents()) == quatrains + anecdotes
    assert len(quatrains) >= 200
    assert len(anecdotes) >= 100


def test_a_quatrain_is_four_lines_of_five_or_seven_characters(quatrains: list[Document]) -> None:
    for document in quatrains:
        lines = document.text.translate(str.maketrans("，。？！；", "     ")).split()
        length = 7 if document.metadata["form"].startswith("七") else 5
        assert [len(line) for line in lines] == [length] * 4, document.id


def test_an_anecdote_is_english_prose_of_a_paragraph_or_more(anecdotes: list[Document]) -> None:
    for document in anecdotes:
        assert 200 < len(document.text) < 4000, document.id
        assert all(unicodedata.name(letter).startswith("LATIN") for letter in document.text if letter.isalpha())


def test_texts_and_titles_are_clean_and_no_text_comes_twice() -> None:
    documents = list(Sample().documents())
    assert len({document.text for document in documents}) == len(documents)
    for document in documents:
        assert document.text == document.text.strip()
        assert "\r" not in document.text
        assert document.metadata["title"].strip()
        assert document.metadata["theme"].strip()


def test_a_tenth_held_out_leaves_both_languages_on_both_sides() -> None:
    """The demo evaluates on the held-out side."""
    for language in ("zh", "en"):
        source = Sample(language)  # type: ignore[arg-type]
        assert len(list(held_out_documents(source))) >= 5
        assert len(list(train_documents(source))) >= 80


def test_the_texts_are_read_out_of_a_zipped_package(tmp_path: Path) -> None:
    """`importlib.resources` and not a path: a package may be imported from an archive."""
    package = Path(str(files("kerasgen")))
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in package.rglob("*"):
            if path.suffix in (".py", ".pyi", ".jsonl", ".json"):
                archive.write(path, Path("kerasgen") / path.relative_to(package))
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'packed.zip')!r}); import kerasgen; "
        "from kerasgen.corpora.sample import Sample; "
        "print('packed.zip' in kerasgen.__file__, len(list(Sample().documents())))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout.split()
    assert answer == ["True", str(len(list(Sample().documents())))]


@pytest.mark.parametrize("language", ["fr", "", None, ["zh"]])
def test_another_language_is_refused(language: object) -> None:
    with pytest.raises(CorpusArgumentError, match="zh, en, all"):
        Sample(language)  # type: ignore[arg-type]
