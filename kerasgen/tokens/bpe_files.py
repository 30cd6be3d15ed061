"""Files to a vocabulary and its merges, and back: `vocab.json` with `merges.txt`, transformers' `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from kerasgen import limits
from kerasgen.errors import TokenizerError
from kerasgen.files import placing
from kerasgen.tokens.pretokenization import SURROGATE

GPT2_PATTERN: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_FILES_TOGETHER: Final = "vocab.json"  # the name that the files of a directory are replaced under, all or none
_SETTINGS: Final = {"start_token": "bos_token", "end_token": "eos_token", "pad_token": "pad_token"}


@dataclass(frozen=True)
class Contents:
    """What the files of a byte-level BPE say; a special token `"auto"` is one they say nothing about."""

    vocabulary: dict[str, int]
    merges: list[tuple[str, str]]
    start_token: str | None = "auto"
    end_token: str = "auto"
    pad_token: str = "auto"
    special_tokens: tuple[str, ...] = ()


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
    """Return what `vocab.json` and `merges.txt` hold.

    Raises:
        TokenizerError: a file is missing or malformed, or the two don't fit each other.
    """
    vocabulary_text = _read_text(vocabulary)
    ids = _parse_json(vocabulary_text, vocabulary)
    if not isinstance(ids, dict):
        raise _error(f"A vocabulary is a JSON object, tokens to ids. Received: {type(ids).__name__}.", vocabulary, 1)
    lines = _read_text(merges).split("\n")
    first = 1 if lines[0].startswith("#version") else 0
    while len(lines) > first and not lines[-1].strip():
        lines.pop()
    pairs = [_parse_merge(line, merges, number) for number, line in enumerate(lines[first:], start=first + 1)]
    problem = first_problem(ids, pairs)
    if problem is None:
        return ids, pairs
    if problem.merge is not None:
        raise _error(problem.message, merges, first + 1 + problem.merge)
    raise _error(problem.message, vocabulary, _line_of(problem.token, vocabulary_text))


def read_directory(directory: Path) -> Contents:
    """Return what the tokenizer files in a directory, or in its `assets/tokenizer`, say.

    Raises:
        TokenizerError: there are none, or they describe another kind of tokenizer.
    """
    try:
        placing.recover(directory / _FILES_TOGETHER)
    except OSError as cause:
        raise _error(f"What a killed process had begun to write there can't be finished: {cause}", directory) from cause
    for folder in (directory, directory / "assets" / "tokenizer"):
        settings = _read_settings(folder)
        path = folder / "tokenizer.json"
        if path.is_file():
            found = _parse_json(_read_text(path), path)
            if isinstance(found, dict) and "model" in found:  # KerasHub has a file of this name too, without a model
                return _read_transformers(found, path, settings)
        merges = folder / "merges.txt"
        for name in ("vocab.json", "vocabulary.json"):
            if (folder / name).is_file() and merges.is_file():
                ids, pairs = read(folder / name, merges)
                _add_tokens(ids, folder)
                return Contents(ids, pairs, **settings)
    raise TokenizerError(
        f"No tokenizer lies in {str(directory)!r}. Expected vocab.json or vocabulary.json with merges.txt, or a "
        "tokenizer.json of transformers, there or under assets/tokenizer.",
        path=directory,
    )


def read_tokenizer_json(path: Path) -> Contents:
    """Return what a `tokenizer.json` of transformers says, whatever the file is called and whatever lies beside it.

    Raises:
        TokenizerError: it can't be read, or describes another kind of tokenizer.
    """
    found = _parse_json(_read_text(path), path)
    if not isinstance(found, dict) or not isinstance(found.get("model"), dict):
        raise _error("Expected a tokenizer.json of transformers, with a `model`", path)
    return _read_transformers(found, path, {})


def write_directory(directory: Path, contents: Contents) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json` into an existing directory.

    Raises:
        TokenizerError: it does not exist or can't be written to; files of before are then still whole.
    """
    if not directory.is_dir():
        raise TokenizerError(
            f"A tokenizer is saved into an existing directory. Received: {str(directory)!r}.", path=directory
        )
    named = (contents.start_token, contents.end_token, contents.pad_token)
    settings: dict[str, Any] = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "errors": "replace",
        "bos_token": contents.start_token,
        "eos_token": contents.end_token,
        "pad_token": contents.pad_token,
        "unk_token": "<unk>" if "<unk>" in contents.special_tokens else contents.end_token,
        "additional_special_tokens": [token for token in contents.special_tokens if token not in named],
        "clean_up_tokenization_spaces": False,
    }
    by_id = dict(sorted(contents.vocabulary.items(), key=lambda item: item[1]))
    files = {
        "vocab.json": json.dumps(by_id, ensure_ascii=False, separators=(",", ":")),
        "merges.txt": "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in contents.merges)]) + "\n",
        "tokenizer_config.json": json.dumps(settings, ensure_ascii=False, indent=2) + "\n",
    }
    target = directory / _FILES_TOGETHER
    try:
        with placing.staged(target) as stage:
            for name, text in files.items():
                (stage / name).write_text(text, encoding="utf-8", newline="\n")
            placing.place(stage, target)
    except OSError as error:
        raise TokenizerError(
            f"The tokenizer can't be written to {str(directory)!r}: {error}.", path=directory
        ) from error


def tokenizer_json(contents: Contents) -> str:
    """Return the text of a `tokenizer.json` of transformers in the form that GPT-2's has."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [
        {
            "id": contents.vocabulary[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in contents.special_tokens
    ]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": byte_level,
            "post_processor": {**byte_level, "trim_offsets": False},
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": dict(sorted(contents.vocabulary.items(), key=lambda item: item[1])),
                "merges": [f"{left} {right}" for left, right in contents.merges],
            },
        },
        ensure_ascii=False,
    )


def _read_transformers(found: dict[str, Any], path: Path, settings: dict[str, Any]) -> Contents:
    model = found["model"]
    reason = _why_not_gpt2(found)
    if reason:
        raise _error(f"{reason} Only byte-level BPE that cuts text as GPT-2 does can be read", path)
    ids = model.get("vocab")
    merges = model.get("merges")
    added = found.get("added_tokens") or []
    if not isinstance(ids, dict) or not isinstance(merges, list) or not isinstance(added, list):
        raise _error("Its `vocab` must be an object, its `merges` and `added_tokens` lists", path)
    pairs = []
    for index, merge in enumerate(merges):
        pair = pair_of(merge)
        if pair is None:
            raise _error(f"Merge {index}, counted from 0, is no pair: {merge!r}.", path)
        pairs.append(pair)
    special = list(settings.pop("special_tokens", ()))
    for token in added:
        content, token_id = token.get("content"), token.get("id")
        if ids.setdefault(content, token_id) != token_id:
            raise _error(
                f"The added token {content!r} has the id {token_id!r} there and {ids[content]!r} in `vocab`.", path
            )
        if token.get("special"):
            special.append(content)
    problem = first_problem(ids, pairs)
    if problem is not None:
        raise _error(problem.message, path)
    return Contents(ids, pairs, special_tokens=tuple(dict.fromkeys(special)), **settings)


def _why_not_gpt2(found: dict[str, Any]) -> str | None:
    model = found["model"]
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return "Its model is not BPE."
    for setting in (
        "dropout",
        "unk_token",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "byte_fallback",
        "ignore_merges",
    ):
        if model.get(setting):
            return f"Its model has {setting}={model[setting]!r}."
    if found.get("normalizer"):
        return "It normalizes text."
    steps = found.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", []) if steps.get("type") == "Sequence" else [steps]
    if not steps or any(step.get("type") != "ByteLevel" for step in steps[-1:]) or steps[-1].get("add_prefix_space"):
        return "Its pre-tokenizer is not GPT-2's ByteLevel without a prefix space."
    cut_by_library = steps[-1].get("use_regex", True)
    if len(steps) == 1 and cut_by_library:
        return None
    split = {"type": "Split", "pattern": {"Regex": GPT2_PATTERN}, "behavior": "Isolated", "invert": False}
    if len(steps) == 2 and not cut_by_library and steps[0] == split:
        return None
    return "It cuts text otherwise than GPT-2 before its merges."


def _read_settings(folder: Path) -> dict[str, Any]:
    """The special tokens that `tokenizer_config.json`, else `special_tokens_map.json`, names."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if not path.is_file():
            continue
        found = _parse_json(_read_text(path), path)
        if not isinstance(found, dict):
            raise _error("Expected a JSON object.", path, 1)
        for ours, theirs in _SETTINGS.items():
            if theirs in found and (found[theirs] is not None or ours == "start_token"):
                settings[ours] = _content(found[theirs], path)
        further = found.get("additional_special_tokens") or []
        if further:
            settings["special_tokens"] = tuple(_content(token, path) for token in further)
    return settings


def _add_tokens(ids: dict[str, int], folder: Path) -> None:
    """Add the tokens that transformers writes beside a vocabulary."""
    path = folder / "added_tokens.json"
    if not path.is_file():
        return
    added = _parse_json(_read_text(path), path)
    if not isinstance(added, dict):
        raise _error("Expected a JSON object, tokens to ids.", path, 1)
    for token, token_id in added.items():
        if ids.setdefault(token, token_id) != token_id:
            raise _error(
                f"The token {token!r} has the id {token_id!r} there and {ids[token]!r} in the vocabulary.", path
            )
    problem = first_problem(ids, ())
    if problem is not None:
        raise _error(problem.message, path)


def _content(token: Any, path: Path) -> Any:
    """A special token as transformers writes it: its name, or an object that holds its name."""
    content = token.get("content") if isinstance(token, dict) else token
    if content is not None and not isinstance(content, str):
        raise _error(f"A special token must be text. Received: {token!r}.", path)
    return content


def _parse_merge(line: str, path: Path, number: int) -> tuple[str, str]:
    parts = line.removesuffix("\r").split(" ")
    if len(parts) != 2 or not all(parts):
        raise _error(f"A merge is two tokens with one space between. Received: {line!r}.", path, number)
    return parts[0], parts[1]


def _read_text(path: Path) -> str:
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
        raise _error(f"It is not UTF-8: {error.reason} at byte {error.start}.", path, line) from error


def _parse_json(text: str, path: Path) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for n, key in enumerate(keys) if key in keys[:n])
            raise _error(f"It holds {twice!r} twice.", path, _line_of(twice, text))
        return found

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as error:
        raise _error(f"It is not JSON: {error.msg}, column {error.colno}.", path, error.lineno) from error
    except RecursionError as error:
        raise _error("It is nested too deeply.", path) from error
    except ValueError as error:  # a number of more digits than Python reads
        raise _error(f"It is not JSON: {error}.", path) from error


def _line_of(token: str | None, text: str) -> int | None:
    """The last line that holds the token as JSON writes it, or None."""
    for written in () if token is None else (json.dumps(token), json.dumps(token, ensure_ascii=False)):
        place = text.rfind(written)
        if place >= 0:
            return text.count("\n", 0, place) + 1
    return None


def _error(message: str, path: Path, line: int | None = None) -> TokenizerError:
    where = str(path) if line is None else f"{path}, line {line}"
    return TokenizerError(f"{where}: {message.rstrip('.')}.", path=path, line=line)
