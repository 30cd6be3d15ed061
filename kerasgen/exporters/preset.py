"""`preset`: an ordinary KerasHub preset directory, compared with the model before it is handed over."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kerasgen.errors import ExportArgumentError, ExportError, ModelArgumentError, ModelError
from kerasgen.exporters.base import Artefact, Exporter

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

# Nats by which two runs of one float32 model may differ at a token, when only the order of additions changed.
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}
PROBE = "昨夜雨疏风骤，the quick brown fox\n\n" * 2


@dataclass(frozen=True)
class PresetExporter(Exporter):
    """Write a directory that `keras_hub.models.CausalLM.from_preset` loads, tokenizer and all.

    Args:
        dtype: what the weights are stored as; `"float16"` halves the files and rounds each weight to 11 bits.
    """

    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCE:
            raise ExportArgumentError(f"dtype must be 'float32' or 'float16'. Received: {self.dtype!r}.")

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the preset, load it, and compare ids and the loss of each token of a probe text; see `Exporter`."""
        from kerasgen.models.saving import save_preset

        partial = path.with_name(f".{path.name}.unproved")
        if path.exists() and not overwrite:
            raise ExportArgumentError(f"{path} is there already. Choose another path, or pass overwrite=True.")
        try:
            save_preset(model, partial, overwrite=True, dtype=self.dtype)
            figures = self._compare(model, partial)
            save_preset(model, path, overwrite=overwrite, dtype=self.dtype)
        except ModelArgumentError as cause:
            raise ExportArgumentError(str(cause)) from cause
        except ModelError as cause:
            raise ExportError(str(cause)) from cause
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        files = {str(file.relative_to(path)): file.stat().st_size for file in sorted(path.rglob("*")) if file.is_file()}
        return Artefact(path=path, exporter="preset", report={"files": files, "dtype": self.dtype, "parity": figures})

    def _compare(self, model: LanguageModel, directory: Path) -> dict[str, float]:
        import numpy as np

        from kerasgen.corpora.base import Document
        from kerasgen.models.hub import Hub
        from kerasgen.models.scoring import score
        from kerasgen.tokens.encoding import encode_documents

        written = Hub(str(directory)).load()
        probe = [Document(text=PROBE, id="probe")]
        encoded = encode_documents(probe, model.tokenizer)
        again = encode_documents(probe, written.tokenizer)
        if not np.array_equal(encoded.token_ids, again.token_ids):
            raise ExportError("The tokenizer that was written gives other ids than the model's own.")
        length = model.default_sequence_length
        before = score(model, encoded, sequence_length=length, batch_size=1)
        after = score(written, encoded, sequence_length=length, batch_size=1)
        figures = {"nats_per_token": before.loss, "difference_in_nats_per_token": abs(before.loss - after.loss)}
        if not figures["difference_in_nats_per_token"] <= TOLERANCE[self.dtype]:
            raise ExportError(
                f"What was written does not compute what the model does: {figures}. Nothing was kept.",
                figures=figures,
            )
        return figures
