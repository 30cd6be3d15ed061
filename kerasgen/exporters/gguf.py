"""`gguf`: one file for llama.cpp and Ollama, with llama.cpp's names, layouts and tokenizer settings."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import ExportArgumentError, ExportError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel
    from kerasgen.models.families import DecoderShape, DecoderWeights
    from kerasgen.tokens.bpe import ByteLevelBPE

# Mean Kullback-Leibler divergence, in nats per token of the probe text, of what was written from the model.
TOLERANCE = {"F32": 1e-6, "F16": 1e-3, "Q8_0": 5e-2}
_BLOCK = 32  # weights that Q8_0 scales together

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
_WHOLE = (
    ("token_embedding", "token_embd.weight"),
    ("position_embedding", "position_embd.weight"),
    ("final_gamma", "output_norm.weight"),
    ("final_beta", "output_norm.bias"),
)


@dataclass(frozen=True)
class GgufExporter(Exporter):
    """Write a GGUF file for llama.cpp, Ollama and what else is made of them. GPT-2 only: llama.cpp knows no OPT.

    The file is read back with the package `gguf`; weights, vocabulary and greedy text are compared with the model's,
    computed from the file by an independent forward in NumPy. llama.cpp itself is not run.

    Args:
        dtype: of kernels and embeddings, as GGUF names it; `"Q8_0"` takes 8.5 bits a weight. Biases, norms and position
            embeddings stay float32.
    """

    dtype: Literal["F32", "F16", "Q8_0"] = "F32"

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCE:
            raise ExportArgumentError(f"dtype must be 'F32', 'F16' or 'Q8_0'. Received: {self.dtype!r}.")

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the file, read it back, and compare weights, vocabulary and greedy text; see `Exporter`.

        Raises:
            MissingDependencyError: the package `gguf` is not installed.
        """
        from kerasgen.exporters import comparing
        from kerasgen.exporters.families import family_and_tokenizer
        from kerasgen.exporters.writing import REPORTS, staged, write_report

        family, tokenizer = family_and_tokenizer(model, "gguf")
        shape = family.shape(model.causal_lm)
        if family.gguf_architecture is None:
            raise ExportArgumentError(
                f"llama.cpp runs no {family.name.upper()} model, so there is no GGUF file of one. The exporter "
                "'transformers' writes it."
            )
        if self.dtype == "Q8_0" and (shape.hidden_dim % _BLOCK or shape.intermediate_dim % _BLOCK):
            raise ExportArgumentError(
                f"Q8_0 needs widths that {_BLOCK} divides. Received: hidden_dim={shape.hidden_dim}, "
                f"intermediate_dim={shape.intermediate_dim}. Choose 'F16'."
            )
        comparing.require_positions(shape.max_sequence_length)
        if importlib.util.find_spec("gguf") is None:
            raise MissingDependencyError(
                "The exporter 'gguf' needs the package gguf: pip install 'kerasgen[gguf]'.", package="gguf"
            )
        weights = family.weights(model.causal_lm)
        with staged(path, overwrite=overwrite, exporter="gguf", beside=REPORTS) as stage:
            self._write(weights, shape, tokenizer, family.gguf_architecture, stage)
            figures = self._prove(model, weights, shape, tokenizer, stage)
            report = write_report(
                stage,
                {"dtype": self.dtype, "architecture": family.gguf_architecture, "parity": figures},
                exporter="gguf",
            )
        return Artefact(path=path, exporter="gguf", report=report)

    def _write(
        self, weights: DecoderWeights, shape: DecoderShape, tokenizer: ByteLevelBPE, architecture: str, path: Path
    ) -> None:
        import gguf

        writer = gguf.GGUFWriter(path, architecture)
        kinds = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "Q8_0": "MOSTLY_Q8_0"}
        writer.add_type("model")
        writer.add_name(path.stem)
        writer.add_block_count(shape.num_layers)
        writer.add_context_length(shape.max_sequence_length)
        writer.add_embedding_length(shape.hidden_dim)
        writer.add_feed_forward_length(shape.intermediate_dim)
        writer.add_head_count(shape.num_heads)
        writer.add_layer_norm_eps(shape.layer_norm_epsilon)
        writer.add_file_type(gguf.LlamaFileType[kinds[self.dtype]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        tokens, types = _tokens(tokenizer, shape.vocabulary_size)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(tokenizer.merges)
        first = tokenizer.end_token_id if tokenizer.start_token_id is None else tokenizer.start_token_id
        writer.add_bos_token_id(first)
        writer.add_eos_token_id(tokenizer.end_token_id)
        writer.add_pad_token_id(tokenizer.pad_token_id)
        writer.add_add_bos_token(tokenizer.start_token_id is not None)
        for name, tensor in _named(weights).items():
            self._add(writer, name, tensor)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()

    def _add(self, writer: Any, name: str, tensor: Any) -> None:
        import gguf
        import numpy as np

        tensor = np.ascontiguousarray(tensor, dtype=np.float32)
        if self.dtype == "F32" or tensor.ndim == 1 or name == "position_embd.weight":
            writer.add_tensor(name, tensor)
        elif self.dtype == "F16":
            with np.errstate(over="ignore"):
                half = tensor.astype(np.float16)
            if not np.isfinite(half).all():
                raise ExportError(f"The tensor {name!r} is not finite as F16. Nothing was kept.")
            writer.add_tensor(name, half)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)

    def _prove(
        self,
        model: LanguageModel,
        weights: DecoderWeights,
        shape: DecoderShape,
        tokenizer: ByteLevelBPE,
        path: Path,
    ) -> dict[str, Any]:
        import numpy as np

        from kerasgen import devices
        from kerasgen.exporters import comparing
        from kerasgen.exporters.numpy_decoder import NumpyDecoder, greedy

        written, vocabulary, merges = read(path)
        expected, _ = _tokens(tokenizer, shape.vocabulary_size)
        if vocabulary != expected or merges != tokenizer.merges:
            raise ExportError("The vocabulary in the file is not the model's. Nothing was kept.")
        start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
        longest = min(shape.max_sequence_length, 256)
        prompts = comparing.prompts(tokenizer, chunks=(max(longest // 8, 1),), longest=longest)[:2]
        counts = comparing.counts(tokenizer, prompts, longest)
        text = (start + tokenizer.encode(comparing.PROBE))[:longest]
        before, after = (
            _log_softmax(NumpyDecoder(one, shape).read(text).astype(np.float64)) for one in (weights, written)
        )
        divergence = float((np.exp(before) * (before - after)).sum(-1).mean())
        theirs = comparing.greedy(model, prompts, counts)
        never, began = comparing.never(tokenizer), time.perf_counter()
        ours = [
            greedy(written, shape, start + one, new_tokens=count, end=never)
            for one, count in zip(prompts, counts, strict=True)
        ]
        seconds = time.perf_counter() - began
        figures = {
            "tokens_per_second": sum(counts) / seconds,  # in NumPy; llama.cpp is not run
            "peak_bytes": devices.peak_memory_bytes(),
            "kl_nats_per_token": divergence,
            "top_1_agreement": float((before.argmax(-1) == after.argmax(-1)).mean()),
            "greedy_equal": ours == theirs,
            "new_tokens": counts,
            "prompt_lengths": list(map(len, prompts)),
            **comparing.variety(theirs),
        }
        if self.dtype == "F32":
            figures["weights_equal"] = all(
                np.array_equal(one, other)
                for one, other in zip(_named(weights).values(), _named(written).values(), strict=True)
            )
        exact = self.dtype != "F32" or (figures["greedy_equal"] and figures["weights_equal"])
        if not exact or not divergence <= TOLERANCE[self.dtype]:
            raise ExportError(
                f"What was written does not compute what the model does: {figures}. Nothing was kept.", figures=figures
            )
        return figures


def read(path: Path) -> tuple[DecoderWeights, list[str], list[str]]:
    """Return the weights of a GPT-2 in a GGUF file as float32, its tokens by id, and its merges.

    Raises:
        ExportError: the file is damaged, or holds something else.
    """
    import gguf
    import numpy as np

    from kerasgen.models.families.base import DecoderLayer, DecoderWeights

    try:
        reader = gguf.GGUFReader(path)
        found = {
            str(tensor.name): np.array(
                gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32
            ).reshape([int(size) for size in reversed(tensor.shape)])
            for tensor in reader.tensors
        }
        layers = int(reader.fields["gpt2.block_count"].contents())
        tokens = list(reader.fields["tokenizer.ggml.tokens"].contents())
        merges = list(reader.fields["tokenizer.ggml.merges"].contents())
        blocks = tuple(
            DecoderLayer(
                **{
                    field: found[f"blk.{index}.{name}"].T if is_kernel else found[f"blk.{index}.{name}"]
                    for field, name, is_kernel in _LAYER
                }
            )
            for index in range(layers)
        )
        whole = {field: found[name] for field, name in _WHOLE}
    except (ValueError, KeyError, IndexError, OSError) as cause:
        raise ExportError(f"{path.name} can't be read as a GGUF file of a GPT-2: {cause!r}.") from cause
    return DecoderWeights(layers=blocks, **whole), tokens, merges


def _named(weights: DecoderWeights) -> dict[str, Any]:
    """The tensors by llama.cpp's names, in its layouts."""
    tensors = {name: getattr(weights, field) for field, name in _WHOLE}
    for index, layer in enumerate(weights.layers):
        for field, name, is_kernel in _LAYER:
            tensor = getattr(layer, field)
            tensors[f"blk.{index}.{name}"] = tensor.T if is_kernel else tensor
    return tensors


def _tokens(tokenizer: ByteLevelBPE, vocabulary_size: int) -> tuple[list[str], list[int]]:
    """The tokens of all rows of the embeddings, and GGUF's type of each; rows without a token are unused ones."""
    import gguf

    by_id = {token_id: token for token, token_id in tokenizer.vocabulary.items()}
    special = set(tokenizer.special_tokens.values())
    tokens, types = [], []
    for token_id in range(vocabulary_size):
        tokens.append(by_id.get(token_id, f"[PAD{token_id}]"))
        kind = gguf.TokenType.CONTROL if token_id in special else gguf.TokenType.NORMAL
        types.append(int(kind if token_id in by_id else gguf.TokenType.UNUSED))
    return tokens, types


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
