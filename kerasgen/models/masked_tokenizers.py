"""The exact tokenizer of a masked language model, from a KerasHub preset or a transformers directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from kerasgen.errors import ModelFormatError
from kerasgen.models.encoders.base import EncoderArchitecture
from kerasgen.models.preset_tokenizers import SETTINGS_FILE
from kerasgen.tokens import pretrained_files
from kerasgen.tokens.bpe_files import parse_json, read_text
from kerasgen.tokens.encoder_tokenizers import Special, UnigramKind, byte_pairs, unigram, word_piece
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.tokenizer_directory import CONFIG_FILE

_SPM_FILES: Final = ("spiece.model", "spm.model", "sentencepiece.bpe.model", "sentencepiece.model")
_HUB_FILES: Final = ("vocabulary.json", "merges.txt", "vocabulary.txt", "vocabulary.spm")
_TRANSFORMERS_FILES: Final = (
    *pretrained_files.FILES,
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    *_SPM_FILES,
)


def of_transformers(preset: str, architecture: EncoderArchitecture) -> PretrainedTokenizer:
    """Return the tokenizer of a transformers-format model.

    Raises:
        ModelFormatError: no tokenizer is there, or it lacks a special token.
        TokenizerError: the files are malformed, or describe a kind that is not read.
    """
    from keras_hub.src.utils.preset_utils import get_file

    from kerasgen.models.transformers_format import has_file

    present = [name for name in _TRANSFORMERS_FILES if has_file(preset, name)]
    vocabularies = [name for name in present if name not in (CONFIG_FILE, "special_tokens_map.json", "merges.txt")]
    if not vocabularies:
        raise ModelFormatError(
            f"The transformers-format model {preset!r} has no tokenizer files: neither 'tokenizer.json' nor a "
            "vocabulary. Save its tokenizer into the same directory."
        )
    folder = Path(get_file(preset, vocabularies[0])).parent
    settings = _settings(folder)
    special = _special(settings, architecture)
    json_path = folder / pretrained_files.JSON_FILE
    if json_path.is_file() and pretrained_files.is_transformers_json(json_path):
        return _of_json(preset, folder, special)
    lowercase = settings.get("do_lower_case")
    if (folder / "vocab.txt").is_file():
        text = word_piece(
            _lines(folder / "vocab.txt"),
            special,
            lowercase=True if lowercase is None else bool(lowercase),
            strip_accents=settings.get("strip_accents"),
            splits_chinese=bool(settings.get("tokenize_chinese_chars", True)),
        )
        return made(text, folder / "vocab.txt", special)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _of_pairs(folder / "vocab.json", folder / "merges.txt", special)
    for name in _SPM_FILES:
        if (folder / name).is_file():
            return _of_proto(
                folder / name, architecture, special, lowercase, keeps_accents=bool(settings.get("keep_accents"))
            )
    raise ModelFormatError(f"The tokenizer files of {preset!r} are of no kind that is read: {', '.join(present)}.")


def of_hub(preset: str, architecture: EncoderArchitecture) -> PretrainedTokenizer:
    """Return the tokenizer of a KerasHub preset: kerasgen's own files beside KerasHub's, or made of its vocabulary.

    Raises:
        ModelFormatError: no vocabulary is there.
        TokenizerError: the files are malformed.
    """
    from keras_hub.src.utils.preset_utils import get_file, load_json

    from kerasgen.models.transformers_format import has_file

    if has_file(preset, SETTINGS_FILE):
        present = [
            name
            for name in (pretrained_files.JSON_FILE, "vocabulary.spm")
            if has_file(preset, f"assets/tokenizer/{name}")
        ]
        folder = Path(get_file(preset, SETTINGS_FILE)).parent
        tokenizer = PretrainedTokenizer.from_directory(folder)
        if "vocabulary.spm" in present:
            tokenizer.proto = (folder / "vocabulary.spm").read_bytes()
        return tokenizer
    present = [name for name in _HUB_FILES if has_file(preset, f"assets/tokenizer/{name}")]
    if not present:
        raise ModelFormatError(f"The preset {preset!r} has no vocabulary in 'assets/tokenizer'. Save it whole again.")
    folder = Path(get_file(preset, f"assets/tokenizer/{present[0]}")).parent
    special = Special(*architecture.tokens)
    if "vocabulary.txt" in present:
        config = load_json(preset, "tokenizer.json") if has_file(preset, "tokenizer.json") else {}
        said: Mapping[str, Any] = config.get("config", {}) if isinstance(config, dict) else {}
        text = word_piece(
            _lines(folder / "vocabulary.txt"),
            special,
            lowercase=bool(said.get("lowercase", False)),
            strip_accents=bool(said.get("strip_accents", False)) or None,
            splits_chinese=bool(said.get("split_on_cjk", True)),
        )
        return made(text, folder / "vocabulary.txt", special)
    if "vocabulary.json" in present:
        return _of_pairs(folder / "vocabulary.json", folder / "merges.txt", special)
    return _of_proto(folder / "vocabulary.spm", architecture, special, None, keeps_accents=False)


def made(text: str, path: Path, special: Special) -> PretrainedTokenizer:
    """Return the tokenizer of the text of a `tokenizer.json`."""
    return PretrainedTokenizer(
        JsonCodec(text, path),
        end_tokens=[special.end],
        start_token=special.start,
        pad_token=special.pad,
        special_tokens=[special.unknown],
        mask_token=special.mask,
    )


def _of_json(preset: str, folder: Path, special: Special) -> PretrainedTokenizer:
    files = pretrained_files.read(folder)
    known = set(files.codec.names.values())
    wanted = Special(
        files.start_token or special.start,
        files.end_tokens[0] if files.end_tokens else special.end,
        files.pad_token or special.pad,
        special.mask,
        special.unknown,
    )
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ModelFormatError(
            f"The tokenizer of {preset!r} has no token {missing[0]!r}, which a masked language model needs. Name it in "
            "'tokenizer_config.json'."
        )
    return PretrainedTokenizer(
        files.codec,
        end_tokens=[wanted.end],
        start_token=wanted.start,
        pad_token=wanted.pad,
        special_tokens=[*files.special_tokens, wanted.unknown],
        mask_token=wanted.mask,
    )


def _of_pairs(vocabulary: Path, merges: Path, special: Special) -> PretrainedTokenizer:
    ids = parse_json(read_text(vocabulary), vocabulary)
    if not isinstance(ids, dict):
        raise ModelFormatError(f"{str(vocabulary)!r} is no vocabulary: it should hold a JSON object, tokens to ids.")
    return made(byte_pairs(ids, read_text(merges).split("\n"), special), vocabulary, special)


def _of_proto(
    path: Path, architecture: EncoderArchitecture, special: Special, lowercase: Any, *, keeps_accents: bool
) -> PretrainedTokenizer:
    kind = architecture.name if architecture.name in ("albert", "deberta-v2") else "xlm-roberta"
    text = unigram(
        path.read_bytes(),
        path,
        cast(UnigramKind, kind),
        special,
        lowercase=None if lowercase is None else bool(lowercase),
        keeps_accents=keeps_accents,
    )
    tokenizer = made(text, path, special)
    tokenizer.proto = path.read_bytes()
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", CONFIG_FILE):
        if (folder / name).is_file():
            content = parse_json(read_text(folder / name), folder / name)
            merged |= content if isinstance(content, dict) else {}
    return merged


def _special(settings: Mapping[str, Any], architecture: EncoderArchitecture) -> Special:
    usual = architecture.tokens

    def named(key: str, name: str) -> str:
        value = settings.get(key)
        content = value.get("content") if isinstance(value, dict) else value
        return content if isinstance(content, str) else name

    return Special(
        named("cls_token", usual.start),
        named("sep_token", usual.end),
        named("pad_token", usual.pad),
        named("mask_token", usual.mask),
        named("unk_token", usual.unknown),
    )


def _lines(path: Path) -> list[str]:
    lines = read_text(path).split("\n")
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def settings_text(tokenizer: PretrainedTokenizer, architecture: EncoderArchitecture) -> str:
    """Return the `tokenizer_config.json` that transformers reads for a masked language model."""
    content = json.loads(pretrained_files.settings_text(tokenizer))
    content |= {
        "cls_token": tokenizer.start_token,
        "sep_token": tokenizer.end_token,
        "bos_token": tokenizer.start_token,
        "eos_token": tokenizer.end_token,
        "mask_token": tokenizer.mask_token,
        "unk_token": next((name for name in tokenizer.special_tokens if name == architecture.tokens.unknown), None),
    }
    content = {key: value for key, value in content.items() if value is not None}
    return json.dumps(content, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
