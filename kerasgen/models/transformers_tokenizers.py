"""Reads the tokenizer of a transformers-format model from its own files.

A `tokenizer.json` comes before a SentencePiece model, and that before `vocab.json` with `merges.txt`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import KerasgenError, ModelFormatError, TokenArgumentError
from kerasgen.models.architectures import ByteLevelTokens
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.models.transformers_format import has_file
from kerasgen.tokens import pretrained_files, tokenizer_directory, tokenizer_json
from kerasgen.tokens.base import Tokenizer
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.bpe_files import read_text
from kerasgen.tokens.pretokenization import BYTE_OF_CHARACTER
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.special_tokens import AUTOMATIC
from kerasgen.tokens.tokenizer_directory import CONFIG_FILE

GENERATION_CONFIG: Final = "generation_config.json"
CHAT_TEMPLATE_FILE: Final = "chat_template.jinja"
_MAP_FILE: Final = "special_tokens_map.json"

# Where families and versions differ: blanks, digits, apostrophes, marks, letters of other scripts, forms of Unicode.
PROBES: Final = (
    "Once upon a time there was a small house by the river,\n\nand nobody lived in it.",
    "  two  spaces\t\ttabs \n \n\n trailing  ",
    "it's 10, I'LL pay 1234567.89 don 't we've",
    "昨夜雨疏风骤，浓睡不消残酒。試問卷簾人",
    "e\u0301 \u00e9 \uf900 \u1e9b\u0323 Å ﬁ ½ ٣ ६",
    "🚀👩‍👩‍👧 naïve façade Привет мир שלום สวัสดี",
    "def f(x):\n    return x**2  # <tag> [x] {y} ▁ \\n",
    "CamelCase snake_case http://a.b/c?d=e&f=g \x00\x7f\xa0",
)


def read(
    preset: str, family: ByteLevelTokens | None, config: Mapping[str, Any], keras_hub: Callable[[], Any]
) -> Tokenizer:
    """Return the tokenizer of a transformers-format model.

    Args:
        preset: a directory or hub address.
        family: the family of the model, if it is one whose texts GPT-2's byte-level BPE reads.
        config: the content of its `config.json`.
        keras_hub: returns KerasHub's tokenizer of the same files. A tokenizer of another kind than byte-level BPE
            remembers it where it gives the same ids, so that KerasHub's preprocessor and presets can hold it.

    Raises:
        ModelFormatError: no tokenizer is there, or an id that ends texts is no special token's.
        TokenizerError: the files are malformed, or describe a kind of tokenizer that is not read.
        MissingDependencyError: a SentencePiece model needs the package `sentencepiece`.
    """
    from keras_hub.src.utils.preset_utils import get_file

    names = dict.fromkeys((*pretrained_files.FILES, *tokenizer_directory.FILES))
    present = [name for name in names if has_file(preset, name)]  # a remote preset's come one by one, into one folder
    is_bpe = {"vocab.json", "merges.txt"} <= set(present)
    if not is_bpe and not {pretrained_files.JSON_FILE, pretrained_files.MODEL_FILE} & set(present):
        raise ModelFormatError(
            f"The transformers-format model {preset!r} has no tokenizer files: neither 'tokenizer.json' nor "
            "'tokenizer.model' nor 'vocab.json' with 'merges.txt'. Save its tokenizer into the same directory."
        )
    folder = Path(get_file(preset, present[0])).parent
    path = folder / pretrained_files.JSON_FILE
    has_json = path.is_file() and pretrained_files.is_transformers_json(path)
    if (is_bpe and not has_json) or (has_json and tokenizer_json.is_byte_level(path)):
        return _byte_level(preset, folder, family, config)
    try:
        tokenizer = PretrainedTokenizer.from_directory(
            folder,
            end_token_ids=end_token_ids(preset, config),
            usual_end_token=None if family is None else family.end_token,
        )
    except TokenArgumentError as cause:
        raise ModelFormatError(f"The tokenizer of {preset!r} can't be used: {cause}") from cause
    tokenizer.keras_hub_tokenizer = _alike(tokenizer, keras_hub)
    return tokenizer


def _alike(tokenizer: PretrainedTokenizer, keras_hub: Callable[[], Any]) -> Any:
    """Return KerasHub's tokenizer if it gives the same ids on texts that tell families apart, else None."""
    if tokenizer.added_tokens:
        return None  # it does not find them in a text
    try:
        theirs = keras_hub()
        adapted = KerasHubTokenizer(theirs)
        same = adapted.encode_batch(PROBES) == tokenizer.encode_batch(PROBES)
    except (KerasgenError, ValueError, TypeError, KeyError, OSError, AttributeError, ImportError):
        return None  # its class wants other files, or tokens that the vocabulary lacks
    starts = (adapted.start_token_id or tokenizer.start_token_id) == tokenizer.start_token_id
    return theirs if same and starts and adapted.end_token_id == tokenizer.end_token_id else None


def _byte_level(preset: str, folder: Path, family: ByteLevelTokens | None, config: Mapping[str, Any]) -> ByteLevelBPE:
    """Return the byte-level BPE of a preset: from `tokenizer.json`, else from `vocab.json` with `merges.txt`.

    Documents end with the tokenizer's end token, else with the first of `generation_config.json`, else of
    `config.json`; generation ends at each of those that transformers would end at, and at that one. Documents begin
    with what transformers puts before a text. What no file says is as KerasHub has it for the family, if there is one.

    Raises:
        ModelFormatError: neither is there, or an id that ends texts is no special token's.
        TokenizerError: the files are malformed, or describe another kind of tokenizer.
    """
    contents = tokenizer_directory.read_directory(folder)
    names = {token_id: token for token, token_id in contents.vocabulary.items()}
    of_text = set(BYTE_OF_CHARACTER) | {left + right for left, right in contents.merges}
    ends = [names[token_id] for token_id in end_token_ids(preset, config) if token_id in names]

    def usual(name: str) -> str:
        token = AUTOMATIC if family is None else str(getattr(family, name))
        return token if token in contents.vocabulary else AUTOMATIC

    end = contents.end_token
    if end == AUTOMATIC:
        end = ends[0] if ends else usual("end_token")
    pad, pad_id = contents.pad_token, config.get("pad_token_id")
    if pad == AUTOMATIC:
        pad = names[pad_id] if isinstance(pad_id, int) and pad_id in names else usual("pad_token")
        # Configurations often name a token of ordinary text, such as id 0. Padding is never read, so any token will do.
        pad = AUTOMATIC if pad in of_text else pad
    start = contents.start_token
    if start == AUTOMATIC:
        start = usual("start_token")
    try:
        return ByteLevelBPE.from_contents(
            replace(contents, start_token=start, end_token=end, pad_token=pad, end_tokens=tuple(ends))
        )
    except TokenArgumentError as cause:
        raise ModelFormatError(f"The tokenizer of {preset!r} can't be used: {cause}") from cause


def end_token_ids(preset: str, config: Mapping[str, Any]) -> list[int]:
    """Return the ids that end a text in transformers: those of `generation_config.json`, else of `config.json`.

    Raises:
        ModelFormatError: they are neither an id nor a list of ids.
    """
    from keras_hub.src.utils.preset_utils import load_json

    name, value = "config.json", config.get("eos_token_id")
    if has_file(preset, GENERATION_CONFIG):
        generation = load_json(preset, GENERATION_CONFIG)
        if isinstance(generation, dict) and generation.get("eos_token_id") is not None:
            name, value = GENERATION_CONFIG, generation["eos_token_id"]
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(token_id, int) and not isinstance(token_id, bool) for token_id in ids):
        raise ModelFormatError(f"The {name!r} of {preset!r} has eos_token_id={value!r}, which must be an id or a list.")
    return list(dict.fromkeys(ids))


def chat_template(preset: str) -> str | None:
    """Return the template that makes a text of a conversation, or None where there is none.

    It is a file of its own, as transformers writes it since version 4.52, or stands in `tokenizer_config.json`; of
    several there, it is the one named `default`.

    Args:
        preset: a directory or hub address.

    Raises:
        TokenizerError: the file is not UTF-8.
    """
    from keras_hub.src.utils.preset_utils import get_file, load_json

    if has_file(preset, CHAT_TEMPLATE_FILE):
        return read_text(Path(get_file(preset, CHAT_TEMPLATE_FILE)))
    settings = load_json(preset, CONFIG_FILE) if has_file(preset, CONFIG_FILE) else None
    found = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(found, list):
        named = [each for each in found if isinstance(each, dict) and each.get("name") == "default"]
        found = named[0].get("template") if named else None
    return found if isinstance(found, str) else None


def special_tokens_map(preset: str) -> dict[str, str]:
    """Return the names of the special tokens that transformers tells a chat template, such as `bos_token`.

    Args:
        preset: a directory or hub address.
    """
    from keras_hub.src.utils.preset_utils import load_json

    names: dict[str, str] = {}
    for file in (_MAP_FILE, CONFIG_FILE):
        settings = load_json(preset, file) if has_file(preset, file) else None
        settings = settings if isinstance(settings, dict) else {}
        extra = settings.get("extra_special_tokens")  # an object where they have names
        for key, value in [*settings.items(), *(extra.items() if isinstance(extra, dict) else ())]:
            name = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(name, str):
                names[key] = name
    return names
