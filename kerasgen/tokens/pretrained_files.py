"""Reads and writes a `tokenizer.json` or a SentencePiece model, with the `tokenizer_config.json` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kerasgen.errors import TokenizerError
from kerasgen.files import staging
from kerasgen.tokens.bpe_files import error_at, parse_json, read_text
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.sentencepiece_codec import SentencePieceCodec
from kerasgen.tokens.tokenizer_directory import CONFIG_FILE

if TYPE_CHECKING:
    from kerasgen.tokens.pretrained import Codec, PretrainedTokenizer

JSON_FILE: Final = JsonCodec.file_name
MODEL_FILE: Final = SentencePieceCodec.file_name
OWN_KEY: Final = "kerasgen"
"""In `tokenizer_config.json`, what a tokenizer that kerasgen saved is, beside what transformers reads there."""

_MAP_FILE: Final = "special_tokens_map.json"
_ADDED_FILE: Final = "added_tokens.json"
FILES: Final = (JSON_FILE, MODEL_FILE, CONFIG_FILE, _MAP_FILE, _ADDED_FILE)
_NAMED: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS: Final = ("additional_special_tokens", "extra_special_tokens")


@dataclass(frozen=True)
class TokenizerFiles:
    """The content of a pretrained tokenizer's files.

    Args:
        codec: encodes.
        end_tokens: as `PretrainedTokenizer` takes them; none where nothing says how a text ends.
        start_token: as there.
        pad_token: as there.
        special_tokens: as there.
        mask_token: as there.
    """

    codec: Codec
    end_tokens: tuple[str, ...]
    start_token: str | None
    pad_token: str | None
    special_tokens: tuple[str, ...]
    mask_token: str | None = None


def is_transformers_json(path: Path) -> bool:
    """Return whether a `tokenizer.json` is one of transformers; KerasHub's presets have a file of this name too.

    Raises:
        TokenizerError: it can't be read.
    """
    content = parse_json(read_text(path), path)
    return isinstance(content, dict) and isinstance(content.get("model"), dict)


def read(directory: Path, end_token_ids: Sequence[int] = (), usual_end_token: str | None = None) -> TokenizerFiles:
    """Read the tokenizer files in a directory; see `PretrainedTokenizer.from_directory`.

    Raises:
        TokenizerError: there are none, or they can't be read.
        MissingDependencyError: a SentencePiece model needs the package `sentencepiece`.
    """
    settings = _settings(directory)
    own = settings.get(OWN_KEY)
    path = directory / JSON_FILE
    if path.is_file() and is_transformers_json(path) and not (own and own.get("file") == MODEL_FILE):
        text = read_text(path)
        content = json.loads(text)
        template = _template(content.get("post_processor"), path)
        changed = _with_added(content, settings, directory)
        completed = text if changed is None else json.dumps(changed, ensure_ascii=False, allow_nan=False)
        codec: Codec = JsonCodec(completed, path)
    elif (directory / MODEL_FILE).is_file():
        path = directory / MODEL_FILE
        codec, template = _sentencepiece(path, settings, own), (None, None)
        settings = _usual(codec) | settings
    else:
        raise TokenizerError(
            f"No tokenizer lies in {str(directory)!r}. Expected a tokenizer.json of transformers, or a SentencePiece "
            "model named tokenizer.model.",
            path=directory,
        )
    if own is not None:
        return _own(codec, own, directory / CONFIG_FILE)
    names = {key: _name(settings[key], directory / CONFIG_FILE) for key in _NAMED if settings.get(key) is not None}
    known = set(codec.names.values())
    ends = [names["eos_token"]] if names.get("eos_token") in known else []
    ends += [codec.names[token_id] for token_id in end_token_ids if token_id in codec.names]
    ends += [name for name in (template[1], usual_end_token) if not ends and name in known and name is not None][:1]
    start = template[0]
    if codec.file_name == MODEL_FILE:  # of a tokenizer.json, transformers asks the template alone
        start = names.get("bos_token") if settings.get("add_bos_token") else None
    return TokenizerFiles(
        codec,
        tuple(dict.fromkeys(ends)),
        start if start in known else None,
        names["pad_token"] if names.get("pad_token") in known else None,
        tuple(name for name in names.values() if name in known),
        names["mask_token"] if names.get("mask_token") in known else None,
    )


def write(directory: Path, tokenizer: PretrainedTokenizer) -> None:
    """Write a tokenizer's file and `tokenizer_config.json` into an existing directory, both or none.

    Raises:
        TokenizerError: it does not exist or can't be written to.
    """
    if not directory.is_dir():
        raise TokenizerError(
            f"A tokenizer is saved into an existing directory. Received: {str(directory)!r}.", path=directory
        )
    codec = tokenizer.codec
    target = directory / codec.file_name
    try:
        with staging.staged(target) as stage:
            (stage / codec.file_name).write_bytes(codec.content())
            (stage / CONFIG_FILE).write_text(settings_text(tokenizer), encoding="utf-8")
            staging.place(stage, target)
    except OSError as error:
        raise TokenizerError(
            f"The tokenizer can't be written to {str(directory)!r}: {error}.", path=directory
        ) from error


def settings_text(tokenizer: PretrainedTokenizer) -> str:
    """Return the text of the `tokenizer_config.json` beside a tokenizer's file."""
    is_json = tokenizer.codec.file_name == JSON_FILE
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast" if is_json else "LlamaTokenizer",
        "add_bos_token": tokenizer.start_token is not None,
        "add_eos_token": False,
        "bos_token": tokenizer.start_token,
        "eos_token": tokenizer.end_token,
        "pad_token": tokenizer.pad_token,
        "clean_up_tokenization_spaces": False,
        OWN_KEY: {name: value for name, value in state_of(tokenizer).items() if name != "content"},
    }
    if tokenizer.mask_token is not None:
        names = {"cls_token": tokenizer.start_token, "sep_token": tokenizer.end_token}
        settings |= {**names, "mask_token": tokenizer.mask_token}
    return json.dumps(settings, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def state_of(tokenizer: PretrainedTokenizer) -> dict[str, Any]:
    """Return all that a tokenizer is made of; `content` holds its file, the rest is as JSON could hold it."""
    codec = tokenizer.codec
    names = {token_id: name for name, token_id in tokenizer.vocabulary.items()}
    return {
        "content": codec.content(),
        "file": codec.file_name,
        "start_token": tokenizer.start_token,
        "end_tokens": [names[token_id] for token_id in tokenizer.end_token_ids],
        "pad_token": tokenizer.pad_token,
        "special_tokens": list(tokenizer.special_tokens),
        "further": dict(getattr(codec, "further", {})),
        "prefix_after_special": bool(getattr(codec, "prefix_after_special", False)),
        **({} if tokenizer.mask_token is None else {"mask_token": tokenizer.mask_token}),
    }


def restored(state: Mapping[str, Any]) -> PretrainedTokenizer:
    """Return the tokenizer of `state_of`."""
    from kerasgen.tokens.pretrained import PretrainedTokenizer

    path = Path(state["file"])
    codec: Codec
    if state["file"] == JSON_FILE:
        codec = JsonCodec(state["content"].decode(), path)
    else:
        codec = SentencePieceCodec(
            state["content"], path, state["further"], prefix_after_special=state["prefix_after_special"]
        )
    return PretrainedTokenizer(
        codec,
        end_tokens=state["end_tokens"],
        start_token=state["start_token"],
        pad_token=state["pad_token"],
        special_tokens=state["special_tokens"],
        mask_token=state.get("mask_token"),
    )


def _own(codec: Codec, own: Mapping[str, Any], path: Path) -> TokenizerFiles:
    """Return the content of files that kerasgen wrote."""
    try:
        return TokenizerFiles(
            codec,
            tuple(map(str, own["end_tokens"])),
            own["start_token"],
            own["pad_token"],
            tuple(map(str, own["special_tokens"])),
            own.get("mask_token"),
        )
    except (KeyError, TypeError) as cause:
        raise error_at(f"Its {OWN_KEY!r} is damaged: {cause!r}", path) from cause


def _settings(directory: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in (_MAP_FILE, CONFIG_FILE):
        path = directory / name
        if path.is_file():
            settings = parse_json(read_text(path), path)
            if not isinstance(settings, dict):
                raise error_at("Expected a JSON object.", path, 1)
            merged |= settings
    own = merged.get(OWN_KEY)
    if own is not None and not isinstance(own, dict):
        raise error_at(f"Its {OWN_KEY!r} must be an object", directory / CONFIG_FILE)
    return merged


def _name(token: Any, path: Path) -> str:
    """Return the name of a special token as transformers writes it: text, or an object that holds the name."""
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str):
        raise error_at(f"A special token must be text. Received: {token!r}.", path)
    return content


def _declared_tokens(settings: Mapping[str, Any], directory: Path) -> dict[str, dict[str, Any]]:
    """Return the added tokens that the files beside the vocabulary name, by name; `id` may be None."""
    path = directory / CONFIG_FILE
    tokens_by_name: dict[str, dict[str, Any]] = {}
    if (directory / _ADDED_FILE).is_file():
        added = parse_json(read_text(directory / _ADDED_FILE), directory / _ADDED_FILE)
        if not isinstance(added, dict):
            raise error_at("Expected a JSON object, tokens to ids.", directory / _ADDED_FILE, 1)
        tokens_by_name |= {
            name: {"content": name, "id": token_id, "special": False} for name, token_id in added.items()
        }
    decoder = settings.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict) or not all(key.isdecimal() and isinstance(decoder[key], dict) for key in decoder):
        raise error_at("Its `added_tokens_decoder` must be an object, ids to added tokens", path)
    for key, entry in decoder.items():
        tokens_by_name[_name(entry, path)] = {**entry, "id": int(key)}
    named = [_name(settings[key], path) for key in _NAMED if settings.get(key) is not None]
    for key in _LISTS:
        listed = settings.get(key) or []
        named += [_name(item, path) for item in (listed.values() if isinstance(listed, dict) else listed)]
    for name in named:
        tokens_by_name.setdefault(name, {"content": name, "id": None})["special"] = True
    return tokens_by_name


def _with_added(content: dict[str, Any], settings: Mapping[str, Any], directory: Path) -> dict[str, Any] | None:
    """Return a `tokenizer.json` completed with the added tokens of the files beside it; None if it names them all."""
    entries = list(content.get("added_tokens") or [])
    entries_by_name = {entry["content"]: entry for entry in entries if isinstance(entry, dict) and "content" in entry}
    vocabulary = content["model"].get("vocab") or {}
    ids = vocabulary if isinstance(vocabulary, dict) else {piece[0]: n for n, piece in enumerate(vocabulary)}
    changed = False
    for name, entry in _declared_tokens(settings, directory).items():
        token_id = ids.get(name, entry.get("id"))
        if name in entries_by_name or token_id is None:
            continue
        flags = {flag: bool(entry.get(flag)) for flag in ("single_word", "lstrip", "rstrip")}
        special = bool(entry.get("special"))
        added = {"id": token_id, "content": name, **flags, "normalized": bool(entry.get("normalized", not special))}
        entries.append({**added, "special": special})
        changed = True
    return {**content, "added_tokens": sorted(entries, key=lambda entry: int(entry["id"]))} if changed else None


def _template(processor: Any, path: Path) -> tuple[str | None, str | None]:
    """Return the tokens that a post-processor puts before and after a text."""
    steps = [processor] if isinstance(processor, dict) else []
    if steps and processor.get("type") == "Sequence":
        steps = [step for step in processor.get("processors") or [] if isinstance(step, dict)]
    for step in steps:
        kind = step.get("type")
        if kind == "ByteLevel":
            continue
        if kind in ("RobertaProcessing", "BertProcessing"):
            return str(step["cls"][0]), str(step["sep"][0])
        if kind != "TemplateProcessing" or not isinstance(step.get("single"), list):
            raise error_at(f"Its post-processor {kind!r} is no template of tokens and a text", path)
        parts = step["single"]
        names = [part["SpecialToken"]["id"] if "SpecialToken" in part else None for part in parts]
        place = names.index(None) if None in names else len(names)
        before, after = names[:place], names[place + 1 :]
        if len(before) > 1 or len(after) > 1:
            raise error_at(
                f"Its post-processor puts {before!r} before a text and {after!r} after it. At most one token before, "
                "and the end token after, can be had",
                path,
            )
        return (before[0] if before else None), (after[0] if after else None)
    return None, None


def _sentencepiece(path: Path, settings: Mapping[str, Any], own: Mapping[str, Any] | None) -> SentencePieceCodec:
    try:
        proto = path.read_bytes()
    except OSError as cause:
        raise TokenizerError(f"{path} can't be read: {cause}.", path=path) from cause
    if own is not None:
        return SentencePieceCodec(
            proto, path, own.get("further"), prefix_after_special=bool(own.get("prefix_after_special"))
        )
    plain = SentencePieceCodec(proto, path)
    known = set(plain.names.values())
    added_ids: dict[str, int] = {}
    for name, entry in _declared_tokens(settings, path.parent).items():
        if name in known or entry.get("id") is None:
            continue
        if not entry.get("special") or any(entry.get(flag) for flag in ("lstrip", "rstrip", "single_word")):
            raise error_at(
                f"The added token {name!r} lies beyond the SentencePiece model, and only a tokenizer.json says how it "
                "is found. Save the tokenizer with transformers, which writes one",
                path.parent / CONFIG_FILE,
            )
        added_ids[name] = entry["id"]
    # transformers' Llama class, unless it is told otherwise, puts a space before the text alone.
    legacy = settings.get("legacy", "Llama" not in str(settings.get("tokenizer_class", "LlamaTokenizer")))
    return SentencePieceCodec(proto, path, added_ids, prefix_after_special=bool(legacy))


def _usual(codec: Codec) -> dict[str, Any]:
    """Return the default settings of a SentencePiece model: those of transformers' Llama and Gemma classes."""
    usual = {"bos_token": ("<s>", "<bos>"), "eos_token": ("</s>", "<eos>"), "pad_token": ("<pad>",)}
    names_by_key: dict[str, Any] = {
        key: next((name for name in names if name in codec.special), None) for key, names in usual.items()
    }
    return names_by_key | {"add_bos_token": names_by_key["bos_token"] is not None}
