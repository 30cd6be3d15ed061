"""Reads a vocabulary and its merges from `vocab.json` and `merges.txt`, and checks any tokenizer's file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kerasgen import limits
from kerasgen.errors import TokenizerError
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.pretokenization import GPT2, SURROGATE, Pretokenization


@dataclass(frozen=True)
class Contents:
    """What the files of a byte-level BPE say; a special token `"auto"` is one they say nothing about."""

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    start_token: str | None = "auto"
    end_token: str = "auto"
    pad_token: str = "auto"
    special_tokens: tuple[str, ...] = ()
    added_tokens: tuple[AddedToken, ...] = ()
    end_tokens: tuple[str, ...] = ()
    usual_special_tokens: bool = True
    pretokenization: Pretokenization = GPT2
    drops_missing_bytes: bool = False


class Problem(NamedTuple):
    """Why a vocabulary and its merges can't be used, and where."""

    message: str
    merge: int | None = None
    token: str | None = None


def pair_of(merge: Any) -> tuple[str, str] | None:
    """Return the two tokens of a merge, given as a pair or as `"left right"`; None for what is neither."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(parts, Sequence) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
        return None
    return parts[0], parts[1]


def first_problem(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Problem | None:
    """Return what is wrong with a vocabulary and its merges, or None."""
    if not vocabulary:
        return Problem("The vocabulary is empty.")
    tokens_by_id: dict[int, str] = {}
    for token, token_id in vocabulary.items():
        if not isinstance(token, str) or SURROGATE.search(token):
            return Problem(f"A token must be text that UTF-8 can write. Received: {token!r}.")
        if not isinstance(token_id, int) or isinstance(token_id, bool) or not 0 <= token_id < 2**31:
            return Problem(
                f"The id of the token {token!r} must be a whole number from 0. Received: {token_id!r}.", token=token
            )
        if tokens_by_id.setdefault(token_id, token) is not token:
            return Problem(f"The id {token_id} is given to {tokens_by_id[token_id]!r} and to {token!r}.", token=token)
    for index, (left, right) in enumerate(merges):
        for token in (left, right, left + right):
            if token not in vocabulary:
                return Problem(
                    f"The merge of {left!r} and {right!r} needs {token!r}, which the vocabulary lacks.", index
                )
    return None


def read(vocabulary: Path, merges: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Read `vocab.json` and `merges.txt`.

    Raises:
        TokenizerError: a file is missing or malformed, or the two don't fit each other.
    """
    vocabulary_text = read_text(vocabulary)
    ids = parse_json(vocabulary_text, vocabulary)
    if not isinstance(ids, dict):
        raise error_at(f"A vocabulary is a JSON object, tokens to ids. Received: {type(ids).__name__}.", vocabulary, 1)
    lines = read_text(merges).split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    while len(lines) > first and not lines[-1].strip():
        lines.pop()
    pairs = [_parse_merge(line, merges, number) for number, line in enumerate(lines[first:], start=first + 1)]
    problem = first_problem(ids, pairs)
    if problem is None:
        return ids, pairs
    if problem.merge is not None:
        raise error_at(problem.message, merges, first + 1 + problem.merge)
    raise error_at(problem.message, vocabulary, _line_of(problem.token, vocabulary_text))


def _parse_merge(line: str, path: Path, number: int) -> tuple[str, str]:
    parts = line.removesuffix("\r").split(" ")
    if len(parts) != 2 or not all(parts):
        raise error_at(f"A merge is two tokens with one space between. Received: {line!r}.", path, number)
    return parts[0], parts[1]


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        TokenizerError: it can't be read, or is not UTF-8.
    """
    try:
        data = limits.read_bytes(path)
    except OSError as error:
        raise TokenizerError(f"{path} can't be read: {error.strerror or error}.", path=path) from error
    except ValueError as error:
        raise TokenizerError(f"{path} can't be read: {str(error).rstrip('.')}.", path=path) from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise error_at(f"It is not UTF-8: {error.reason} at byte {error.start}.", path, line) from error


def parse_json(text: str, path: Path) -> Any:
    """Parse the JSON of a tokenizer's file.

    Raises:
        TokenizerError: it is no JSON, or an object has a key twice.
    """

    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for n, key in enumerate(keys) if key in keys[:n])
            raise error_at(f"It holds {twice!r} twice.", path, _line_of(twice, text))
        return content

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as error:
        raise error_at(f"It is not JSON: {error.msg}, column {error.colno}.", path, error.lineno) from error
    except RecursionError as error:
        raise error_at("It is nested too deeply.", path) from error
    except ValueError as error:  # a number of more digits than Python reads
        raise error_at(f"It is not JSON: {error}.", path) from error


def _line_of(token: str | None, text: str) -> int | None:
    """Return the last line that holds the token as JSON writes it, or None."""
    for written in (
        ()
        if token is None
        else (json.dumps(token, allow_nan=False), json.dumps(token, ensure_ascii=False, allow_nan=False))
    ):
        place = text.rfind(written)
        if place >= 0:
            return text.count("\n", 0, place) + 1
    return None


def error_at(message: str, path: Path, line: int | None = None) -> TokenizerError:
    """Return the error that says what is wrong in which file, and in which line."""
    where = str(path) if line is None else f"{path}, line {line}"
    return TokenizerError(f"{where}: {message.rstrip('.')}.", path=path, line=line)
