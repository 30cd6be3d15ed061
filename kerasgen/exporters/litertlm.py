"""`litertlm`: the bundle of a TFLite model and its tokenizer that LiteRT-LM runs."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import ExportArgumentError, ExportError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.exporters.tflite import QUANTIZATIONS, TFLiteExporter

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel


@dataclass(frozen=True)
class LiteRtLmExporter(Exporter):
    """Write a bundle for LiteRT-LM. The TFLite model in it is proved as by the exporter `tflite`, then the bundle.

    Args:
        quantize: as for `TFLiteExporter`.
    """

    quantize: Literal["float32", "float16", "int8", "int4"] = "float32"

    def __post_init__(self) -> None:
        if self.quantize not in QUANTIZATIONS:
            raise ExportArgumentError(
                f"quantize must be one of {', '.join(QUANTIZATIONS)}. Received: {self.quantize!r}."
            )

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the bundle, and compare the text that a fresh process generates from it; see `Exporter`."""
        from kerasgen.exporters import writing
        from kerasgen.exporters.families import family_and_tokenizer
        from kerasgen.runtime import metadata, verifying

        _, tokenizer = family_and_tokenizer(model, "litertlm")
        for package in ("litert_lm", "litert_lm_builder"):
            if importlib.util.find_spec(package) is None:
                raise MissingDependencyError(
                    f"The exporter 'litertlm' needs {package}: pip install 'kerasgen[litertlm]'.",
                    package=package,
                    extra="litertlm",
                )
        with writing.staged(path, overwrite=overwrite, exporter="litertlm", beside=writing.BESIDE) as stage:
            metadata.tokenizer_path(stage).write_text(tokenizer.to_tokenizer_json(), encoding="utf-8")
            with tempfile.TemporaryDirectory() as folder:
                inner = TFLiteExporter(quantize=self.quantize, decode_lengths=(), beams=0, shortlist=0).export(
                    model, Path(folder) / "model.tflite"
                )
                length = int(inner.report["graph"]["cache_length"])
                _bundle(inner.path, metadata.tokenizer_path(stage), tokenizer, length, stage, Path(folder))
            report: dict[str, Any] = {
                "quantize": self.quantize,
                "max_tokens": length,
                "bundle_bytes": stage.stat().st_size,
                "sha256": verifying.sha256_of(stage),
                "tokenizer": metadata.tokenizer_settings(tokenizer),
                "tflite": {key: inner.report[key] for key in ("graph", "signatures", "operators", "parity")},
            }
            writing.write_report(stage, report, exporter="litertlm")
            report["parity"] = self._prove(model, stage, length)
            written = writing.write_report(stage, report, exporter="litertlm")
        return Artefact(path=path, exporter="litertlm", report=written)

    def _prove(self, model: LanguageModel, stage: Path, length: int) -> dict[str, Any]:
        from kerasgen.exporters import comparing, proving

        tokenizer = model.tokenizer
        new = min(comparing.NEW_TOKENS, length // 2)
        texts = [comparing.PROBE[:14], comparing.PROBE[28:], "春"]
        prompts = [ids for ids in map(tokenizer.encode, texts) if len(ids) + new < length]
        answer = proving.ask(stage, [{"prompts": [one], "max_new_tokens": new} for one in prompts])
        expected = [comparing.ids_of(model, [one], "greedy", new)[0] for one in prompts]
        theirs = [tokenizer.decode(calls[0]) for calls in answer.calls]
        # Its texts come as C's do, which end at a NUL.
        written = [tokenizer.decode(ids, skip_special_tokens=True).partition("\0")[0] for ids in expected]
        ours = [text.rstrip("\ufffd") for text in written]
        figures: dict[str, Any] = {
            "text_equal": theirs == ours,
            # A rounded model writes other texts; the TFLite model in the bundle was held to limits on its own.
            "text_is_held_to_the_models": self.quantize == "float32",
            "tokens_per_second": len(expected[0]) / answer.seconds[0],
            "new_tokens": list(map(len, expected)),  # LiteRT-LM ends a text at the end token, whatever is asked
            **comparing.variety(expected),
            "modules": answer.modules,
            "peak_bytes": answer.peak_bytes,
            "load_seconds": answer.load_seconds,
        }
        if self.quantize == "float32" and not figures["text_equal"]:
            raise ExportError(f"The bundle generates {theirs}, the model {ours}. Nothing was kept.", figures=figures)
        return figures


def _bundle(tflite: Path, tokenizer_json: Path, tokenizer: Any, length: int, target: Path, folder: Path) -> None:
    from litert_lm_builder import litertlm_builder
    from litert_lm_builder.runtime.proto import llm_metadata_pb2

    about = llm_metadata_pb2.LlmMetadata(max_num_tokens=length)
    if tokenizer.start_token_id is not None:
        about.start_token.token_ids.ids.append(tokenizer.start_token_id)
    about.stop_tokens.add().token_ids.ids.append(tokenizer.end_token_id)
    about.llm_model_type.generic_model.SetInParent()
    (folder / "metadata.pb").write_bytes(about.SerializeToString())
    builder = litertlm_builder.LitertLmFileBuilder()
    builder.add_system_metadata(
        litertlm_builder.Metadata(key="Authors", value="kerasgen", dtype=litertlm_builder.DType.STRING)
    )
    builder.add_tflite_model(str(tflite), litertlm_builder.TfLiteModelType.PREFILL_DECODE)
    builder.add_hf_tokenizer(str(tokenizer_json))
    builder.add_llm_metadata(str(folder / "metadata.pb"))
    with target.open("wb") as file:
        builder.build(file)
