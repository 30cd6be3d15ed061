"""Transformers-format files (`config.json`, safetensors, the tokenizer's) become a model and its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerasgen import locations
from kerasgen.errors import ModelFormatError, TokenArgumentError, TokenizerError
from kerasgen.models import architectures
from kerasgen.models.architectures import ByteLevelTokens
from kerasgen.models.transformers_settings import settings
from kerasgen.models.transformers_tensors import SAFETENSORS_FILE, SAFETENSORS_INDEX
from kerasgen.tokens import tokenizer_directory, tokenizer_json
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.pretokenization import Pretokenization
from kerasgen.tokens.special_tokens import AUTOMATIC

FOREIGN_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")
PEFT_CONFIG = locations.PEFT_FILE

GENERATION_CONFIG = "generation_config.json"


def convert(preset: str, config: Mapping[str, Any]) -> Any:
    """Return the `keras_hub.models.CausalLM` whose logits are those of a transformers-format model.

    Args:
        preset: a directory or hub address.
        config: the content of its `config.json`.

    Raises:
        ModelFormatError: as `check_config` and `check_files`, or a tensor is missing, misshapen or not read.
    """
    settings = check_config(preset, config)
    check_files(preset)
    architecture = architectures.named(config["model_type"])
    if architecture is not None:
        from kerasgen.models import transformers_decoders

        return transformers_decoders.convert(architecture, preset, settings)
    from kerasgen.models import keras_hub_converters

    return keras_hub_converters.convert(preset, settings)


def check_config(preset: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Check that KerasHub's layers compute what a transformers-format model does; return what a converter reads.

    Nothing is loaded or fetched for it.

    Args:
        preset: a directory or hub address.
        config: the content of its `config.json`.

    Raises:
        ModelFormatError: a setting is unknown or has no counterpart.
    """
    return settings(preset, config)


def check_files(preset: str) -> None:
    """Check that a transformers-format model has weights that are read, and nothing beside them that changes them.

    Raises:
        ModelFormatError: the weights are not safetensors, or adapters of peft lie beside them.
    """
    if has_file(preset, PEFT_CONFIG):
        raise ModelFormatError(
            f"{preset!r} holds adapters of peft beside the model ({PEFT_CONFIG!r}), which transformers would add and "
            "kerasgen does not read. Merge them with peft's `model.merge_and_unload()`, and save that model."
        )
    if not (has_file(preset, SAFETENSORS_INDEX) or has_file(preset, SAFETENSORS_FILE)):
        foreign = [name for name in FOREIGN_WEIGHTS if has_file(preset, name)]
        found = f" Found {', '.join(map(repr, foreign))} instead." if foreign else ""
        raise ModelFormatError(
            f"The transformers-format model {preset!r} has no {SAFETENSORS_FILE!r}.{found} Save it again with "
            "`model.save_pretrained(directory, safe_serialization=True)`."
        )


def has_file(preset: str, name: str) -> bool:
    """Whether a local or remote preset holds a file (a remote one is fetched by this)."""
    from keras_hub.src.utils.preset_utils import check_file_exists

    return bool(check_file_exists(preset, name))


def cut_of(preset: str) -> Pretokenization | None:
    """Return how the byte-level BPE of a preset's `tokenizer.json` cuts a text, or None where it has no such file."""
    from keras_hub.src.utils.preset_utils import get_file

    if not has_file(preset, "tokenizer.json"):
        return None
    try:
        return tokenizer_json.read(Path(get_file(preset, "tokenizer.json"))).pretokenization
    except TokenizerError:
        return None


def byte_level_tokenizer(preset: str, family: ByteLevelTokens | None, config: Mapping[str, Any]) -> ByteLevelBPE:
    """Return the byte-level BPE of a preset: from `tokenizer.json`, else from `vocab.json` with `merges.txt`.

    Documents end with the tokenizer's end token, else with the first of `generation_config.json`, else of
    `config.json`; generation ends at each of those that transformers would end at, and at that one. Documents begin
    with what transformers puts before a text. What no file says is as KerasHub has it for the family, if there is one.

    Raises:
        ModelFormatError: neither is there, or an id that ends texts is no special token's.
        TokenizerError: the files are malformed, or describe another kind of tokenizer.
    """
    from keras_hub.src.utils.preset_utils import get_file

    # A remote preset's files come one by one, into one folder.
    found = [name for name in tokenizer_directory.FILES if has_file(preset, name)]
    if "tokenizer.json" not in found and not {"vocab.json", "merges.txt"} <= set(found):
        raise ModelFormatError(
            f"The transformers-format model {preset!r} has no tokenizer files: neither 'tokenizer.json' nor "
            "'vocab.json' with 'merges.txt'. Save its tokenizer into the same directory."
        )
    contents = tokenizer_directory.read_directory(Path(get_file(preset, found[0])).parent)
    names = {token_id: token for token, token_id in contents.vocabulary.items()}
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

    name, said = "config.json", config.get("eos_token_id")
    if has_file(preset, GENERATION_CONFIG):
        generation = load_json(preset, GENERATION_CONFIG)
        if isinstance(generation, dict) and generation.get("eos_token_id") is not None:
            name, said = GENERATION_CONFIG, generation["eos_token_id"]
    ids = said if isinstance(said, list) else [] if said is None else [said]
    if not all(isinstance(token_id, int) and not isinstance(token_id, bool) for token_id in ids):
        raise ModelFormatError(f"The {name!r} of {preset!r} has eos_token_id={said!r}, which must be an id or a list.")
    return list(dict.fromkeys(ids))
