"""The tokenizer of a transformers-format model that KerasHub's classes read, held to the directory's own.

The `tokenizers` library runs the directory's `tokenizer.json`; what KerasHub's class would do otherwise is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen import limits
from kerasgen.errors import ModelFormatError
from kerasgen.models.hub_tokenizer import KerasHubTokenizer, TokenizerSettings
from kerasgen.models.transformers_format import end_token_ids, has_file
from kerasgen.tokens import tokenizer_json

# Where families and versions differ: blanks, digits, apostrophes, marks, letters of other scripts, forms of Unicode.
PROBES = (
    "Once upon a time there was a small house by the river,\n\nand nobody lived in it.",
    "  two  spaces\t\ttabs \n \n\n trailing  ",
    "it's 10, I'LL pay 1234567.89 don 't we've",
    "昨夜雨疏风骤，浓睡不消残酒。試問卷簾人",
    "e\u0301 \u00e9 \uf900 \u1e9b\u0323 Å ﬁ ½ ٣ ६",
    "🚀👩‍👩‍👧 naïve façade Привет мир שלום สวัสดี",
    "def f(x):\n    return x**2  # <tag> [x] {y} ▁ \\n",
    "CamelCase snake_case http://a.b/c?d=e&f=g \x00\x7f\xa0",
)


def read(preset: str, keras_hub_tokenizer: Any, config: Mapping[str, Any]) -> KerasHubTokenizer:
    """Return the tokenizer that KerasHub made of a transformers-format model's files, with what those say besides.

    Raises:
        ModelFormatError: it would do otherwise than the directory's own.
    """
    settings = _settings(preset, keras_hub_tokenizer, config)
    tokenizer = KerasHubTokenizer(keras_hub_tokenizer, settings)
    if has_file(preset, "tokenizer.json"):
        _compare(preset, tokenizer)
    return tokenizer


def _settings(preset: str, keras_hub_tokenizer: Any, config: Mapping[str, Any]) -> TokenizerSettings:
    from keras_hub.src.utils.preset_utils import get_file, load_json

    plain = KerasHubTokenizer(keras_hub_tokenizer)
    said = load_json(preset, "tokenizer_config.json") if has_file(preset, "tokenizer_config.json") else {}
    names = {}
    for key in ("bos_token", "eos_token", "pad_token"):
        token = said.get(key)
        names[key] = token.get("content") if isinstance(token, dict) else token

    def name_of(token_id: int) -> str:
        return plain.token_bytes(token_id).decode()

    ends = [names["eos_token"] or name_of(plain.end_token_id)]
    ends += [name_of(token_id) for token_id in end_token_ids(preset, config) if token_id < plain.vocabulary_size]
    start = None if plain.start_token_id is None else name_of(plain.start_token_id)
    special = {name_of(token_id) for token_id in plain.special_token_ids}
    added = []
    if has_file(preset, "tokenizer.json"):
        path = Path(get_file(preset, "tokenizer.json"))
        found = limits.read_json(path)
        for entry in found.get("added_tokens") or []:
            token = tokenizer_json.added_token(entry, path)
            if entry.get("special"):
                special.add(token.content)
            elif keras_hub_tokenizer.token_to_id(token.content) is None:
                raise ModelFormatError(
                    f"KerasHub's tokenizer of {preset!r} has no place for the token {token.content!r}."
                )
            else:
                added.append(token)
        start = tokenizer_json.start_token(found.get("post_processor"), path)
    elif "add_bos_token" in said:
        start = names["bos_token"] if said["add_bos_token"] else None
    special = {
        token for token in special if keras_hub_tokenizer.token_to_id(token) is not None
    }  # reserved ones are not
    special |= {token for token in names.values() if token is not None}
    for token in (*special, *([start] if start else [])):
        if keras_hub_tokenizer.token_to_id(token) is None:
            raise ModelFormatError(f"The vocabulary of {preset!r} has no token {token!r}, which its files name.")
    held = {token.content for token in added}
    return TokenizerSettings(
        start_token=start,
        end_tokens=tuple(dict.fromkeys(ends)),
        pad_token=names["pad_token"],
        special_tokens=tuple(sorted(special - held)),
        added_tokens=tuple(added),
        names=_names(keras_hub_tokenizer),
    )


def _names(keras_hub_tokenizer: Any) -> dict[str, Any]:
    """The special tokens that Llama 3's class takes as arguments, and leaves out of its configuration."""
    settings = inspect.signature(type(keras_hub_tokenizer)).parameters
    if not {"bos_token", "eos_token", "misc_special_tokens"} <= settings.keys():
        return {}
    start, end = keras_hub_tokenizer.start_token, keras_hub_tokenizer.end_token
    further = {getattr(keras_hub_tokenizer, name) for name in keras_hub_tokenizer._special_token_attrs} - {start, end}
    return {"bos_token": start, "eos_token": end, "misc_special_tokens": sorted(further)}


def _compare(preset: str, tokenizer: KerasHubTokenizer) -> None:
    """Compare ids with those that the `tokenizers` library gives."""
    from keras_hub.src.utils.preset_utils import get_file
    from tokenizers import Tokenizer

    theirs = Tokenizer.from_file(get_file(preset, "tokenizer.json"))
    texts = [*PROBES, *(f"a {token.content}b{token.content}" for token in tokenizer.added_tokens)]
    for text in texts:
        found, expected = tokenizer.encode(text), theirs.encode(text, add_special_tokens=False).ids
        if found != expected:
            at = next((n for n, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
            at = min(len(found), len(expected)) if at is None else at
            shown = [f"{_tokens(theirs, ids[at : at + 4])} (ids {ids[at : at + 4]})" for ids in (found, expected)]
            raise ModelFormatError(
                f"KerasHub's tokenizer of {preset!r} cuts texts otherwise than the 'tokenizer.json' there: token {at} "
                f"of {text!r} and what follows becomes {shown[0]}, where {shown[1]} is right. The model can't be read "
                "without changing what it is given."
            )


def _tokens(theirs: Any, ids: list[int]) -> str:
    return " ".join(repr(theirs.id_to_token(token_id)) for token_id in ids) or "nothing"
