"""Reads what lies beside an artefact, its tokenizer and a JSON that describes it, and checks that they fit."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen import limits, locations
from kerasgen.errors import ModelFormatError, TokenArgumentError, TokenizerError
from kerasgen.runtime import formats, values
from kerasgen.tokens import pretrained_files
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.bpe_files import parse_json, read_text
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.pretrained import Codec, PretrainedTokenizer
from kerasgen.tokens.sentencepiece_codec import SentencePieceCodec

FORMAT = 2  # 1 had no digest of its own
DIGEST = "digest"  # of all else in the JSON
REPORT_FILE = locations.REPORT_FILE  # inside an artefact that is a directory
REPORT_SUFFIX = locations.REPORT_SUFFIX  # after the whole name of one that is a file
_MODEL = "sentencepiece"  # the key of a SentencePiece model, in base64, in a tokenizer's file
TOKENIZER_FILE = "tokenizer.json"


def report_path(path: Path) -> Path:
    """Return where the report and the metadata of the artefact at `path` lie."""
    return path / REPORT_FILE if path.is_dir() else path.with_name(path.name + REPORT_SUFFIX)


def tokenizer_path(path: Path) -> Path:
    """Return where the tokenizer of the artefact at `path` lies."""
    return path / TOKENIZER_FILE if path.is_dir() else path.with_name(f"{path.name}.{TOKENIZER_FILE}")


def read(path: Path) -> dict[str, Any]:
    """Read and check the JSON that describes an artefact.

    Raises:
        ModelFormatError: there is no artefact, or its JSON is missing, damaged or of a later format.
    """
    lies = locations.look(path)
    if lies.kind == "nothing":
        raise ModelFormatError(f"There is no artefact at {path}. {lies}")
    place = report_path(path)
    if lies.kind in ("pipeline", "preset", "transformers", "checkpoints") and not _is_run(place):
        raise ModelFormatError(f"{path} is no artefact that runs by itself. {lies}")
    try:
        description: dict[str, Any] = limits.read_json(place)
        exporter, version = description["exporter"], description["format"]
        if not isinstance(exporter, str) or type(version) is not int:
            raise TypeError("its exporter and its format are no name and no number")
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise ModelFormatError(
            f"{path} is no artefact of kerasgen, or lost the file {place.name!r} that belongs to it: {cause}. Copy "
            "all files that the export wrote."
        ) from cause
    if version != FORMAT:
        raise ModelFormatError(
            f"{path} was written by exporter {exporter!r:.80} in format {version!r:.80}; this version reads {FORMAT}. "
            "Upgrade kerasgen, or export it again if that was an earlier version."
        )
    if description.get(DIGEST) != digest_of(description):
        raise ModelFormatError(
            f"{place} was changed since it was exported: its digest is another. Copy or export it again."
        )
    values.check(place, description)
    return description


def _is_run(report: Path) -> bool:
    """Whether the JSON describes an artefact that a runtime opens, whatever else its directory could be."""
    try:
        description = limits.read_json(report)
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and formats.has_runtime(description)


def digest_of(description: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an artefact's JSON but for the digest in it, whatever the order of its keys."""
    hashed = {key: value for key, value in description.items() if key != DIGEST}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True, allow_nan=False).encode()).hexdigest()


def size_of(path: Path, description: dict[str, Any]) -> int | None:
    """Return the bytes that an artefact's file was written with, or None if the JSON names no file.

    All files of an artefact may have been renamed together: the shortest name in the JSON is the artefact's own.

    Args:
        path: the file.
        description: what `read` returned.
    """
    sizes: dict[str, int] = description["files"]
    return sizes.get(path.name, sizes[min(sizes, key=len)] if sizes else None)


def check_sizes(path: Path, description: dict[str, Any]) -> None:
    """Check that a directory holds the files that were exported, each of its size.

    Args:
        path: the directory.
        description: what `read` returned.

    Raises:
        ModelFormatError: one is missing or cut off.
    """
    for name, size in description["files"].items():
        place = path / name
        actual = place.stat().st_size if place.is_file() else None
        if actual != size:
            raise ModelFormatError(
                f"{place} holds {actual} bytes where {size} were written. Copy or export it again."
                if actual is not None
                else f"{path} lost its file {name!r}. Copy all files that the export wrote."
            )


def tokenizer_settings(tokenizer: ByteLevelBPE | PretrainedTokenizer) -> dict[str, Any]:
    """Return the settings that rebuild the tokenizer from its file, and the digest to check the result by."""
    settings: dict[str, Any] = {
        "start_token": tokenizer.start_token,
        "end_token": tokenizer.end_token,
        "pad_token": tokenizer.pad_token,
        "digest": tokenizer.digest(),
    }
    ends = [tokenizer.id_to_token(token_id) for token_id in tokenizer.end_token_ids]
    settings |= {"end_tokens": ends} if len(ends) > 1 else {}
    mask = getattr(tokenizer, "mask_token", None)
    settings |= {"mask_token": mask} if mask is not None else {}
    return settings | (
        {"special_tokens": list(tokenizer.special_tokens)} if isinstance(tokenizer, PretrainedTokenizer) else {}
    )


def tokenizer_text(tokenizer: ByteLevelBPE | PretrainedTokenizer) -> str:
    """Return the text of the file beside an artefact: a `tokenizer.json`, or JSON that holds a SentencePiece model."""
    if isinstance(tokenizer, ByteLevelBPE) or tokenizer.is_json:
        return tokenizer.to_tokenizer_json()
    state = pretrained_files.state_of(tokenizer)
    about = {name: state[name] for name in ("further", "prefix_after_special")}
    return json.dumps({_MODEL: base64.b64encode(state["content"]).decode(), **about}, allow_nan=False)


def _codec(place: Path) -> Codec:
    """Return the codec of a file that `tokenizer_text` wrote."""
    text = read_text(place)
    content = parse_json(text, place)
    if not isinstance(content, dict) or _MODEL not in content:
        return JsonCodec(text, place)
    try:
        proto = base64.b64decode(content[_MODEL], validate=True)
        added_ids = {str(name): int(token_id) for name, token_id in content["further"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        raise TokenizerError(f"{place} is damaged: {cause!r}. Copy or export it again.", path=place) from cause
    return SentencePieceCodec(proto, place, added_ids, prefix_after_special=bool(content.get("prefix_after_special")))


def token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the token ids that an artefact needs from a tokenizer that doesn't travel with it."""
    names = ("start_token_id", "end_token_id", "pad_token_id", "vocabulary_size")
    ids = {name: getattr(tokenizer, name) for name in names}
    ends = list(tokenizer.end_token_ids)
    return ids | ({"end_token_ids": ends} if len(ends) > 1 else {})


def read_tokenizer(path: Path, settings: dict[str, Any]) -> ByteLevelBPE | PretrainedTokenizer:
    """Return the tokenizer beside the artefact at `path`.

    Args:
        path: the path of the artefact.
        settings: what `tokenizer_settings` returned when it was written.

    Raises:
        ModelFormatError: it is missing, can't be read, or is another one than the artefact was written with.
    """
    place = tokenizer_path(path)
    if not place.is_file():
        raise ModelFormatError(f"{path} lost its tokenizer, {place.name!r}. Copy all files that the export wrote.")
    tokenizer: ByteLevelBPE | PretrainedTokenizer
    try:
        if "special_tokens" in settings:
            tokenizer = PretrainedTokenizer(
                _codec(place),
                start_token=settings["start_token"],
                end_tokens=settings.get("end_tokens") or [settings["end_token"]],
                pad_token=settings["pad_token"],
                special_tokens=settings["special_tokens"],
                mask_token=settings.get("mask_token"),
            )
        else:
            tokenizer = ByteLevelBPE.from_tokenizer_json(
                place,
                start_token=settings["start_token"],
                end_token=settings["end_token"],
                pad_token=settings["pad_token"],
                end_tokens=settings.get("end_tokens", ()),
            )
    except (TokenizerError, TokenArgumentError) as cause:
        raise ModelFormatError(f"The tokenizer of {path} can't be read: {cause}") from cause
    if tokenizer.digest() != settings["digest"]:
        raise ModelFormatError(
            f"{place} is not the tokenizer that {path.name} was exported with: its ids would mean other texts. Copy "
            "the files of one export together."
        )
    return tokenizer
