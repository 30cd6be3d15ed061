"""Reads and writes a KerasHub preset's byte-level tokenizer; a file beside KerasHub's holds what those can't."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kerasgen import limits
from kerasgen.errors import ModelError
from kerasgen.models.architectures import ByteLevelTokens
from kerasgen.tokens import pretrained_files, tokenizer_directory
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.bpe_files import parse_json, read_text
from kerasgen.tokens.pretokenization import GPT2
from kerasgen.tokens.pretrained import PretrainedTokenizer

VOCABULARY_FILE: Final = "assets/tokenizer/vocabulary.json"
MERGES_FILE: Final = "assets/tokenizer/merges.txt"
SETTINGS_FILE: Final = f"assets/tokenizer/{tokenizer_directory.CONFIG_FILE}"
"""Special tokens, added tokens and ends of a text, as transformers writes them; KerasHub does not read it."""

PRETRAINED_FILES: Final = tuple(
    f"assets/tokenizer/{name}" for name in (pretrained_files.JSON_FILE, pretrained_files.MODEL_FILE)
)
"""What a `PretrainedTokenizer` is, beside its settings."""

OPTIONAL_FILES: Final = ("preprocessor.json", SETTINGS_FILE)

_PROBES: Final = ("昨夜雨疏风骤", " two  spaces\n\nand it's 10", "é 🚀 <|endoftext|></s>")


def byte_level(directory: Path, family: ByteLevelTokens | None) -> ByteLevelBPE:
    """Return the tokenizer whose files lie in a preset's directory.

    Args:
        directory: the directory of the preset.
        family: of the model; None for one whose preset has settings of its tokenizer beside KerasHub's files.

    Raises:
        TokenizerError: a file is missing or malformed.
        TokenArgumentError: a special token is not in the vocabulary, or is one that text can become.
    """
    if family is None or (directory / SETTINGS_FILE).is_file():
        return ByteLevelBPE.from_directory((directory / SETTINGS_FILE).parent)
    return ByteLevelBPE.from_files(
        directory / VOCABULARY_FILE,
        directory / MERGES_FILE,
        start_token=family.start_token if _starts(directory) else None,
        end_token=family.end_token,
        pad_token=family.pad_token,
    )


def write(tokenizer: ByteLevelBPE, directory: Path, family: ByteLevelTokens | None) -> None:
    """Write what KerasHub's files lack of a tokenizer, and read it back as the preset's reader will.

    Args:
        tokenizer: the tokenizer of the model.
        directory: the directory of the preset, in which KerasHub's files lie, if it has written any.
        family: the family of the model, or None as in `byte_level`.

    Raises:
        ModelError: what comes back is not this tokenizer.
    """
    folder = (directory / SETTINGS_FILE).parent
    if not (directory / VOCABULARY_FILE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(folder)
        (folder / "vocab.json").replace(directory / VOCABULARY_FILE)
    elif byte_level(directory, family) != tokenizer:
        (directory / SETTINGS_FILE).write_text(tokenizer.settings_text(), encoding="utf-8")
    read_back = byte_level(directory, family)
    probes = [*_PROBES, *(f"a {token.content}b" for token in tokenizer.added_tokens)]
    if read_back != tokenizer or read_back.encode_batch(probes) != tokenizer.encode_batch(probes):
        raise ModelError("The tokenizer that was written is another one than the model's. Nothing was kept.")


def is_pretrained(settings: Path) -> bool:
    """Return whether a preset's settings are those of a `PretrainedTokenizer`, whose file lies beside them.

    Raises:
        TokenizerError: they can't be read.
    """
    content = parse_json(read_text(settings), settings)
    return isinstance(content, dict) and pretrained_files.OWN_KEY in content


def write_pretrained(tokenizer: PretrainedTokenizer, directory: Path) -> None:
    """Write a tokenizer into a preset's directory, beside what KerasHub has written of its own, and read it back.

    Raises:
        ModelError: what comes back is not this tokenizer.
    """
    folder = (directory / SETTINGS_FILE).parent
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    if PretrainedTokenizer.from_directory(folder) != tokenizer:
        raise ModelError("The tokenizer that was written is another one than the model's. Nothing was kept.")


def keras_hub_difference(tokenizer: ByteLevelBPE, family: ByteLevelTokens) -> str | None:
    """Return why KerasHub's own tokenizer of this family would do otherwise, or None."""
    missing = [token for token in family.special_tokens if token not in tokenizer.vocabulary]
    if missing:
        return f"a {family.backbone} preset needs {', '.join(map(repr, missing))} in its vocabulary"
    if tokenizer.pretokenization != GPT2:
        return "it cuts a text as GPT-2 does, and this one otherwise"
    if not tokenizer.merges:
        return "KerasHub's tokenizers can't hold a vocabulary without merges"
    if tokenizer.added_tokens:
        return f"it does not find added tokens in a text ({tokenizer.added_tokens[0].content!r})"
    ends = tuple(tokenizer.id_to_token(token_id) for token_id in tokenizer.end_token_ids)
    if ends != (family.end_token,):
        return f"its texts end with {family.end_token!r} alone, and this one's with {', '.join(map(repr, ends))}"
    if tokenizer.start_token not in (None, family.start_token):
        return f"its texts begin with {family.start_token!r}, and this one's with {tokenizer.start_token!r}"
    return None


def _starts(directory: Path) -> bool:
    """Whether the preset's preprocessor puts a start token before a text, which is KerasHub's default."""
    try:
        config = limits.read_json(directory / "preprocessor.json")["config"]
    except (OSError, KeyError, TypeError, ValueError):
        return True
    return not isinstance(config, dict) or config.get("add_start_token", True) is not False
