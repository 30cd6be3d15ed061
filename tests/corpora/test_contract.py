"""Every built-in corpus keeps the contract that plugin authors inherit."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tfds_preparing import needs_tfds, prepare_cnn_dailymail, prepare_reddit_tifu

from kerasgen import corpora
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.chinese_poetry import ChinesePoetry
from kerasgen.corpora.files import Csv, Jsonl, Text
from kerasgen.corpora.sample import Sample
from kerasgen.corpora.texts import Texts
from kerasgen.corpora.tfds import CnnDailymail, RedditTifu, Tfds
from kerasgen.testing.corpora import CorpusContract

pytestmark = pytest.mark.one_backend


class TestText(CorpusContract):
    bad_arguments = ({"path": ""}, {"split": "word"}, {"encoding": "utf-9"}, {"on_error": "ignore"})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        (tmp_path / "a.txt").write_text("one\n\ntwo\n")
        (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"three"))
        return Text(tmp_path, split="line", encoding="gb18030")

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f"text:path={tmp_path},split=line,encoding=gb18030"


class TestJsonl(CorpusContract):
    bad_arguments = ({"path": ""}, {"field": ""}, {"id_field": ""}, {"on_error": "ignore"})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        lines = ['{"body": "one", "id": 1, "score": 3}', "broken", '{"body": "two", "id": 2, "tags": ["a", null]}']
        (tmp_path / "a.jsonl").write_text("\n".join(lines))
        return Jsonl(tmp_path / "a.jsonl", field="body", id_field="id", on_error="skip")

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f"jsonl:path={tmp_path}/a.jsonl,field=body,id_field=id,on_error=skip"


class TestCsv(CorpusContract):
    bad_arguments = ({"path": ""}, {"field": ""}, {"delimiter": "::"}, {"on_error": "ignore"})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        (tmp_path / "a.tsv").write_text("id\tbody\n1\tone\n2\n3\ttwo\n")
        return Csv(tmp_path, field="body", delimiter="\t", on_error="skip")

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f"csv:path={tmp_path},field=body,delimiter=tab,on_error=skip"


class TestSample(CorpusContract):
    bad_arguments = ({"language": "fr"},)

    @pytest.fixture
    def corpus(self) -> CorpusSource:
        return Sample(language="zh")

    @pytest.fixture
    def spec(self) -> str:
        return "sample:language=zh"


class TestTextsOfAList(CorpusContract):
    bad_arguments = ({"texts": "one"}, {"texts": 7}, {"texts": {"a": 1}})

    @pytest.fixture
    def corpus(self) -> CorpusSource:
        return Texts(["one", "", "two"])


class TestTextsOfAGenerator(CorpusContract):
    @pytest.fixture
    def corpus(self) -> CorpusSource:
        return Texts(text for text in ("one", "", "two"))


class TestChinesePoetry(CorpusContract):
    bad_arguments = ({"dynasty": "ming"}, {"form": "nine"}, {"path": ""})

    @pytest.fixture
    def corpus(self, tmp_path: Path) -> CorpusSource:
        poems = [
            {"author": "甲", "title": "其一", "id": "a", "paragraphs": ["一二三四五，六七八九十。"]},
            {"author": "乙", "title": "其二", "id": "b", "paragraphs": ["□二三四五，六七八九十。"]},
            {"author": "丙", "title": "其三", "id": "c", "paragraphs": ["十九八七六，五四三二一。"]},
        ]
        (tmp_path / "全唐诗").mkdir()
        (tmp_path / "全唐诗" / "poet.tang.0.json").write_text(json.dumps(poems), "utf-8")
        return ChinesePoetry(path=str(tmp_path), dynasty="tang")

    @pytest.fixture
    def spec(self, tmp_path: Path) -> str:
        return f"chinese_poetry:path={tmp_path},dynasty=tang"


@pytest.fixture(scope="module")
def tfds_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of TFDS with a few posts and articles."""
    texts = ("the kettle was empty", " ", "the bus was full", "the cat was in")
    data_dir = tmp_path_factory.mktemp("tfds")
    prepare_reddit_tifu(
        data_dir,
        [{"documents": text, "title": "t", "tldr": "s", "score": 1.0, "id": str(n)} for n, text in enumerate(texts)],
    )
    return prepare_cnn_dailymail(
        data_dir,
        [{"article": text, "highlights": "h", "publisher": "p", "id": str(n)} for n, text in enumerate(texts)],
    )


@needs_tfds
@pytest.mark.tensorflow
class TestRedditTifu(CorpusContract):
    bad_arguments = ({"text": "body"}, {"variant": "medium"}, {"split": ""}, {"data_dir": 3}, {"download": "no"})

    @pytest.fixture
    def corpus(self, tfds_data_dir: Path) -> CorpusSource:
        return RedditTifu(data_dir=tfds_data_dir, download=False)

    @pytest.fixture
    def spec(self, tfds_data_dir: Path) -> str:
        return f"reddit_tifu:data_dir={tfds_data_dir},download=false"


@needs_tfds
@pytest.mark.tensorflow
class TestCnnDailymail(CorpusContract):
    bad_arguments = ({"text": "title"}, {"split": ""}, {"data_dir": ""}, {"download": 1})

    @pytest.fixture
    def corpus(self, tfds_data_dir: Path) -> CorpusSource:
        return CnnDailymail(data_dir=tfds_data_dir, split="train[:3]", download=False)

    @pytest.fixture
    def spec(self, tfds_data_dir: Path) -> str:
        return f"cnn_dailymail:data_dir={tfds_data_dir},split=train[:3],download=false"


@needs_tfds
@pytest.mark.tensorflow
class TestTfds(CorpusContract):
    bad_arguments = ({"name": ""}, {"text": ""}, {"split": None}, {"data_dir": 3}, {"download": "no"})

    @pytest.fixture
    def corpus(self, tfds_data_dir: Path) -> CorpusSource:
        return Tfds("cnn_dailymail:3.4.0", text="article", data_dir=tfds_data_dir, download=False)

    @pytest.fixture
    def spec(self, tfds_data_dir: Path) -> str:
        return f"tfds:name=cnn_dailymail:3.4.0,text=article,data_dir={tfds_data_dir},download=false"


def test_every_registered_corpus_of_the_package_is_held_to_the_contract() -> None:
    held = {"chinese_poetry", "cnn_dailymail", "csv", "jsonl", "reddit_tifu", "sample", "text", "tfds"}
    own = {name for name in corpora.names() if corpora.get(name).__module__.startswith("kerasgen.")}
    assert own == held | {"datasets", "dedup", "mix", "parquet"}  # those of test_tables.py


class Forgetful(CorpusSource):
    """Loses its second text without a word."""

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        tally = CorpusTally() if tally is None else tally
        yield tally.keep(Document("one", "1"))
        tally.read += 1
        yield tally.keep(Document("three", "1"))


def test_a_corpus_that_loses_a_text_fails_the_contract() -> None:
    """The contract can fail: a text that is read and neither kept nor dropped, and an id that is given twice."""
    contract = CorpusContract()
    with pytest.raises(AssertionError):
        contract.test_the_tally_adds_up(Forgetful())
    with pytest.raises(AssertionError, match="one id"):
        contract.test_documents_hold_a_text_an_id_of_their_own_and_metadata(Forgetful())


def test_a_constructor_that_opens_a_file_fails_the_contract() -> None:
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Eager(Forgetful):
        path: str = __file__

        def __post_init__(self) -> None:
            Path(self.path).read_bytes()

    with pytest.raises(AssertionError, match="open"):
        CorpusContract().test_construction_does_no_input_or_output(Eager())
