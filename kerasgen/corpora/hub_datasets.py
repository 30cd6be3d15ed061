"""Reads documents from Hugging Face datasets, streamed from the hub or from local folders and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.corpora.streams import OnError, check_on_error
from kerasgen.corpora.tables import Columns, TableRowError, check_text
from kerasgen.errors import (
    CorpusArgumentError,
    CorpusFormatError,
    CorpusUnavailableError,
    MissingDependencyError,
)
from kerasgen.keywords import meant

_SAVED = ("dataset_info.json", "state.json", "dataset_dict.json")  # what `Dataset.save_to_disk` writes


@dataclass(frozen=True)
class Datasets(CorpusSource):
    r"""A Hugging Face dataset: each row is a document, and one of its columns is the text.

    The row's other columns become the document's metadata. A blank or null text is dropped and counted as "empty". Rows
    come in the dataset's order, streamed, so that no more than a few are in memory. It needs
    `pip install 'kerasgen[datasets]'`, and what that reads: the hub, or a folder here.

    Args:
        name: a dataset of the hub (`"stanfordnlp/imdb"`), a folder that `Dataset.save_to_disk` wrote, or a folder of
            files that `datasets.load_dataset` knows (Parquet, JSON lines, CSV, text).
        split: a split, `"train"` by default; of a folder that holds one dataset without splits, nothing else.
        config: the dataset's configuration, where it has several.
        revision: of the hub's repository: a commit, tag or branch. Name a commit for a run that repeats.
        streaming: False downloads and prepares the dataset first, which reads it faster at each pass.
        field: the name of the column that holds the text, or a list of texts, which become its lines.
        id_field: the name of the column that holds the document's id; without it the id is the row's number.
        on_error: "raise" an error at a row that can't be used, or "skip" and count it.
        prompt: in place of `field`, the column that holds a prompt, which is read and not learned; see `Jsonl`.
        response: the column of what is learned after the prompt.
        separator: what stands between both, a line end by default.
        chosen: in place of `response`, the column of the better answer of a pair.
        rejected: the column of the worse answer.
        messages: the column of conversations.

    Raises:
        CorpusArgumentError: a setting is wrong.
    """

    name: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None
    streaming: bool = True
    field: str = "text"
    id_field: str | None = None
    on_error: OnError = "raise"
    prompt: str | None = None
    response: str | None = None
    separator: str = "\n"
    chosen: str | None = None
    rejected: str | None = None
    messages: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", str(self.name) if isinstance(self.name, Path) else self.name)
        for argument in ("name", "split"):
            check_text(getattr(self, argument), argument)
        for argument in ("config", "revision"):
            if getattr(self, argument) is not None:
                check_text(getattr(self, argument), argument)
        if not isinstance(self.streaming, bool):
            raise CorpusArgumentError(f"streaming must be True or False. Received: {self.streaming!r}.")
        self._columns  # noqa: B018  (what is wrong is told now)
        check_on_error(self.on_error)

    @cached_property
    def _columns(self) -> Columns:
        return Columns.of(self)

    def about(self) -> Mapping[str, Any]:
        """Return the name of a dataset of the hub; nothing of a folder of this machine."""
        is_local = Path(self.name).exists() or self.name.startswith(("/", ".", "~"))
        return {} if is_local else {"name": self.name, "dataset": self.name}

    def check(self) -> None:
        """Look for the package, and open nothing."""
        _datasets()

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield the documents in the dataset's order.

        Args:
            tally: filled while the documents are drawn, if given.

        Raises:
            CorpusArgumentError: there is no such split or column; lists those that there are.
            CorpusFormatError: a row can't be used, and `on_error` is "raise"; or a file is damaged.
            CorpusUnavailableError: the dataset is not here and can't be fetched.
            MissingDependencyError: the package `datasets` is not installed.
        """
        tally = CorpusTally() if tally is None else tally
        dataset = self._opened()
        if dataset.column_names is not None:
            self._check_columns(dataset.column_names)
        for number, row in enumerate(self._rows(dataset)):
            if number == 0:
                self._check_columns(list(row))
            try:
                made = self._columns.document(row, id=str(number))
            except TableRowError as fault:
                if self.on_error == "raise":
                    raise CorpusFormatError(
                        f"Row {number} of the dataset {self.name!r}: {fault.what}. Leave it out by on_error='skip'."
                    ) from fault
                tally.drop(fault.reason)
                continue
            if isinstance(made, str):
                tally.drop(made)
            else:
                yield tally.keep(made)

    def _check_columns(self, columns: list[str]) -> None:
        missing = self._columns.missing(columns)
        if missing is not None:
            raise CorpusArgumentError(f"In the dataset {self.name!r} {missing}.")

    def _rows(self, dataset: Any) -> Iterator[dict[str, Any]]:
        rows = iter(dataset)
        while True:
            try:
                row = next(rows, None)
            except Exception as cause:  # whatever a reader of `datasets` raises
                raise CorpusFormatError(
                    f"The dataset {self.name!r} can't be read on: {type(cause).__name__}: {str(cause)!s:.200}."
                ) from cause
            if row is None:
                return
            yield row

    def _opened(self) -> Any:
        datasets = _datasets()
        place = Path(self.name).expanduser()
        try:
            if place.is_dir() and any((place / name).is_file() for name in _SAVED):
                found = datasets.load_from_disk(str(place))
                return self._of_split(found if isinstance(found, dict) else {str(found.split or "train"): found})
            name = str(place) if place.exists() else self.name
            settings = {"split": self.split, "streaming": self.streaming, "revision": self.revision}
            return datasets.load_dataset(name, self.config, **settings)
        except CorpusArgumentError:
            raise
        except ValueError as cause:  # an unknown split or configuration, which it lists
            raise CorpusArgumentError(f"The dataset {self.name!r} can't be opened so: {str(cause)!s:.300}") from cause
        except Exception as cause:  # the hub's errors are of many kinds
            raise CorpusUnavailableError(
                f"The dataset {self.name!r} can't be opened: {type(cause).__name__}: {str(cause)!s:.300}. Name a "
                "dataset of the hub, or a folder here."
            ) from cause

    def _of_split(self, found: Any) -> Any:
        if self.split not in found:
            raise CorpusArgumentError(
                f"The dataset {self.name!r} has no split {self.split!r}; there are: {', '.join(map(repr, found))}."
                f"{meant(self.split, tuple(found))}"
            )
        return found[self.split]


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as cause:
        raise MissingDependencyError(
            "Hugging Face datasets are read by the package `datasets`, which can't be imported. Install it: "
            "pip install 'kerasgen[datasets]'.",
            package="datasets",
            extra="datasets",
        ) from cause
    return datasets
