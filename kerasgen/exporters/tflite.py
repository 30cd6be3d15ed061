"""`tflite`: a flatbuffer that generates on LiteRT, with its tokenizer beside it, proved in a fresh process."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import ExportArgumentError, ExportError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel
    from kerasgen.models.families import DecoderShape
    from kerasgen.tokens.bpe import ByteLevelBPE

QUANTIZATIONS = ("float32", "int8")


@dataclass(frozen=True)
class TFLiteExporter(Exporter):
    """Write `prefill_N` and `decode` signatures with a cache, in builtin operators alone, with the tokenizer beside.

    Args:
        quantize: how weights are stored. `"int8"` keeps one scale for each row of a kernel and multiplies with
            activations rounded to 8 bits; what that costs is measured and held against `most_divergence`.
        cache_length: tokens of a whole text, at most the model's positions; None for 256, or the model's if fewer. A
            longer cache costs time at every token, used or not.
        prefill_lengths: tokens that one call reads; others are read in several calls.
        beams: texts that one call continues at once, for beam search and several texts of a prompt; 0 leaves it out.
        most_divergence: the mean divergence from the model's predictions, in nats a token, that a quantised artefact
            may have (Kullback-Leibler, on a probe text).
    """

    quantize: Literal["float32", "int8"] = "float32"
    cache_length: int | None = None
    prefill_lengths: tuple[int, ...] = (32, 128)
    beams: int = 4
    most_divergence: float = 0.05

    def __post_init__(self) -> None:
        if self.quantize not in QUANTIZATIONS:
            raise ExportArgumentError(
                f"quantize must be one of {', '.join(QUANTIZATIONS)}. Received: {self.quantize!r}."
            )
        limit = self.most_divergence
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 <= limit < float("inf"):
            raise ExportArgumentError(f"most_divergence must be a number of at least 0. Received: {limit!r}.")
        if isinstance(self.prefill_lengths, int):  # a text names one length so
            object.__setattr__(self, "prefill_lengths", (self.prefill_lengths,))
        if not isinstance(self.prefill_lengths, (tuple, list)):
            raise ExportArgumentError(f"prefill_lengths must be whole numbers. Received: {self.prefill_lengths!r}.")
        whole = [("cache_length", self.cache_length, 8), ("beams", self.beams, 0)]
        whole += [("prefill_lengths", length, 2) for length in self.prefill_lengths]
        for name, value, least in whole:
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ExportArgumentError(f"{name} must be a whole number of at least {least}. Received: {value!r}.")
        object.__setattr__(self, "prefill_lengths", tuple(sorted(set(self.prefill_lengths))))
        if self.beams == 1:
            raise ExportArgumentError("beams must be 0, which leaves the signature out, or at least 2. Received: 1.")

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the files, let a fresh process generate from them, and compare; see `Exporter`."""
        from kerasgen.exporters import writing
        from kerasgen.models.families import family_of, names
        from kerasgen.tokens.bpe import ByteLevelBPE

        family = family_of(model.causal_lm)
        if family is None or not isinstance(model.tokenizer, ByteLevelBPE):
            raise ExportArgumentError(
                f"The exporter 'tflite' writes {', '.join(names())} models. Received: a "
                f"{type(model.backbone).__name__}. Use the exporter 'preset'."
            )
        shape = family.shape(model.causal_lm)
        length = self._cache_length(shape)
        writing.check_target(path, overwrite=overwrite)
        _require_converter(self.quantize)
        graph = {
            "num_layers": shape.num_layers,
            "num_heads": shape.num_heads,
            "head_dim": shape.head_dim,
            "vocabulary_size": shape.vocabulary_size,
            "cache_length": length,
            "prefill_lengths": [size for size in self.prefill_lengths if size <= length],
            "beams": self.beams,
        }
        with writing.staged(path, overwrite=overwrite) as stage:
            flatbuffer, weight_bytes = self._flatbuffer(family.weights(model.causal_lm), shape, graph)
            stage.write_bytes(flatbuffer)
            report = self._describe(flatbuffer, weight_bytes, graph, model.tokenizer)
            _write_tokenizer(stage, model.tokenizer)
            writing.write_report(stage, report, exporter="tflite")
            report["parity"] = self._prove(model, stage, graph)
            written = writing.write_report(stage, report, exporter="tflite")
        return Artefact(path=path, exporter="tflite", report=written)

    def _cache_length(self, shape: DecoderShape) -> int:
        positions = shape.max_sequence_length
        if self.cache_length is None:
            return min(positions, 256)
        if self.cache_length > positions:
            raise ExportArgumentError(
                f"cache_length must be at most the model's {positions} positions. Received: {self.cache_length}."
            )
        return self.cache_length

    def _flatbuffer(self, weights: Any, shape: DecoderShape, graph: dict[str, Any]) -> tuple[bytes, int]:
        """The file's content, and the bytes that its weights take at the least."""
        from kerasgen.exporters import tflite_graph

        with tempfile.TemporaryDirectory() as folder:
            tflite_graph.write_saved_model(
                weights,
                shape,
                Path(folder) / "graph",
                cache_length=graph["cache_length"],
                prefill_lengths=graph["prefill_lengths"],
                beams=self.beams,
            )
            flatbuffer = tflite_graph.convert(Path(folder) / "graph")
        from kerasgen.exporters import tflite_quantizing

        if self.quantize == "int8":
            flatbuffer = tflite_quantizing.to_int8(flatbuffer)
        return flatbuffer, tflite_quantizing.least_bytes(weights, self.quantize)

    def _describe(
        self, flatbuffer: bytes, weight_bytes: int, graph: dict[str, Any], tokenizer: ByteLevelBPE
    ) -> dict[str, Any]:
        from kerasgen.exporters import tflite_quantizing
        from kerasgen.runtime import metadata

        operators = tflite_quantizing.operators(flatbuffer)
        foreign = [name for name in operators if name.startswith(("Flex", "CUSTOM"))]
        if foreign:
            raise ExportError(f"The graph holds operators that are not built into LiteRT: {', '.join(foreign)}.")
        return {
            "quantize": self.quantize,
            "graph": graph,
            "operators": operators,
            "weight_bytes": weight_bytes,
            "bytes_over_weight_bytes": len(flatbuffer) / weight_bytes,
            "sha256": hashlib.sha256(flatbuffer).hexdigest(),
            "tokenizer": metadata.tokenizer_settings(tokenizer),
        }

    def _prove(self, model: LanguageModel, stage: Path, graph: dict[str, Any]) -> dict[str, Any]:
        from kerasgen.exporters import proving

        if self.quantize == "float32":
            return proving.prove_ids(
                model,
                stage,
                chunk=graph["prefill_lengths"][0] if graph["prefill_lengths"] else 2,
                longest=graph["cache_length"],
                beams=self.beams or None,
                settings={"weight_cache": None},
            )
        return proving.prove_closeness(
            model,
            stage,
            longest=graph["cache_length"],
            most_divergence=self.most_divergence,
            settings={"weight_cache": None},
        )


def _write_tokenizer(stage: Path, tokenizer: ByteLevelBPE) -> None:
    from kerasgen.runtime import metadata

    metadata.tokenizer_path(stage).write_text(tokenizer.to_tokenizer_json(), encoding="utf-8")


def _require_converter(quantize: str) -> None:
    from importlib.util import find_spec

    needed = ["tensorflow", "ai_edge_litert", *(["ai_edge_quantizer"] if quantize == "int8" else [])]
    for package in needed:
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"Exporting to TFLite needs {package}: pip install 'kerasgen[export]'.", package=package, extra="export"
            )
