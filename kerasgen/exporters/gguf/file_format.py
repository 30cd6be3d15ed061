"""Writes and reads a decoder as a GGUF file, with llama.cpp's names, layouts and settings. Keras is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ExportError
from kerasgen.exporters.gguf import rounding
from kerasgen.exporters.gguf.dtypes import kind_of
from kerasgen.models import chat, gguf_tokenizer_fields
from kerasgen.models.architectures import Architecture, tensors
from kerasgen.models.architectures import gguf_settings as settings
from kerasgen.models.base import BASE_MODEL, CHAT_TEMPLATE
from kerasgen.models.gguf_tokenizer_fields import PREFIX, STARTS_TEXTS, GgufVocabulary

if TYPE_CHECKING:
    from kerasgen.tokens.bpe import ByteLevelBPE
    from kerasgen.tokens.pretrained import PretrainedTokenizer


def write(
    path: Path,
    architecture: Architecture,
    config: DecoderConfig,
    weights: Weights,
    tokenizer: ByteLevelBPE | PretrainedTokenizer,
    *,
    dtype: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as a GGUF file.

    Args:
        path: the path of the file.
        architecture: the architecture of the model, which llama.cpp has a name for.
        config: the config of its decoder, with a `max_sequence_length`.
        weights: float32.
        tokenizer: the tokenizer of the model.
        dtype: the dtype of kernels; see `kind_of`.
        metadata: of the model, of which its chat template and what is known of its base weights are written.

    Raises:
        ExportError: a weight is too large for `dtype`.
    """
    import gguf

    assert architecture.gguf is not None
    writer = gguf.GGUFWriter(path, architecture.gguf)
    writer.add_type("model")
    writer.add_name(path.stem)
    about = metadata or {}
    for key, value in _origin(about.get(BASE_MODEL) or {}).items():
        (writer.add_array if isinstance(value, list) else writer.add_string)(key, value)
    if about.get(CHAT_TEMPLATE):
        writer.add_chat_template(about[CHAT_TEMPLATE])
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
    for key, value in settings.keys(architecture, config).items():
        add[type(value)](f"{architecture.gguf}.{key}", value)
    writer.add_file_type(gguf.LlamaFileType["ALL_F32" if dtype == "F32" else f"MOSTLY_{dtype}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    vocabulary = GgufVocabulary.of(tokenizer, starts_all=chat.starts(tokenizer, about))
    writer.add_tokenizer_model(vocabulary.settings["model"])
    writer.add_tokenizer_pre(vocabulary.settings["pre"])
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.settings["add_space_prefix"])
    else:
        writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.settings["bos_token_id"])
    writer.add_eos_token_id(vocabulary.settings["eos_token_id"])
    writer.add_pad_token_id(vocabulary.settings["padding_token_id"])
    if "eot_token_id" in vocabulary.settings:
        writer.add_eot_token_id(vocabulary.settings["eot_token_id"])
    writer.add_add_bos_token(vocabulary.settings["add_bos_token"])
    if STARTS_TEXTS in vocabulary.settings:
        writer.add_bool(PREFIX + STARTS_TEXTS, True)
    factors = settings.frequency_factors(config)
    if factors is not None:
        _add(writer, settings.FREQUENCY_FACTORS, factors, dtype)
    for name, tensor in tensors.write(architecture, config, weights, "gguf").items():
        _add(writer, name, tensor, dtype)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _origin(base: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata about the weights that a model was tuned from, whose licence holds for it too."""
    fields = {
        f"general.{key}": base[key] for key in ("license", "license.name", "license.link", "languages") if base.get(key)
    }
    if base.get("name"):
        fields["general.base_model.0.name"] = base["name"]
    if base.get("organization"):
        fields["general.base_model.0.organization"] = base["organization"]
    return fields


def _add(writer: Any, name: str, tensor: Any, dtype: str) -> None:
    import gguf
    import numpy as np

    from kerasgen import huge_pages

    tensor = huge_pages.contiguous(np.asarray(tensor, dtype=np.float32))
    kind = gguf.GGMLQuantizationType[kind_of(name, tensor.ndim, dtype)]
    if kind.name == "F32":
        writer.add_tensor(name, tensor)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        stored = gguf.quants.quantize(tensor, kind)
        is_finite = np.isfinite(gguf.quants.dequantize(stored, kind)).all()
    if not is_finite:
        raise ExportError(f"The tensor {name!r} is not finite as {kind.name}. Nothing was kept.")
    writer.add_tensor(name, stored, raw_dtype=kind)


def read(path: Path) -> tuple[Architecture, DecoderConfig, Weights, GgufVocabulary]:
    """Return the model in a GGUF file: its architecture and description, its weights as float32, and its vocabulary.

    All are as the file says. Weights that are float32 there are read from the file as they are needed.

    Raises:
        ExportError: the file is damaged, or holds something else.
    """
    import gguf
    import numpy as np

    try:
        reader = gguf_tokenizer_fields.reader(path)
        tensors_by_name = {
            str(tensor.name): np.asarray(
                gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32
            ).reshape([int(size) for size in reversed(tensor.shape)])
            for tensor in reader.tensors
        }
        says = {str(name): field.contents() for name, field in reader.fields.items()}
        vocabulary = GgufVocabulary.from_fields(says)
        architecture = settings.architecture_of(says)
        config = settings.described(architecture, says, tensors_by_name, len(vocabulary.tokens))

        def take(tensor: str, shape: tuple[int, ...]) -> Any:
            if tensors_by_name[tensor].shape != shape:
                raise ValueError(f"{tensor} has the shape {tensors_by_name[tensor].shape} for {shape}")
            return tensors_by_name[tensor]

        weights = tensors.read(architecture, config, take, "gguf")
    except (ValueError, KeyError, IndexError, OSError) as cause:
        raise ExportError(f"{path.name} can't be read as the GGUF file of a model: {cause!r}.") from cause
    return architecture, config, weights, vocabulary


def rounded(architecture: Architecture, config: DecoderConfig, weights: Weights, dtype: str) -> Weights:
    """Return the weights that a file of this type should give back, computed apart from the writer."""
    rounded_tensors = {
        name: rounding.rounded(tensor, kind_of(name, tensor.ndim, dtype))
        for name, tensor in tensors.write(architecture, config, weights, "gguf").items()
    }
    return tensors.read(architecture, config, lambda name, shape: rounded_tensors[name], "gguf")
