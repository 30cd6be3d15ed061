"""Writes a LiteRT-LM bundle of a TFLite file and a tokenizer, and reads it back section by section."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasgen.errors import ExportError
from kerasgen.files import temporary

_JSON, _MODEL = "HF_Tokenizer_Zlib", "SP_Tokenizer"
_SIZE_BYTES = 8  # the tokenizer's uncompressed length, before its compressed bytes


def write(tflite: Path, tokenizer: Path, about: Mapping[str, Any], target: Path) -> None:
    """Write the bundle.

    Args:
        tflite: the model.
        tokenizer: a `tokenizer.json`, or a SentencePiece model whose name ends in `.model`.
        about: `max_tokens` of a text, `start` and `stop` token ids, each a list, and the `chat_template`, if there is
            one.
        target: where.
    """
    from litert_lm_builder import litertlm_builder
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    metadata = llm_metadata_pb2.LlmMetadata(max_num_tokens=about["max_tokens"])
    if about["start"]:
        metadata.start_token.token_ids.ids.extend(about["start"])
    for token_id in about["stop"]:
        metadata.stop_tokens.add().token_ids.ids.append(token_id)
    if about.get("chat_template"):
        metadata.jinja_prompt_template = about["chat_template"]
    metadata.llm_model_type.generic_model.SetInParent()
    builder = litertlm_builder.LitertLmFileBuilder()
    builder.add_system_metadata(
        litertlm_builder.Metadata(key="Authors", value="kerasgen", dtype=litertlm_builder.DType.STRING)
    )
    with temporary.folder() as folder:
        place = Path(folder) / "metadata.pb"
        place.write_bytes(metadata.SerializeToString())
        builder.add_tflite_model(str(tflite), litertlm_builder.TfLiteModelType.PREFILL_DECODE)
        is_model = tokenizer.suffix == ".model"
        add = builder.add_sentencepiece_tokenizer if is_model else builder.add_hf_tokenizer
        add(str(tokenizer))
        builder.add_llm_metadata(str(place))
        with target.open("wb") as file:
            builder.build(file)


def read(path: Path) -> dict[str, Any]:
    """Read a bundle: the `sha256` of its TFLite file, its `tokenizer` as bytes, and `about` as in `write`.

    Raises:
        ExportError: it can't be read, or does not hold one section of each of these and no other.
    """
    from litert_lm_builder import litertlm_core, litertlm_peek
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    try:
        listed = litertlm_peek.read_litertlm_header(str(path), io.StringIO()).SectionMetadata()
        sections: dict[str, bytes] = {}
        with path.open("rb") as file:
            for index in range(listed.ObjectsLength()):
                section = listed.Objects(index)
                kind = litertlm_core.any_section_data_type_to_string(section.DataType())
                if kind in sections:
                    raise ValueError(f"it has two sections {kind}")
                file.seek(section.BeginOffset())
                sections[kind] = file.read(section.EndOffset() - section.BeginOffset())
        kinds = set(sections) & {_JSON, _MODEL}
        if len(kinds) != 1 or set(sections) != {"TFLiteModel", "LlmMetadataProto", *kinds}:
            raise ValueError(f"it has the sections {', '.join(sorted(sections))}")
        tokenizer = sections[_MODEL] if _MODEL in sections else zlib.decompress(sections[_JSON][_SIZE_BYTES:])
        metadata = llm_metadata_pb2.LlmMetadata.FromString(sections["LlmMetadataProto"])
    except Exception as cause:
        raise ExportError(f"{path.name} can't be read as a LiteRT-LM bundle: {cause}. Nothing was kept.") from cause
    return {
        "sha256": hashlib.sha256(sections["TFLiteModel"]).hexdigest(),
        "tokenizer": tokenizer,
        "about": {
            "max_tokens": metadata.max_num_tokens,
            "start": list(metadata.start_token.token_ids.ids),
            "stop": [token_id for stop_token in metadata.stop_tokens for token_id in stop_token.token_ids.ids],
            **({"chat_template": metadata.jinja_prompt_template} if metadata.jinja_prompt_template else {}),
        },
    }
