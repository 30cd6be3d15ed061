"""Corpora of TensorFlow Datasets, read through TFDS from data directories that TFDS itself prepared."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from tfds_preparing import needs_tfds, prepare_reddit_tifu

from kerasgen import corpora
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.files import Jsonl
from kerasgen.corpora.tfds import CnnDailymail, RedditTifu, Tfds
from kerasgen.errors import (
    CorpusArgumentError,
    CorpusFormatError,
    CorpusUnavailableError,
    MissingDependencyError,
)

pytestmark = [pytest.mark.one_backend, pytest.mark.tensorflow, needs_tfds]

POSTS = [
    {
        "id": f"p{number}",
        "documents": f"today i put the kettle on {number} times.\n\nnobody was home — 真的.",
        "title": f"making tea {number}",
        "tldr": "tea",
        "score": float(number),
    }
    for number in range(20)
] + [{"id": "blank", "documents": " \n", "title": "nothing", "tldr": "", "score": 0.0}]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_reddit_tifu(tmp_path_factory.mktemp("tfds"), POSTS)


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network: all requests go to a port of this machine that nobody listens at."""
    port = free_port()
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def test_reddit_tifu_reads_the_posts_that_tfds_prepared(data_dir: Path) -> None:
    tally = CorpusTally()
    documents = list(RedditTifu(data_dir=data_dir).documents(tally))
    assert {document.text for document in documents} == {str(post["documents"]) for post in POSTS if post["tldr"]}
    assert tally.to_dict() == {
        "read": 21,
        "kept": 20,
        "characters": sum(len(document.text) for document in documents),
        "dropped": {"empty": 1},
        "changed": {},
    }
    assert len({document.id for document in documents}) == 20
    first = documents[0]
    post = next(post for post in POSTS if post["documents"] == first.text)
    assert first.metadata == {
        "id": post["id"],
        "title": post["title"],
        "tldr": "tea",
        "score": post["score"],
        "num_comments": 1.0,
        "ups": 2.0,
        "upvote_ratio": 0.5,
    }


def test_the_title_is_read_where_it_is_asked_for(data_dir: Path) -> None:
    titles = {document.text for document in RedditTifu(text="title", data_dir=data_dir).documents()}
    assert titles == {post["title"] for post in POSTS}


def test_the_documents_come_twice_in_the_same_order_and_lazily(data_dir: Path) -> None:
    source = RedditTifu(data_dir=data_dir)
    every = list(source.documents())
    assert list(source.documents()) == every
    tally = CorpusTally()
    assert list(islice(source.documents(tally), 3)) == every[:3]
    assert tally.read < 21


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    source = RedditTifu(data_dir=prepare_reddit_tifu(tmp_path, POSTS, shards=3))
    documents = list(source.documents())
    shards = [document.id.split("__")[0] for document in documents]
    assert len(set(shards)) == 3
    assert shards == sorted(shards)
    assert len(documents) == 20


def test_any_prepared_data_set_is_read_by_name_even_one_without_code(tmp_path: Path) -> None:
    prepare_reddit_tifu(tmp_path, POSTS, name="kettle_posts")
    source = Tfds("kettle_posts/short:1.1.2", text="title", data_dir=tmp_path)
    assert {document.text for document in source.documents()} == {post["title"] for post in POSTS}


def test_two_features_are_a_prompt_and_its_response(data_dir: Path) -> None:
    source = Tfds("reddit_tifu/short", prompt="title", response="tldr", separator=" ", data_dir=data_dir)
    tally = CorpusTally()
    documents = list(source.documents(tally))
    assert {document.text for document in documents} == {f"{post['title']} tea" for post in POSTS if post["tldr"]}
    assert tally.dropped == {"empty response": 1}
    first = documents[0]
    assert [(part.text, part.weight, part.role) for part in first.parts] == [
        (first.text.removesuffix("tea"), 0, "user"),
        ("tea", 1.0, "assistant"),
    ]
    assert "documents" in first.metadata
    assert "title" not in first.metadata
    with pytest.raises(CorpusArgumentError, match=r"has no text feature 'question'. It has: 'documents'"):
        next(Tfds("reddit_tifu/short", prompt="question", response="tldr", data_dir=data_dir).documents())


def test_a_slice_of_a_split_is_its_beginning(data_dir: Path) -> None:
    every = list(Tfds("reddit_tifu/short", "title", data_dir=data_dir).documents())
    assert list(Tfds("reddit_tifu/short", "title", "train[:5]", data_dir=data_dir).documents()) == every[:5]


def test_the_spec_string_names_a_version() -> None:
    assert corpora.create("tfds:name=cnn_dailymail:3.4.0,text=article") == Tfds("cnn_dailymail:3.4.0", "article")
    assert corpora.create("reddit_tifu:variant=long,text=tldr,download=no") == RedditTifu(
        "tldr", "long", download=False
    )
    assert corpora.create("cnn_dailymail:split=validation") == CnnDailymail(split="validation")


@pytest.mark.usefixtures("nobody_answers")
@pytest.mark.parametrize(("source", "name"), [(RedditTifu, "reddit_tifu/short"), (CnnDailymail, "cnn_dailymail")])
def test_a_data_set_missing_offline_says_soon_what_to_run(
    tmp_path: Path, source: Callable[..., CorpusSource], name: str
) -> None:
    """TFDS alone tries each address for minutes."""
    began = time.monotonic()
    with pytest.raises(CorpusUnavailableError) as caught:
        next(source(data_dir=tmp_path).documents())
    assert time.monotonic() - began < 60
    assert (
        f"tfds.builder({name!r}, data_dir={str(tmp_path)!r}).download_and_prepare()" in str(caught.value).split("\n")[0]
    )
    assert "refused" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_set_is_not_downloaded_where_that_is_forbidden(tmp_path: Path) -> None:
    with pytest.raises(CorpusUnavailableError, match="download=False") as caught:
        next(RedditTifu(data_dir=tmp_path, download=False).documents())
    assert str(tmp_path) in str(caught.value.path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "redit_tifu", "text": "documents"}, "Did you mean 'reddit_tifu'"),
        ({"name": "reddit_tifu/medium", "text": "documents"}, "medium"),
        ({"name": "reddit_tifu/short:9.9.9", "text": "documents"}, "9.9.9"),
        ({"name": "reddit_tifu/short", "text": "body"}, "It has: 'documents', 'id', 'title', 'tldr'"),
        ({"name": "reddit_tifu/short", "text": "score"}, "no text feature 'score'"),
        ({"name": "reddit_tifu/short", "text": "title", "split": "test"}, "It has: 'train'"),
        ({"name": "reddit_tifu/short", "text": "title", "split": "train[:x]"}, "It has: 'train'"),
    ],
)
def test_what_tfds_does_not_have_lists_what_it_has(data_dir: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(CorpusArgumentError, match=message.replace("[", r"\[")):
        next(Tfds(**settings, data_dir=data_dir).documents())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:]]
)
def test_a_damaged_file_is_an_error_and_no_shorter_corpus(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    prepare_reddit_tifu(tmp_path, POSTS)
    (record,) = tmp_path.glob("**/*.tfrecord*")
    record.write_bytes(damage(record.read_bytes()))
    with pytest.raises(CorpusFormatError, match="can't be read") as caught:
        list(RedditTifu(data_dir=tmp_path).documents())
    assert caught.value.path == str(record.parent)


def test_a_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    prepare_reddit_tifu(tmp_path, [{**POSTS[0], "documents": b"ab\xff"}])
    with pytest.raises(CorpusFormatError, match="not UTF-8 at its byte 2"):
        list(RedditTifu(data_dir=tmp_path).documents())


def test_tfds_missing_says_which_extra_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_tfds(name: str, *arguments: Any) -> Any:
        if name == "tensorflow_datasets":
            raise ImportError(f"No module named {name!r}", name=name)
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_tfds)
    with pytest.raises(MissingDependencyError, match=r"kerasgen\[tfds\]") as caught:
        next(RedditTifu().documents())
    assert (caught.value.package, caught.value.extra) == ("tensorflow_datasets", "tfds")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Tfds("", "a"), "name"),
        (lambda: Tfds("a", ""), "text"),
        (lambda: Tfds("a"), "text must be text that is not empty. Received: None"),
        (lambda: Tfds("a", "b", prompt="c", response="d"), "Leave out text='b'"),
        (lambda: Tfds("a", prompt="c"), "A prompt needs a response"),
        (lambda: Tfds("a", "b", split=3), "split"),
        (lambda: Tfds("a", "b", data_dir=3), "data_dir"),
        (lambda: Tfds("a", "b", download="later"), "download"),
        (lambda: RedditTifu(text="body"), "text"),
        (lambda: RedditTifu(variant="medium"), "variant"),
        (lambda: RedditTifu(split=""), "split"),
        (lambda: CnnDailymail(text="documents"), "text"),
        (lambda: CnnDailymail(data_dir=""), "data_dir"),
    ],
)
def test_a_wrong_setting_is_refused_at_birth(build: Callable[[], CorpusSource], message: str) -> None:
    with pytest.raises(CorpusArgumentError, match=message):
        build()


def test_the_real_posts_pass_through_tfds_unchanged(tmp_path: Path, shared_data: Path) -> None:
    path = shared_data / "tifu_posts_2012_2013.jsonl.xz"
    posts = list(Jsonl(path, field="selftext_without_tldr", id_field="id", on_error="skip").documents())
    written = (
        {
            "id": post.id,
            "documents": post.text,
            "title": post.metadata["title"],
            "tldr": post.metadata["tldr"] or "",
            "score": float(post.metadata["score"]),
        }
        for post in posts
    )
    found = list(RedditTifu(data_dir=prepare_reddit_tifu(tmp_path, list(written))).documents())
    assert len(found) > 900

    def by_id(documents: Iterable[tuple[str, Document]]) -> dict[str, tuple[str, str]]:
        return {name: (document.text, document.metadata["title"]) for name, document in documents}

    assert by_id((str(post.metadata["id"]), post) for post in found) == by_id((post.id, post) for post in posts)
