"""`tflite`: a flatbuffer that generates on LiteRT, with its tokenizer beside it, proved in a fresh process."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from kerasgen import quiet
from kerasgen.bounds import Bounds, NonNegativeFloat, NonNegativeInt
from kerasgen.deferred_imports import is_installed
from kerasgen.errors import ExportArgumentError, ExportError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter, check_bounds
from kerasgen.exporters.exportable_samplers import token_sampler
from kerasgen.files import temporary
from kerasgen.files.path_arguments import path_argument
from kerasgen.keywords import meant

if TYPE_CHECKING:
    from kerasgen.decoder.config import DecoderConfig
    from kerasgen.decoder.weights import Weights
    from kerasgen.exporters.parity.comparison import Read
    from kerasgen.exporters.parity.ids import Reader
    from kerasgen.exporters.parity.quantized import Limits
    from kerasgen.exporters.validation import FileTokenizer
    from kerasgen.models.base import LanguageModel

CacheLength: TypeAlias = Annotated[int, Bounds(minimum=8)]
"""Tokens of a whole text."""
PrefillLength: TypeAlias = Annotated[int, Bounds(minimum=2)]
"""Tokens that one call reads."""
Beams: TypeAlias = Literal[0] | Annotated[int, Bounds(minimum=2)]
"""Texts that one call continues; 0 leaves the signature out."""
QUANTIZATIONS = ("float32", "float16", "int8", "int4")
# What rounding may cost if the caller sets no limit: nats a token, the share of tokens whose likeliest successor stays
# the model's, standard deviations of a likely token's logit, and the share by which held-out bits per character may be
# more. How far signatures of one file may be apart is nobody's choice.
LIMITS = {"int8": (0.05, 0.85, 1.5, 0.02), "int4": (0.5, 0.6, 4.0, 0.2)}
_SETTABLE = ("most_divergence", "least_agreement", "most_logit_difference", "most_loss_increase")
_DISAGREEMENT = 0.02
_CACHE_LENGTH = 256
_BEAMS = 4
_SHORTEST = 64  # places of the cache that the smallest signature attends to
_LEAST_HELD_OUT = 20  # tokens
# What the process that proves imports while the graph is traced.
_IMPORTS = ("kerasgen.exporters.tflite.runtime", "kerasgen.generation", "ai_edge_litert.compiled_model")
_TRACE, _CONVERT = "trace the graph", "convert it to TFLite"


@dataclass(frozen=True)
class TFLiteExporter(Exporter):
    """Write `prefill_N` and `decode` signatures with a cache, in builtin operators alone, with the tokenizer beside.

    Args:
        quantize: how weights are stored. `"float16"` rounds matrices to 11 bits and computes in float32. `"int8"` keeps
            one scale for each row of a kernel and multiplies with activations rounded to 8 bits; `"int4"` does so with
            one scale for each 32 inputs of an output, and keeps in 8 bits the tables, and kernels whose number of
            inputs 32 doesn't divide. What these two cost is measured and held against `most_divergence`.
        cache_length: tokens of a whole text, at most the model's positions; None for 256, or the model's if fewer. For
            a model without a limit of its own, such as a Llama, any number will do. A longer cache takes memory, used
            or not.
        prefill_lengths: numbers of tokens that one call can read; a prompt of another length takes several calls.
        decode_lengths: numbers of cache positions that further signatures attend to, such as `decode_64`, so that a
            short text does not pay for the whole cache; None for 64, 128, 256 and so on below `cache_length`.
        beams: texts that one call continues at once, for beam search and several texts of a prompt; 0 leaves the
            signature out. None for 4, or for 0 with a decoder that has windows or ALiBi, whose distances the signature
            doesn't know.
        shortlist: with float32, how many logits are computed exactly for greedy text and top-k. Estimates in 8 bits
            choose them. If the estimates can't rule out every other token, all logits are computed, so the ids stay the
            same. The weights of the estimates are stored too: a quarter of the output layer's size. None for 256, if
            the vocabulary has four times as many; 0 leaves it out.
        samplers: names of samplers. Each gets a signature that chooses from logits, such as `choose_top_k`, which a
            page or an app calls after `decode`. Its inputs are the sampler's settings and the random number.
        most_divergence: the mean divergence from the model's predictions, in nats a token, that a quantised artefact
            may have (Kullback-Leibler, on `held_out_text`); None for 0.05 with int8 and 0.5 with int4.
        least_agreement: the share of tokens after which a quantised artefact's likeliest token must be the model's;
            None for 0.85 with int8 and 0.6 with int4.
        most_logit_difference: how far off a logit of a quantised artefact may be, in standard deviations of the model's
            logits, among the 64 likeliest tokens of the model's and of its own prediction; None for 1.5 with int8 and 4
            with int4.
        most_loss_increase: the share by which a quantised artefact's bits per character on that text may exceed the
            model's; None for 0.02 with int8 and 0.2 with int4. Two standard errors of the mean are allowed besides, as
            for the divergence and the agreement.
        held_out_text: what predictions are compared on, up to 1,024 tokens of it; None for texts that the model draws.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".tflite",)
    runtime: ClassVar[str | None] = "kerasgen.exporters.tflite.runtime:open_artefact"

    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"
    cache_length: CacheLength | None = None
    prefill_lengths: tuple[PrefillLength, ...] = (32, 128)
    decode_lengths: tuple[CacheLength, ...] | None = None
    beams: Beams | None = None
    shortlist: NonNegativeInt | None = None
    samplers: tuple[str, ...] = ()
    most_divergence: NonNegativeFloat | None = None
    least_agreement: NonNegativeFloat | None = None
    most_logit_difference: NonNegativeFloat | None = None
    most_loss_increase: NonNegativeFloat | None = None
    held_out_text: str | None = None

    def __post_init__(self) -> None:
        if self.quantize not in QUANTIZATIONS:
            raise ExportArgumentError(
                f"quantize must be one of {', '.join(QUANTIZATIONS)}. Received: {self.quantize!r}."
                f"{meant(self.quantize, QUANTIZATIONS)}"
            )
        if isinstance(self.samplers, (str, list)):
            is_single = isinstance(self.samplers, str)
            object.__setattr__(self, "samplers", (self.samplers,) if is_single else tuple(self.samplers))
        for name in self.samplers:
            if not isinstance(name, str):
                raise ExportArgumentError(f"samplers must be names of samplers. Received: {name!r}.")
            token_sampler(name)
        if self.held_out_text is not None and not isinstance(self.held_out_text, str):
            raise ExportArgumentError(f"held_out_text must be text, or None. Received: {self.held_out_text!r}.")
        for name in ("prefill_lengths", "decode_lengths"):
            if isinstance(getattr(self, name), (int, list)):  # a text names one length so
                lengths = getattr(self, name)
                object.__setattr__(self, name, (lengths,) if isinstance(lengths, int) else tuple(lengths))
        check_bounds(self)
        for name in ("prefill_lengths", "decode_lengths"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        if self.shortlist and self.quantize != "float32":
            raise ExportArgumentError(
                f"A shortlist is written with quantize='float32' alone. Received: shortlist={self.shortlist}, "
                f"quantize={self.quantize!r}."
            )

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the files, let a fresh process generate from them, and compare; see `Exporter`."""
        path = path_argument(path, ExportArgumentError)
        from kerasgen.exporters import masked_graphs, progress, staging
        from kerasgen.models.base import MaskedLanguageModel

        if isinstance(model, MaskedLanguageModel):
            return masked_graphs.export_tflite(model, path, quantize=self.quantize, overwrite=overwrite)
        from kerasgen.exporters.parity import comparison
        from kerasgen.exporters.parity.ids import Reader
        from kerasgen.exporters.validation import description_of, file_tokenizer, require_held
        from kerasgen.models import chat, licences
        from kerasgen.models.described import weights_of

        config, tokenizer = description_of(model, "tflite"), file_tokenizer(model, "tflite")
        model = replace(model, tokenizer=tokenizer)
        require_held(tokenizer, "tflite", added_tokens=True, end_tokens=True)
        length = self._cache_length(config)
        comparison.require_positions(length)
        comparison.require_finite(model)
        text = self.held_out_text
        if text is not None and len(tokenizer.encode(text)) < _LEAST_HELD_OUT:
            raise ExportArgumentError(
                f"held_out_text must have {_LEAST_HELD_OUT} tokens at the least. Received: {text!r}. Give a longer "
                "one, or None."
            )
        staging.check_target(path, overwrite=overwrite, exporter="tflite", beside=staging.BESIDE)
        _require_converter(quantizer=self.quantize in LIMITS or self._shortlist(config) > 0)
        graph = {
            "num_layers": config.num_layers,
            "num_heads": config.attention.num_key_value_heads,
            "head_dim": config.attention.head_dim,
            "vocabulary_size": config.vocabulary_size,
            "cache_length": length,
            "prefill_lengths": [size for size in self.prefill_lengths if size <= length],
            "decode_lengths": self._decode_lengths(length),
            "beams": self._beams(config),
            "samplers": list(self.samplers),
            "shortlist": None,
        }
        with (
            staging.staged(path, overwrite=overwrite, exporter="tflite", beside=staging.BESIDE) as stage,
            Reader(_IMPORTS) as reader,
        ):
            progress.plan(_TRACE, _CONVERT, comparison.GENERATE, comparison.COMPARE)
            weights = weights_of(model)
            flatbuffer, weight_bytes = self._flatbuffer(config, weights, graph)
            stage.write_bytes(flatbuffer)
            report = (
                self._describe(flatbuffer, weight_bytes, graph, tokenizer) | licences.said(model) | chat.said(model)
            )
            _write_tokenizer(stage, tokenizer)
            staging.write_report(stage, report, exporter="tflite")
            report["parity"] = self._prove(model, stage, reader, graph, weights)
            written = staging.write_report(stage, report, exporter="tflite")
        return Artefact(path=path, exporter="tflite", report=written)

    def _cache_length(self, config: DecoderConfig) -> int:
        positions = config.max_sequence_length
        if self.cache_length is None:
            return min(positions or _CACHE_LENGTH, _CACHE_LENGTH)
        if positions is not None and self.cache_length > positions:
            raise ExportArgumentError(
                f"cache_length must be at most the model's {positions} positions. Received: {self.cache_length}."
            )
        return self.cache_length

    def _decode_lengths(self, cache_length: int) -> list[int]:
        if self.decode_lengths is not None:
            return [length for length in self.decode_lengths if length < cache_length]
        return [_SHORTEST << n for n in range(20) if _SHORTEST << n < cache_length]

    def _beams(self, config: DecoderConfig) -> int:
        """Return how many texts one call continues.

        Raises:
            ExportArgumentError: the signature was asked for, and the decoder has distances that it doesn't know.
        """
        from kerasgen.decoder.config import AlibiPositions

        layers = range(config.num_layers)
        has_distances = any(config.window(n) or isinstance(config.positions_of(n), AlibiPositions) for n in layers)
        if self.beams and has_distances:
            raise ExportArgumentError(
                f"beams must be 0 of a decoder with windows or ALiBi, such as this {config.architecture!r}: texts of "
                f"one cache don't know how far apart their tokens are. Received: {self.beams}. Leave it out."
            )
        return (0 if has_distances else _BEAMS) if self.beams is None else self.beams

    def _shortlist(self, config: DecoderConfig) -> int:
        """Return how many logits a shortlist holds; 0 where that would be most of the vocabulary."""
        from kerasgen.exporters.tflite.estimates import COUNT

        if config.head_bias or config.logit_scale != 1.0 or config.logit_soft_cap is not None:
            return 0  # the error bound holds for a plain product only
        count = (COUNT if self.quantize == "float32" else 0) if self.shortlist is None else self.shortlist
        return count if count * 4 <= config.vocabulary_size else 0

    def _flatbuffer(self, config: DecoderConfig, weights: Weights, graph: dict[str, Any]) -> tuple[bytes, int]:
        """Return the file's content, and the least number of bytes that its weights take."""
        from kerasgen.exporters import progress
        from kerasgen.exporters.tflite import estimates

        quiet.load("tensorflow")
        from kerasgen.exporters.tflite import graph as tflite_graph
        from kerasgen.exporters.tflite import quantize as tflite_quantizing

        count = self._shortlist(config)
        with temporary.folder() as folder:
            progress.begin(_TRACE)
            stand_ins = tflite_graph.write_saved_model(
                config,
                weights,
                Path(folder) / "graph",
                cache_length=graph["cache_length"],
                prefill_lengths=graph["prefill_lengths"],
                decode_lengths=graph["decode_lengths"],
                beams=graph["beams"],
                samplers=self.samplers,
                shortlist=count,
            )
            progress.begin(_CONVERT)
            flatbuffer = stand_ins.converted(Path(folder) / "graph")
        flatbuffer = tflite_quantizing.quantized(flatbuffer, self.quantize)
        if count:
            flatbuffer = estimates.with_estimates_in_8_bits(flatbuffer)
            table = weights["embedding"]["tokens"] if config.tied_head else weights["head"]["kernel"].T
            graph["shortlist"] = {"count": count, **estimates.bounds(flatbuffer, table)}
        return flatbuffer, tflite_quantizing.least_bytes(weights, self.quantize)

    def _describe(
        self, flatbuffer: bytes, weight_bytes: int, graph: dict[str, Any], tokenizer: FileTokenizer
    ) -> dict[str, Any]:
        from kerasgen.exporters.tflite import quantize as tflite_quantizing
        from kerasgen.runtime import metadata

        operators = tflite_quantizing.operators(flatbuffer)
        foreign = [name for name in operators if name.startswith(("Flex", "CUSTOM"))]
        if foreign:
            raise ExportError(f"The graph holds operators that are not built into LiteRT: {', '.join(foreign)}.")
        return {
            "quantize": self.quantize,
            "graph": graph,
            "signatures": _signatures(graph),
            "operators": operators,
            "weight_bytes": weight_bytes,
            "bytes_over_weight_bytes": len(flatbuffer) / weight_bytes,
            "sha256": hashlib.sha256(flatbuffer).hexdigest(),
            "tokenizer": metadata.tokenizer_settings(tokenizer),
        }

    def _prove(
        self, model: LanguageModel, stage: Path, reader: Reader, graph: dict[str, Any], weights: Weights
    ) -> dict[str, Any]:
        from kerasgen.exporters.parity import ids, quantized

        common: dict[str, Any] = {
            "chunks": graph["prefill_lengths"],
            "longest": graph["cache_length"],
            "settings": {"weight_cache": None},
            "reader": reader,
        }
        if self.quantize in LIMITS:
            return quantized.prove_divergence(
                model, stage, beams=graph["beams"], limits=self._limits(), text=self.held_out_text, **common
            )
        rounded = self._rounded(model, weights, graph["cache_length"])
        return ids.prove_ids(model, stage, rounded=rounded, logits="prefilled", **common)

    def _rounded(self, model: LanguageModel, weights: Weights, longest: int) -> Read | None:
        """Return a reader of the model with its weights rounded as in the file; None where it rounds none."""
        if self.quantize == "float32":
            return None
        from kerasgen.decoder.numpy import rounded
        from kerasgen.exporters.parity import comparison

        stored = rounded(weights, "float16", least_rank=2)
        return comparison.reader(comparison.with_weights(model, stored), longest)

    def _limits(self) -> Limits:
        from kerasgen.exporters.parity.quantized import Limits

        settings = (getattr(self, name) for name in _SETTABLE)
        divergence, agreement, difference, increase = (
            usual if own is None else own for own, usual in zip(settings, LIMITS[self.quantize], strict=True)
        )
        return Limits(divergence, agreement, difference, increase, _DISAGREEMENT)


def _signatures(graph: dict[str, Any]) -> list[str]:
    names = [f"prefill_{length}" for length in graph["prefill_lengths"]]
    names += ["decode", *(f"decode_{length}" for length in graph["decode_lengths"])]
    names += [f"decode_beams_{graph['beams']}"] if graph["beams"] else []
    if graph["shortlist"]:
        names += ["shortlist", *(f"shortlist_{length}" for length in graph["decode_lengths"]), "logits"]
    return names + [f"choose_{name}" for name in graph["samplers"]]


def _write_tokenizer(stage: Path, tokenizer: FileTokenizer) -> None:
    from kerasgen.runtime import metadata

    metadata.tokenizer_path(stage).write_text(metadata.tokenizer_text(tokenizer), encoding="utf-8")


def _require_converter(*, quantizer: bool) -> None:
    needed = ["tensorflow", "ai_edge_litert", *(["litert_quantizer"] if quantizer else [])]
    for package in needed:
        if not is_installed(package):
            raise MissingDependencyError(
                f"Exporting to TFLite needs {package}: pip install 'kerasgen[export]'.", package=package, extra="export"
            )
