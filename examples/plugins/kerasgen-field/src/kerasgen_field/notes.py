"""`notes`: Markdown files with front matter, as blogs and note-taking programs keep them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kerasgen.corpora.base import CorpusSource, CorpusTally, Document
from kerasgen.errors import CorpusArgumentError, CorpusFormatError, CorpusUnavailableError

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->|%%.*?%%", re.DOTALL)  # HTML's, and Obsidian's


@dataclass(frozen=True)
class Notes(CorpusSource):
    """The Markdown files of a folder, a document each, with what their front matter says as metadata.

    Files are read in the order of their names. A file that says `draft: true` or `published: false` is dropped.

    Args:
        path: the folder, which is read with all folders in it, or one file.
        tag: keep only files whose front matter has this among its `tags`; None keeps all.
        title: whether a document begins with its title, from the front matter, as a heading.
    """

    contract_version: ClassVar[int] = 1

    path: str | os.PathLike[str]
    tag: str | None = None
    title: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.path, str | os.PathLike) or not os.fspath(self.path):
            raise CorpusArgumentError(f"path must be that of a folder or a file. Received: path={self.path!r}.")
        if self.tag is not None and (not isinstance(self.tag, str) or not self.tag):
            raise CorpusArgumentError(f"tag must be text, or None for all files. Received: tag={self.tag!r}.")
        if not isinstance(self.title, bool):
            raise CorpusArgumentError(f"title must be True or False. Received: title={self.title!r}.")
        object.__setattr__(self, "path", os.fspath(self.path))

    def check(self) -> None:
        """Say that there is nothing to read before a model is loaded."""
        if not Path(self.path).exists():
            raise CorpusUnavailableError(f"There is no folder and no file {self.path}.", path=Path(self.path))

    def documents(self, tally: CorpusTally | None = None) -> Iterator[Document]:
        """Yield a document for each file; those that are dropped are counted with the reason."""
        tally = CorpusTally() if tally is None else tally
        self.check()
        root = Path(self.path)
        for file in [root] if root.is_file() else sorted(root.rglob("*.md")):
            front, text = _read(file)
            reason = self._dropped(front, text)
            if reason is not None:
                tally.drop(reason)
                continue
            title = front.get("title")
            if self.title and isinstance(title, str) and title.strip():
                text = f"# {title.strip()}\n\n{text}"
            name = file.name if root.is_file() else file.relative_to(root).as_posix()
            yield tally.keep(Document(text=text, id=name, metadata=_as_json(front)))

    def _dropped(self, front: Mapping[str, Any], text: str) -> str | None:
        if not text:
            return "empty"
        if front.get("draft") is True or front.get("published") is False:
            return "draft"
        return None if self.tag is None or self.tag in _tags(front) else "another tag"


def _read(file: Path) -> tuple[dict[str, Any], str]:
    """Return the front matter of a file, and its text without comments."""
    import yaml

    try:
        content = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as cause:
        message = f"{file} is not UTF-8: byte {cause.start}. Convert it, or move it away."
        raise CorpusFormatError(message, path=file, byte=cause.start) from cause
    except OSError as cause:
        raise CorpusUnavailableError(f"A note can't be read: {cause}", path=file) from cause
    match = _FRONT_MATTER.match(content)
    if match is None:
        return {}, _COMMENT.sub("", content).strip()
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as cause:
        place = getattr(cause, "problem_mark", None)
        line = place.line + 2 if place is not None else None  # the first line is ---
        message = f"The front matter of {file} is no YAML: {getattr(cause, 'problem', cause)} (line {line})."
        raise CorpusFormatError(message, path=file, line=line) from cause
    text = _COMMENT.sub("", content[match.end() :]).strip()
    return (front if isinstance(front, dict) else {}), text


def _tags(front: Mapping[str, Any]) -> list[str]:
    tags = front.get("tags") or []
    words = re.split(r"[,\s]+", tags) if isinstance(tags, str) else tags if isinstance(tags, list) else []
    return [str(word).lstrip("#") for word in words]


def _as_json(value: Any) -> Any:
    """Return what YAML holds as JSON can hold it: dates and others as text."""
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    is_plain = value is None or isinstance(value, str | bool | int)
    is_finite = isinstance(value, float) and value == value and abs(value) != float("inf")
    return value if is_plain or is_finite else str(value)
