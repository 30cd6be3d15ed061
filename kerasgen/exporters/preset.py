"""`preset`: an ordinary KerasHub preset directory, compared with the model before it is handed over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import ExportArgumentError, ExportError, ModelArgumentError, ModelError
from kerasgen.exporters.base import Artefact, Exporter

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

# Nats by which two runs of one float32 model may differ at a token, when only the order of additions changed.
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}
_LONGEST = 256  # tokens of a text that is compared


@dataclass(frozen=True)
class PresetExporter(Exporter):
    """Write a directory that `keras_hub.models.CausalLM.from_preset` loads, tokenizer and all, with a report in it.

    Args:
        dtype: what the weights are stored as; `"float16"` halves the files and rounds each weight to 11 bits.
    """

    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCE:
            raise ExportArgumentError(f"dtype must be 'float32' or 'float16'. Received: {self.dtype!r}.")

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the preset, load what was written, and compare ids, the loss of a probe text and greedy text.

        See `Exporter`.
        """
        from kerasgen.exporters import comparing
        from kerasgen.exporters.writing import staged, write_report
        from kerasgen.models.saving import save_preset

        comparing.require_positions(model.max_sequence_length)
        with staged(path, overwrite=overwrite, exporter="preset") as stage:
            try:
                save_preset(model, stage, dtype=self.dtype)
                figures = self._prove(model, stage)
            except ModelArgumentError as cause:
                raise ExportArgumentError(str(cause)) from cause
            except ModelError as cause:
                raise ExportError(f"{cause} Nothing was kept.") from cause
            report = write_report(stage, {"dtype": self.dtype, "parity": figures}, exporter="preset")
        return Artefact(path=path, exporter="preset", report=report)

    def _prove(self, model: LanguageModel, directory: Path) -> dict[str, Any]:
        """Compare the directory with the model, in this process, on the backend that runs."""
        from kerasgen import devices
        from kerasgen.exporters import comparing
        from kerasgen.exporters.transformers import compare_losses
        from kerasgen.models.hub import Hub

        written = Hub(str(directory)).load()
        figures: dict[str, Any] = dict(compare_losses(model, written, TOLERANCE[self.dtype]))
        longest = min(model.max_sequence_length or _LONGEST, _LONGEST)
        prompts = comparing.prompts(model.tokenizer, chunks=(max(longest // 4, 1),), longest=longest)[:1]
        counts = comparing.counts(model.tokenizer, prompts, longest)
        found, seconds = comparing.timed_greedy(written, prompts, counts)
        wanted = comparing.greedy(model, prompts, counts)
        figures |= {
            "new_tokens": counts,
            **comparing.variety(found),
            "greedy_equal": found == wanted,
            "tokens_per_second": sum(counts) / seconds,
            "peak_bytes": devices.peak_memory_bytes(),
        }
        if self.dtype == "float32" and not figures["greedy_equal"]:
            raise ExportError(
                f"What was written generates other ids than the model: {figures}. Nothing was kept.", figures=figures
            )
        return figures
