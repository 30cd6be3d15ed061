"""Reddit TIFU and CNN / Daily Mail from local files: the documents that TFDS makes of the same records."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from tfds_preparing import needs_tfds, prepare_reddit_tifu

from kerasgen import corpora
from kerasgen.corpora.base import CorpusTally
from kerasgen.corpora.tfds import CnnDailymail, RedditTifu
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError

pytestmark = pytest.mark.one_backend

POSTS: list[dict[str, Any]] = [
    {
        "id": f"p{number}",
        "title": f"TIFU by making tea {number}",
        "trimmed_title": f"making tea {number}",
        "selftext": f"today I put the kettle on, {number} times.\n\n**TL;DR** tea",
        "selftext_without_tldr": f"\ntoday I put the kettle on, {number} times.\n\n真的 ",
        "tldr": None if number % 2 else "tea",
        "score": number,
    }
    for number in range(6)
] + [{"id": "b", "title": "TIFU", "trimmed_title": "nothing", "selftext_without_tldr": " ", "tldr": None, "score": 0}]
ARTICLES = [
    {"id": f"a{n}", "article": f'A "bridge", {n},\nopened.', "highlights": f"Bridge {n}\nopens"} for n in range(3)
]


def lines(records: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


def table(records: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(records[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records)
    return stream.getvalue().encode()


WRITTEN = {
    "a.jsonl": lines,
    "a.json": lambda records: json.dumps(records, indent=1).encode(),
    "a.csv": table,
    "a.tsv": lambda records: table(records, "\t"),
    "a.csv.gz": lambda records: gzip.compress(table(records)),
    "a.jsonl.xz": lambda records: lzma.compress(lines(records)),
    "a.json.bz2": lambda records: bz2.compress(json.dumps(records).encode()),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_posts_are_read_as_they_were_published(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITTEN[name](POSTS))
    tally = CorpusTally()
    documents = list(RedditTifu(path=tmp_path / name).documents(tally))
    assert [document.id for document in documents] == [f"p{number}" for number in range(6)]
    assert documents[2].text == "today I put the kettle on, 2 times.\n\n真的"
    assert documents[2].metadata["title"] == "making tea 2"
    assert documents[2].metadata["tldr"] == "tea"
    assert str(documents[2].metadata["score"]) == "2"
    assert (tally.read, tally.kept, tally.dropped) == (7, 6, {"empty": 1})
    assert next(RedditTifu("title", path=tmp_path / name).documents()).text == "making tea 0"
    assert [d.text for d in RedditTifu("tldr", path=tmp_path / name).documents()] == ["tea"] * 3
    tally = CorpusTally()
    assert [d.id for d in RedditTifu(variant="long", path=tmp_path / name).documents(tally)] == ["p0", "p2", "p4"]
    assert tally.read == 7


@pytest.mark.parametrize("name", WRITTEN)
def test_articles_are_read_as_they_are_passed_on(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(WRITTEN[name](ARTICLES))
    first, *_ = CnnDailymail(path=tmp_path / name).documents()
    assert (first.id, first.text, first.metadata) == (
        "a0",
        'A "bridge", 0,\nopened.',
        {"highlights": "Bridge 0\nopens"},
    )
    found = corpora.create(f"cnn_dailymail:path={tmp_path / name},text=highlights")
    assert [document.text for document in found.documents()] == [f"Bridge {n}\nopens" for n in range(3)]


def test_a_split_chooses_among_the_files_of_a_folder(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "validation", "test")):
        (tmp_path / f"{split}.csv").write_bytes(table(ARTICLES[number : number + 1]))
    assert [d.id for d in CnnDailymail(path=tmp_path).documents()] == ["a0"]
    assert [d.id for d in CnnDailymail(path=tmp_path, split="validation").documents()] == ["a1"]
    assert [d.id for d in CnnDailymail(path=tmp_path / "test.csv").documents()] == ["a2"]
    with pytest.raises(
        CorpusUnavailableError, match=r"no file whose name begins with 'dev'\. It holds: test\.csv, train"
    ):
        list(CnnDailymail(path=tmp_path, split="dev").documents())
    with pytest.raises(CorpusArgumentError, match="split='validation' chooses among the files of a folder"):
        list(CnnDailymail(path=tmp_path / "test.csv", split="validation").documents())
    with pytest.raises(CorpusArgumentError, match=r"Received: 'train\[:10%\]'.*max_documents"):
        list(CnnDailymail(path=tmp_path, split="train[:10%]").documents())


def test_files_of_other_fields_and_other_kinds_say_what_they_are(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(WRITTEN[name](ARTICLES))
        with pytest.raises(CorpusFormatError, match=r"no field for reddit_tifu's 'documents'.*it has 'id', 'article'"):
            list(RedditTifu(path=tmp_path / name).documents())
    (tmp_path / "train.json").write_bytes(b"PAR1\x15\x00")
    with pytest.raises(CorpusFormatError, match=r"but a Parquet file.*pandas"):
        list(CnnDailymail(path=tmp_path / "train.json").documents())
    (tmp_path / "b.jsonl").write_text('{"article": 5}', encoding="utf-8")
    with pytest.raises(CorpusFormatError, match="is no text but 5"):
        list(CnnDailymail(path=tmp_path / "b.jsonl").documents())


@needs_tfds
@pytest.mark.tensorflow
def test_the_documents_are_those_of_tfds(tmp_path: Path) -> None:
    named = [
        {
            "id": post["id"],
            "documents": post["selftext_without_tldr"].strip(),
            "title": post["trimmed_title"],
            "tldr": post["tldr"] or "",
            "score": float(post["score"]),
        }
        for post in POSTS
    ]
    data_dir = prepare_reddit_tifu(tmp_path / "tfds", named)
    (tmp_path / "a.jsonl").write_bytes(lines(POSTS))
    for text in ("documents", "title", "tldr"):
        by_tfds = sorted(d.text for d in RedditTifu(text, data_dir=data_dir).documents())
        assert sorted(d.text for d in RedditTifu(text, path=tmp_path / "a.jsonl").documents()) == by_tfds


def test_the_real_posts_are_read(shared_data: Path) -> None:
    path = shared_data / "tifu_posts_2012_2013.jsonl.xz"
    tally = CorpusTally()
    documents = list(RedditTifu(path=path).documents(tally))
    assert (tally.read, tally.kept) == (988, len(documents))
    assert tally.kept > 900
    with_summary = list(RedditTifu(variant="long", path=path).documents())
    assert 0 < len(with_summary) < len(documents)
    assert all(document.metadata["tldr"] for document in with_summary)


@pytest.mark.parametrize("kind", [RedditTifu, CnnDailymail])
def test_a_path_that_is_not_there_is_told_by_check(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(CorpusUnavailableError, match="no file or folder"):
        kind(path=tmp_path / "nowhere.csv").check()
    kind().check()
