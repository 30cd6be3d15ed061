"""Reads and writes the files of a byte-level BPE, with the `tokenizer_config.json` beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import TokenizerError
from kerasgen.files import staging
from kerasgen.tokens import tokenizer_json
from kerasgen.tokens.added_tokens import AddedToken
from kerasgen.tokens.bpe_files import Contents, error_at, first_problem, parse_json, read, read_text
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER, GPT2, Pretokenization

CONFIG_FILE: Final = "tokenizer_config.json"
FILES: Final = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What transformers writes; a remote directory's files are fetched by these names."""

_FILES_TOGETHER: Final = "vocab.json"  # the name that the files of a directory are replaced under, all or none
_NAMED: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS: Final = ("additional_special_tokens", "extra_special_tokens")
_GPT2_CLASSES: Final = ("GPT2Tokenizer", "GPT2TokenizerFast")
_GPT2_USUAL: Final = ("<|endoftext|>", ("bos_token", "eos_token", "unk_token"))


def read_directory(directory: Path) -> Contents:
    """Read the tokenizer files in a directory, or in its `assets/tokenizer`.

    Raises:
        TokenizerError: there are none, they describe another kind of tokenizer, or contradict each other.
    """
    try:
        staging.recover(directory / _FILES_TOGETHER)
    except OSError as cause:
        raise error_at(
            f"What a killed process had begun to write there can't be finished: {cause}", directory
        ) from cause
    for folder in (directory, directory / "assets" / "tokenizer"):
        path = folder / "tokenizer.json"
        if path.is_file():
            content = parse_json(read_text(path), path)
            if (
                isinstance(content, dict) and "model" in content
            ):  # KerasHub has a file of this name too, without a model
                return _with_settings(tokenizer_json.contents(content, path), folder, template=True)
        merges = folder / "merges.txt"
        for name in ("vocab.json", "vocabulary.json"):
            if (folder / name).is_file() and merges.is_file():
                ids, pairs = read(folder / name, merges)
                return _with_settings(Contents(ids, pairs), folder, template=False)
    raise TokenizerError(
        f"No tokenizer lies in {str(directory)!r}. Expected vocab.json or vocabulary.json with merges.txt, or a "
        "tokenizer.json of transformers, there or under assets/tokenizer.",
        path=directory,
    )


def write_directory(directory: Path, contents: Contents) -> None:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json` into an existing directory.

    Raises:
        TokenizerError: it does not exist or can't be written to; files of before are then still whole.
    """
    if not directory.is_dir():
        raise TokenizerError(
            f"A tokenizer is saved into an existing directory. Received: {str(directory)!r}.", path=directory
        )
    by_id = dict(sorted(contents.vocabulary.items(), key=lambda item: item[1]))
    files = {
        "vocab.json": json.dumps(by_id, ensure_ascii=False, separators=(",", ":"), allow_nan=False),
        "merges.txt": "\n".join(["#version: 0.2", *(f"{left} {right}" for left, right in contents.merges)]) + "\n",
        CONFIG_FILE: settings_text(contents),
    }
    target = directory / _FILES_TOGETHER
    try:
        with staging.staged(target) as stage:
            for name, text in files.items():
                (stage / name).write_text(text, encoding="utf-8", newline="\n")
            staging.place(stage, target)
    except OSError as error:
        raise TokenizerError(
            f"The tokenizer can't be written to {str(directory)!r}: {error}.", path=directory
        ) from error


def settings_text(contents: Contents) -> str:
    """Return the text of the `tokenizer_config.json` beside a vocabulary and its merges."""
    named = (contents.start_token, contents.end_token, contents.pad_token)
    settings: dict[str, Any] = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "add_bos_token": contents.start_token is not None,
        "errors": "replace",
        "bos_token": contents.start_token,
        "eos_token": contents.end_token,
        "pad_token": contents.pad_token,
        "unk_token": "<unk>" if "<unk>" in contents.special_tokens else contents.end_token,
        "additional_special_tokens": [token for token in contents.special_tokens if token not in named],
        "clean_up_tokenization_spaces": False,
    }
    if contents.added_tokens:
        settings["added_tokens_decoder"] = {
            str(contents.vocabulary[token.content]): token.to_json() | {"special": False}
            for token in contents.added_tokens
        }
    if len(contents.end_tokens) > 1:
        settings["end_tokens"] = list(contents.end_tokens)
    if not BYTE_OF_CHARACTER.keys() <= contents.vocabulary.keys():
        settings["drops_missing_bytes"] = contents.drops_missing_bytes
    if contents.pretokenization != GPT2:  # transformers reads it from a `tokenizer.json` alone
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        settings["pretokenization"] = contents.pretokenization.to_json()
    return json.dumps(settings, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _with_settings(contents: Contents, folder: Path, *, template: bool) -> Contents:
    """Add the settings of `special_tokens_map.json`, `tokenizer_config.json` and `added_tokens.json` to the contents.

    Args:
        contents: of the vocabulary; its ids get those of added tokens.
        folder: where the files lie.
        template: whether `tokenizer.json` has said what is put before a text, as it then does alone.
    """
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG_FILE):
        path = folder / name
        if path.is_file():
            settings = parse_json(read_text(path), path)
            if not isinstance(settings, dict):
                raise error_at("Expected a JSON object.", path, 1)
            merged |= settings
    path = folder / CONFIG_FILE
    if merged.get("add_prefix_space"):
        raise error_at("It has add_prefix_space=true: a space that the text does not have would get an id", path)
    names = {key: _name(merged[key], path) for key in _NAMED if merged.get(key) is not None}
    special = list(contents.special_tokens) + list(names.values()) + _unsaid(contents, merged)
    for key in _LISTS:
        listed = merged.get(key) or []
        listed = list(listed.values()) if isinstance(listed, dict) else listed
        if not isinstance(listed, list):
            raise error_at(f"Its `{key}` must be a list or an object. Received: {listed!r:.80}", path)
        special += [_name(token, path) for token in listed]
    added = _added(contents, folder, merged, special)
    changes: dict[str, Any] = {}
    if "eos_token" in names:
        changes["end_token"] = names["eos_token"]
    if "pad_token" in names:
        changes["pad_token"] = names["pad_token"]
    if merged.get("end_tokens") is not None:
        if not isinstance(merged["end_tokens"], list):
            raise error_at(f"Its `end_tokens` must be a list. Received: {merged['end_tokens']!r:.80}", path)
        changes["end_tokens"] = tuple(_name(token, path) for token in merged["end_tokens"])
    if merged.get("pretokenization") is not None and not template:
        try:
            changes["pretokenization"] = Pretokenization.read(merged["pretokenization"])
        except ValueError as cause:
            raise error_at(f"Its `pretokenization` can't be read: {cause}", path) from cause
    if isinstance(merged.get("drops_missing_bytes"), bool):
        changes["drops_missing_bytes"] = merged["drops_missing_bytes"]
    if merged and not template:
        changes["start_token"] = names.get("bos_token") if merged.get("add_bos_token") else None
        changes["usual_special_tokens"] = False
    return replace(contents, special_tokens=tuple(dict.fromkeys(special)), added_tokens=added, **changes)


def _unsaid(contents: Contents, settings: dict[str, Any]) -> list[str]:
    """Return the special tokens that transformers' GPT-2 tokenizer assumes where the settings don't name them."""
    token, keys = _GPT2_USUAL
    if settings.get("tokenizer_class", _GPT2_CLASSES[0]) not in _GPT2_CLASSES or settings.keys() >= set(keys):
        return []
    made = {left + right for left, right in contents.merges}
    return [token] if token in contents.vocabulary and token not in made else []


def _added(contents: Contents, folder: Path, settings: dict[str, Any], special: list[str]) -> tuple[AddedToken, ...]:
    """Return the ordinary added tokens; append further special ones to `special`."""
    ids, known = contents.vocabulary, {token.content: token for token in contents.added_tokens}
    known_names = {*known, *special}
    path = folder / "added_tokens.json"
    entries: list[tuple[Path, Any, AddedToken, bool | None]] = []
    if path.is_file():
        content = parse_json(read_text(path), path)
        if not isinstance(content, dict):
            raise error_at("Expected a JSON object, tokens to ids.", path, 1)
        entries += [(path, number, AddedToken(token), None) for token, number in content.items()]
    path, decoder = folder / CONFIG_FILE, settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict) or not all(key.isdecimal() and isinstance(decoder[key], dict) for key in decoder):
        raise error_at("Its `added_tokens_decoder` must be an object, ids to added tokens", path)
    for key, entry in decoder.items():
        token = tokenizer_json.added_token(entry, path)
        if known.get(token.content, token) != token and token.content not in special:
            raise error_at(f"It says of the added token {token.content!r} other than 'tokenizer.json' does", path)
        entries.append((path, int(key), token, bool(entry.get("special"))))
    for path, token_id, token, is_special in entries:
        if ids.setdefault(token.content, token_id) != token_id:
            raise error_at(
                f"The token {token.content!r} has the id {token_id!r} there, "
                f"and {ids[token.content]!r} in the vocabulary.",
                path,
            )
        if is_special and token.content in known:
            raise error_at(f"It calls the added token {token.content!r} special, which 'tokenizer.json' does not", path)
        if is_special:
            special.append(token.content)
        elif token.content not in known_names:
            known[token.content] = token  # one of the decoder, which knows the flags, comes after the bare name
    problem = first_problem(ids, ())
    if problem is not None:
        raise error_at(problem.message, folder)
    return tuple(token for name, token in known.items() if name not in special)


def _name(token: Any, path: Path) -> str:
    """Return the name of a special token as transformers writes it: text, or an object that holds the name."""
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise error_at(f"A special token must be text. Received: {token!r}.", path)
    return content
