"""Reads documents from TensorFlow Datasets: any text feature of a prepared data set, through TFDS itself."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import urlsplit

from kerasgen import backend, quiet
from kerasgen.corpora import prompted, published
from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import (
    CorpusArgumentError,
    CorpusFormatError,
    CorpusUnavailableError,
    MissingDependencyError,
)
from kerasgen.keywords import did_you_mean, meant

PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class Tfds(CorpusSource):
    """Any data set of TensorFlow Datasets that has a text feature.

    Documents come in the order in which TFDS stored them; their other scalar features are their metadata. A text of
    nothing but white space is dropped and counted as "empty", and a pair with such a response as "empty response".

    Args:
        name: the name of the data set, with its configuration and version if need be, such as `"cnn_dailymail:3.4.0"`.
        text: the feature that is the text; None where there are `prompt` and `response`.
        split: the split of the data set, in TFDS's notation: `"train"`, `"train[:10%]"`, `"train+test"`.
        data_dir: where TFDS keeps prepared data sets; None is TFDS's own default.
        download: whether TFDS may download and prepare the data set where it is not there yet.
        prompt: in place of `text`, the feature that is only read.
        response: the feature that is learned after the prompt.
        separator: what stands between both, a line end by default.

    Raises:
        CorpusArgumentError: a setting is no text, or empty, or there are neither `text` nor `prompt` and `response`.
    """

    name: str
    text: str | None = None
    split: str = "train"
    data_dir: str | os.PathLike[str] | None = None
    download: bool = True
    prompt: str | None = None
    response: str | None = None
    separator: str = "\n"

    def __post_init__(self) -> None:
        pairs = self.prompt is not None or self.response is not None
        for argument in ("name", "split") if pairs and self.text is None else ("name", "text", "split"):
            value = getattr(self, argument)
            if not isinstance(value, str) or not value:
                raise CorpusArgumentError(f"{argument} must be text that is not empty. Received: {value!r}.")
        if pairs and self.text is not None:
            raise CorpusArgumentError(
                f"Texts are made of prompt={self.prompt!r} and response={self.response!r}. Leave out "
                f"text={self.text!r}."
            )
        self._fields()
        _check_place(self)

    def _fields(self) -> prompted.Fields | None:
        """Return the features of a prompt and its response, or None where there is a text alone."""
        return prompted.fields(
            prompt=self.prompt,
            response=self.response,
            chosen=None,
            rejected=None,
            messages=None,
            separator=self.separator,
            field="",
            default="",
        )

    def about(self) -> Mapping[str, Any]:
        """Return the data set's name."""
        return {"name": f"{self.name}, a data set of TensorFlow Datasets"}

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents in TFDS's order; the first call may download and prepare the data set.

        Args:
            tally: filled while the documents are drawn, if given.

        Raises:
            CorpusArgumentError: TFDS has no such data set, version, split or feature; lists those that there are.
            CorpusUnavailableError: the data set is not prepared and can't be; says what to run.
            CorpusFormatError: its files are damaged, or a text is not UTF-8.
            MissingDependencyError: TensorFlow Datasets is not installed.
        """
        tally = CorpusTally() if tally is None else tally
        tf, tfds = _import_tfds()
        builder = self._prepared(tfds)
        scalars = self._scalars(builder, tf)
        self._check_split(builder)
        read_config = tfds.ReadConfig(
            add_tfds_id=True,
            interleave_cycle_length=1,  # one file after the other, as they lie
            try_autocache=False,  # a small data set would be kept in memory
        )
        dataset = builder.as_dataset(
            split=self.split,
            shuffle_files=False,
            read_config=read_config,
            decoders=tfds.decode.PartialDecoding(dict.fromkeys(scalars, True)),
        )
        try:
            for example in tfds.as_numpy(dataset):
                document = self._document(example)
                if document.parts and not document.parts[-1].text.strip():
                    tally.drop("empty response")
                elif document.text.strip():
                    yield tally.keep(document)
                else:
                    tally.drop("empty")
        except tf.errors.OpError as cause:  # a record cut short, a wrong checksum, a file that is gone
            raise CorpusFormatError(
                f"The files of {self.name!r} in {str(builder.data_path)!r} can't be read: {_first_line(cause)}. Delete "
                f"that folder and prepare the data set again: {self._command()}",
                path=str(builder.data_path),
            ) from cause

    def _prepared(self, tfds: Any) -> Any:
        """Return the builder, with its data on disk."""
        try:
            builder = tfds.builder(self.name, data_dir=self._data_dir(), try_gcs=False)
        except tfds.core.registered.DatasetNotFoundError as cause:
            hint = did_you_mean(self.name, tfds.list_builders(with_community_datasets=False))
            raise CorpusArgumentError(f"TensorFlow Datasets has no data set {self.name!r}.{hint}") from cause
        except (AssertionError, ValueError) as cause:  # a configuration or version that there isn't
            raise CorpusArgumentError(
                f"TensorFlow Datasets can't make a builder of {self.name!r}: {_first_line(cause)}"
            ) from cause
        if builder.is_prepared():
            return builder
        if not self.download:
            raise self._unavailable(builder, "and download=False forbids to fetch it")
        offline = _offline(builder.url_infos)
        if offline is not None:
            raise self._unavailable(builder, f"and can't be downloaded ({_first_line(offline)})") from offline
        try:
            builder.download_and_prepare()
        except Exception as failure:
            # Anything can go wrong in a data set's own code: the person needs to know that it was there, and what.
            raise self._unavailable(
                builder, f"and preparing it failed ({type(failure).__name__}: {_first_line(failure)})"
            ) from failure
        return builder

    def _unavailable(self, builder: Any, why: str) -> CorpusUnavailableError:
        folder = str(builder.data_path)
        return CorpusUnavailableError(
            f"The data set {self.name!r} is not prepared in {folder!r}, {why}. "
            f"Where there is a network, run: {self._command()}\n"
            "If that is another machine, copy the folder here, or pass the data_dir that holds it. "
            "'sample' and 'text:path=…' work offline.",
            path=folder,
        )

    def _command(self) -> str:
        place = "" if self.data_dir is None else f", data_dir={self._data_dir()!r}"
        return (
            f'python -c "import tensorflow_datasets as tfds; tfds.builder({self.name!r}{place}).download_and_prepare()"'
        )

    def _data_dir(self) -> str | None:
        return None if self.data_dir is None else os.path.expanduser(self.data_dir)  # noqa: PTH111 - may be a gs:// URL

    def _scalars(self, builder: Any, tf: Any) -> list[str]:
        """Return the features that are one string or number, those of the text among them."""
        features: Mapping[str, Any] = builder.info.features if hasattr(builder.info.features, "items") else {}
        scalars = {key: feature for key, feature in features.items() if getattr(feature, "shape", None) == ()}
        texts = [key for key, feature in scalars.items() if feature.tf_dtype == tf.string]
        for wanted in self._texts():
            if wanted not in texts:
                raise CorpusArgumentError(
                    f"The data set {self.name!r} has no text feature {wanted!r}. It has: "
                    f"{', '.join(map(repr, sorted(texts))) or 'none'}."
                )
        return list(scalars)

    def _check_split(self, builder: Any) -> None:
        try:
            builder.info.splits[self.split]
        except (AssertionError, KeyError, ValueError) as cause:
            raise CorpusArgumentError(
                f"The data set {self.name!r} has no split {self.split!r}. It has: "
                f"{', '.join(map(repr, builder.info.splits))}, and slices such as 'train[:10%]'."
            ) from cause

    def _document(self, example: Mapping[str, Any]) -> Document:
        name = example["tfds_id"].decode("utf-8")
        texts = {}
        for key in self._texts():
            try:
                texts[key] = example[key].decode("utf-8")
            except UnicodeDecodeError as cause:
                raise CorpusFormatError(
                    f"The text of {name!r} in the data set {self.name!r} is not UTF-8 at its byte {cause.start}.",
                    path=name,
                    byte=cause.start,
                ) from cause
        metadata = {
            key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item()
            for key, value in example.items()
            if key != "tfds_id" and key not in texts
        }
        fields = self._fields()
        if fields is not None:
            return fields.document(texts | metadata, id=name)
        assert self.text is not None
        return Document(text=texts[self.text], id=name, metadata=metadata)

    def _texts(self) -> tuple[str, ...]:
        """The features of which documents are made."""
        fields = self._fields()
        if fields is not None:
            return fields.names
        assert self.text is not None
        return (self.text,)


@dataclass(frozen=True)
class RedditTifu(CorpusSource):
    """Posts of the Reddit TIFU data set, in which people tell of a mishap of their own; read by TFDS or from files.

    Args:
        text: what is a document: the post's "documents" (TFDS's name for its body), its "title" or its "tldr".
        variant: "short" (all posts), "long" (those with a tl;dr), or "long_split" (the same, with the splits train,
            validation and test).
        split: in TFDS's notation; "short" and "long" have only "train".
        data_dir: where TFDS keeps prepared data sets; None is TFDS's own default.
        download: whether TFDS may download and prepare the data set where it is not there yet.
        path: a file that holds the data set already, or a folder of some, in CSV or JSON, compressed or not, with the
            names of fields that it was published with or that TFDS has. Then TFDS is not asked, and `split` chooses
            among a folder's files by how their names begin.

    Raises:
        CorpusArgumentError: a setting is wrong.

    Source: Kim, Kim & Kim 2019, "Abstractive Summarization of Reddit Posts with Multi-level Memory Networks".
    """

    text: Literal["documents", "title", "tldr"] = "documents"
    variant: Literal["short", "long", "long_split"] = "short"
    split: str = "train"
    data_dir: str | os.PathLike[str] | None = None
    download: bool = True
    path: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _check_choice("text", self.text, ("documents", "title", "tldr"))
        _check_choice("variant", self.variant, ("short", "long", "long_split"))
        _check_place(self)
        self._tfds()
        object.__setattr__(self, "path", published.check(self.path))

    def about(self) -> Mapping[str, Any]:
        """Return the data set's name and language."""
        return {"name": "Reddit TIFU", "languages": ["en"]}

    def check(self) -> None:
        """Look for the files, if there is a path."""
        if self.path is not None:
            published.find(os.fspath(self.path), self.split, _TIFU)

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the posts, as `Tfds.documents` does, or in the order of the files."""
        if self.path is None:
            return self._tfds().documents(tally)
        layout = _TIFU if self.variant == "short" else dataclasses.replace(_TIFU, needed="tldr")
        counts = CorpusTally() if tally is None else tally
        return published.documents(os.fspath(self.path), self.split, self.text, layout, counts)

    def _tfds(self) -> Tfds:
        return Tfds(f"reddit_tifu/{self.variant}", self.text, self.split, self.data_dir, self.download)


@dataclass(frozen=True)
class CnnDailymail(CorpusSource):
    """The news articles of the CNN / Daily Mail data set, through TensorFlow Datasets or from files.

    Args:
        text: what is a document: the "article" or its "highlights".
        split: in TFDS's notation: "train", "validation", "test", or a slice.
        data_dir: where TFDS keeps prepared data sets; None is TFDS's own default.
        download: whether TFDS may download and prepare the data set where it is not there yet.
        path: a file that holds the data set already, or a folder of some, in CSV or JSON, compressed or not, with the
            names of fields that it was published with or that TFDS has. Then TFDS is not asked, and `split` chooses
            among a folder's files by how their names begin.

    Raises:
        CorpusArgumentError: a setting is wrong.

    Source: Hermann et al. 2015; See, Liu & Manning 2017 for this form of it.
    """

    text: Literal["article", "highlights"] = "article"
    split: str = "train"
    data_dir: str | os.PathLike[str] | None = None
    download: bool = True
    path: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        _check_choice("text", self.text, ("article", "highlights"))
        _check_place(self)
        self._tfds()
        object.__setattr__(self, "path", published.check(self.path))

    def about(self) -> Mapping[str, Any]:
        """Return the data set's name and language."""
        return {"name": "CNN/DailyMail", "languages": ["en"]}

    def check(self) -> None:
        """Look for the files, if there is a path."""
        if self.path is not None:
            published.find(os.fspath(self.path), self.split, _CNN)

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the articles, as `Tfds.documents` does, or in the order of the files."""
        if self.path is None:
            return self._tfds().documents(tally)
        counts = CorpusTally() if tally is None else tally
        return published.documents(os.fspath(self.path), self.split, self.text, _CNN, counts)

    def _tfds(self) -> Tfds:
        return Tfds("cnn_dailymail", self.text, self.split, self.data_dir, self.download)


# What TFDS calls "documents" is the post without its tl;dr, and its "title" the one without "TIFU by".
_TIFU = published.Layout(
    "reddit_tifu",
    {
        "documents": ("documents", "document", "selftext_without_tldr", "selftext", "body"),
        "title": ("trimmed_title", "title"),
        "tldr": ("tldr", "summary"),
    },
)
_CNN = published.Layout("cnn_dailymail", {"article": ("article",), "highlights": ("highlights",)})


def _check_choice(argument: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CorpusArgumentError(
            f"{argument} must be one of {', '.join(map(repr, choices))}. Received: {value!r}.{meant(value, choices)}"
        )


def _check_place(corpus: Tfds | RedditTifu | CnnDailymail) -> None:
    if corpus.data_dir is not None:
        if not isinstance(corpus.data_dir, (str, os.PathLike)) or not os.fspath(corpus.data_dir):
            raise CorpusArgumentError(f"data_dir must be a folder or None. Received: {corpus.data_dir!r}.")
        object.__setattr__(corpus, "data_dir", os.fspath(corpus.data_dir))
    if not isinstance(corpus.download, bool):
        raise CorpusArgumentError(f"download must be True or False. Received: {corpus.download!r}.")


def _import_tfds() -> tuple[Any, Any]:
    try:
        quiet.load("tensorflow")
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as cause:
        raise MissingDependencyError(
            f"This corpus is read through TensorFlow Datasets, which can't be imported: {cause}. "
            "Install it: pip install 'kerasgen[tfds]'.",
            package=cause.name or "tensorflow_datasets",
            extra="tfds",
        ) from cause
    if backend.running() != "tensorflow":
        # TensorFlow only reads files here. Left alone it would claim a GPU's whole memory, which the model needs.
        with contextlib.suppress(RuntimeError):  # it has started already: too late
            for device in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(device, True)
    return tf, tfds


def _offline(urls: Mapping[str, Any]) -> Exception | None:
    """Return why no host of the data set's registered URLs answers, or None if one does, or none is registered.

    TFDS tries each URL ten times, for more than three minutes, before it says that there is no network.
    """
    failure: Exception | None = None
    parts = [urlsplit(url) for url in urls]
    for scheme, host in sorted({(part.scheme, part.netloc) for part in parts}):
        if scheme not in ("http", "https"):
            return None
        request = urllib.request.Request(f"{scheme}://{host}/", method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError as answer:  # an answer all the same
            answer.close()
            return None
        except (OSError, HTTPException) as cause:
            failure = cause
        else:
            return None
    return failure


def _first_line(cause: Exception) -> str:
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:300]
