"""A GPT-2 in a GGUF file: llama.cpp's names, layouts and tokenizer settings, there and back. Keras is not imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasgen.errors import ExportError
from kerasgen.exporters.gguf.vocabulary import GgufVocabulary
from kerasgen.models.families.base import DecoderLayer, DecoderShape, DecoderWeights

if TYPE_CHECKING:
    from kerasgen.tokens.bpe import ByteLevelBPE

BLOCK = 32  # weights that Q8_0 scales together
_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "Q8_0": "MOSTLY_Q8_0"}

# The layer's field, llama.cpp's name, and whether it is a kernel, which llama.cpp keeps as (out, in).
_LAYER = (
    ("attention_gamma", "attn_norm.weight", False),
    ("attention_beta", "attn_norm.bias", False),
    ("qkv_kernel", "attn_qkv.weight", True),
    ("qkv_bias", "attn_qkv.bias", False),
    ("output_kernel", "attn_output.weight", True),
    ("output_bias", "attn_output.bias", False),
    ("feedforward_gamma", "ffn_norm.weight", False),
    ("feedforward_beta", "ffn_norm.bias", False),
    ("up_kernel", "ffn_up.weight", True),
    ("up_bias", "ffn_up.bias", False),
    ("down_kernel", "ffn_down.weight", True),
    ("down_bias", "ffn_down.bias", False),
)
_POSITIONS = "position_embd.weight"
_WHOLE = (
    ("token_embedding", "token_embd.weight"),
    ("position_embedding", _POSITIONS),
    ("final_gamma", "output_norm.weight"),
    ("final_beta", "output_norm.bias"),
)


def write(
    path: Path,
    weights: DecoderWeights,
    shape: DecoderShape,
    tokenizer: ByteLevelBPE,
    *,
    architecture: str,
    dtype: str,
) -> None:
    """Write a model as a GGUF file.

    Args:
        path: of the file.
        weights: float32.
        shape: of the model.
        tokenizer: of the model.
        architecture: as llama.cpp calls it.
        dtype: of kernels and token embeddings.

    Raises:
        ExportError: a weight is too large for `dtype`.
    """
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("model")
    writer.add_name(path.stem)
    writer.add_block_count(shape.num_layers)
    writer.add_context_length(shape.max_sequence_length)
    writer.add_embedding_length(shape.hidden_dim)
    writer.add_feed_forward_length(shape.intermediate_dim)
    writer.add_head_count(shape.num_heads)
    writer.add_layer_norm_eps(shape.layer_norm_epsilon)
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
    writer.add_add_bos_token(vocabulary.settings["add_bos_token"])
    for name, tensor in tensors(weights).items():
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


def read(path: Path) -> tuple[DecoderWeights, DecoderShape, GgufVocabulary]:
    """Return a GPT-2 in a GGUF file: its weights as float32, its shape and its vocabulary, all as the file says.

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
        shape = DecoderShape(
            family=says["general.architecture"],
            vocabulary_size=len(vocabulary.tokens),
            num_layers=says["gpt2.block_count"],
            num_heads=says["gpt2.attention.head_count"],
            hidden_dim=says["gpt2.embedding_length"],
            intermediate_dim=says["gpt2.feed_forward_length"],
            max_sequence_length=says["gpt2.context_length"],
            activation="gelu_approximate",
            layer_norm_epsilon=says["gpt2.attention.layer_norm_epsilon"],
        )
        weights = _assembled(found, shape.num_layers)
    except (ValueError, KeyError, IndexError, OSError) as cause:
        raise ExportError(f"{path.name} can't be read as a GGUF file of a GPT-2: {cause!r}.") from cause
    return weights, shape, vocabulary


def tensors(weights: DecoderWeights) -> dict[str, Any]:
    """Return the tensors by llama.cpp's names, in its layouts."""
    found = {name: getattr(weights, field) for field, name in _WHOLE}
    for index, layer in enumerate(weights.layers):
        for field, name, is_kernel in _LAYER:
            tensor = getattr(layer, field)
            found[f"blk.{index}.{name}"] = tensor.T if is_kernel else tensor
    return found


def _assembled(found: dict[str, Any], num_layers: int) -> DecoderWeights:
    """The weights whose `tensors` these are."""
    layers = tuple(
        DecoderLayer(
            **{
                field: found[f"blk.{index}.{name}"].T if is_kernel else found[f"blk.{index}.{name}"]
                for field, name, is_kernel in _LAYER
            }
        )
        for index in range(num_layers)
    )
    return DecoderWeights(layers=layers, **{field: found[name] for field, name in _WHOLE})


def rounded(weights: DecoderWeights, dtype: str) -> DecoderWeights:
    """Return what a file of this type should give back, float32 again; this arithmetic is not what wrote it."""
    if dtype == "F32":
        return weights
    through = _half if dtype == "F16" else _eight_bits
    found = {
        name: through(tensor) if _is_rounded(name, tensor, dtype) else tensor
        for name, tensor in tensors(weights).items()
    }
    return _assembled(found, len(weights.layers))


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
