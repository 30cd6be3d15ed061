"""A decoder in a GGUF file: llama.cpp's names, layouts and settings, there and back. Keras is not imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen.decoder.config import DecoderConfig
from kerasgen.decoder.weights import Weights
from kerasgen.errors import ExportError
from kerasgen.models import architectures
from kerasgen.models.architectures import Architecture, tensors
from kerasgen.models.architectures import gguf_settings as settings
from kerasgen.models.gguf_vocabulary import GgufVocabulary

if TYPE_CHECKING:
    from kerasgen.tokens.bpe import ByteLevelBPE

BLOCK = 32  # weights that Q8_0 scales together
_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "Q8_0": "MOSTLY_Q8_0"}

_POSITIONS = "position_embd.weight"


def write(
    path: Path,
    architecture: Architecture,
    config: DecoderConfig,
    weights: Weights,
    tokenizer: ByteLevelBPE,
    *,
    dtype: str,
) -> None:
    """Write a model as a GGUF file.

    Args:
        path: of the file.
        architecture: of the model, which llama.cpp has a name for.
        config: of its decoder, with a `max_sequence_length`.
        weights: float32.
        tokenizer: of the model.
        dtype: of kernels and token embeddings.

    Raises:
        ExportError: a weight is too large for `dtype`.
    """
    import gguf

    assert architecture.gguf is not None
    writer = gguf.GGUFWriter(path, architecture.gguf)
    writer.add_type("model")
    writer.add_name(path.stem)
    for key, value in settings.keys(config).items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
        add(f"{architecture.gguf}.{key}", value)
    writer.add_file_type(gguf.LlamaFileType[_TYPES[dtype]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    vocabulary = GgufVocabulary.of(tokenizer)
    writer.add_tokenizer_model(vocabulary.settings["model"])
    writer.add_tokenizer_pre(vocabulary.settings["pre"])
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.settings["bos_token_id"])
    writer.add_eos_token_id(vocabulary.settings["eos_token_id"])
    writer.add_pad_token_id(vocabulary.settings["padding_token_id"])
    if "eot_token_id" in vocabulary.settings:
        writer.add_eot_token_id(vocabulary.settings["eot_token_id"])
    writer.add_add_bos_token(vocabulary.settings["add_bos_token"])
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


def _add(writer: Any, name: str, tensor: Any, dtype: str) -> None:
    import gguf
    import numpy as np

    tensor = np.ascontiguousarray(tensor, dtype=np.float32)
    if not _is_rounded(name, tensor, dtype):
        writer.add_tensor(name, tensor)
        return
    kind = gguf.GGMLQuantizationType[dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        stored = tensor.astype(np.float16) if dtype == "F16" else gguf.quants.quantize(tensor, kind)
        is_finite = np.isfinite(gguf.quants.dequantize(stored, kind)).all()
    if not is_finite:
        raise ExportError(f"The tensor {name!r} is not finite as {dtype}. Nothing was kept.")
    writer.add_tensor(name, stored, raw_dtype=kind)


def read(path: Path) -> tuple[Architecture, DecoderConfig, Weights, GgufVocabulary]:
    """Return the model in a GGUF file: its architecture and description, its weights as float32, and its vocabulary.

    All are as the file says.

    Raises:
        ExportError: the file is damaged, or holds something else.
    """
    import gguf
    import numpy as np

    try:
        reader = gguf.GGUFReader(path)
        found = {
            str(tensor.name): np.array(
                gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32
            ).reshape([int(size) for size in reversed(tensor.shape)])
            for tensor in reader.tensors
        }
        says = {str(name): field.contents() for name, field in reader.fields.items()}
        vocabulary = GgufVocabulary.from_fields(says)
        name = says["general.architecture"]
        architecture = architectures.named_in_gguf(name)
        if architecture is None:
            raise ValueError(f"its architecture is {name!r}")
        config = settings.described(architecture, says, found, len(vocabulary.tokens))

        def take(tensor: str, shape: tuple[int, ...]) -> Any:
            if found[tensor].shape != shape:
                raise ValueError(f"{tensor} has the shape {found[tensor].shape} for {shape}")
            return found[tensor]

        weights = tensors.read(architecture, config, take, "gguf")
    except (ValueError, KeyError, IndexError, OSError) as cause:
        raise ExportError(f"{path.name} can't be read as the GGUF file of a model: {cause!r}.") from cause
    return architecture, config, weights, vocabulary


def rounded(architecture: Architecture, config: DecoderConfig, weights: Weights, dtype: str) -> Weights:
    """Return what a file of this type should give back, float32 again; this arithmetic is not what wrote it."""
    if dtype == "F32":
        return weights
    through = _half if dtype == "F16" else _eight_bits
    found = {
        name: through(tensor) if _is_rounded(name, tensor, dtype) else tensor
        for name, tensor in tensors.write(architecture, config, weights, "gguf").items()
    }
    return tensors.read(architecture, config, lambda name, shape: found[name], "gguf")


def _is_rounded(name: str, tensor: Any, dtype: str) -> bool:
    return bool(dtype != "F32" and tensor.ndim > 1 and name != _POSITIONS)


def _half(tensor: Any) -> Any:
    import numpy as np

    return tensor.astype(np.float16).astype(np.float32)


def _eight_bits(tensor: Any) -> Any:
    """Q8_0: 32 neighbours share a scale, a float16 with which the farthest of them is 127; halves go away from zero."""
    import numpy as np

    blocks = np.ascontiguousarray(tensor, dtype=np.float32).reshape(-1, BLOCK)
    scale = np.abs(blocks).max(axis=-1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    steps = np.abs(blocks * inverse)
    whole = np.copysign(np.floor(steps) + (steps - np.floor(steps) >= 0.5), blocks).astype(np.int8)
    found = whole.astype(np.float32) * scale.astype(np.float16).astype(np.float32)
    return found.reshape(tensor.shape)
