"""`preset`: an ordinary KerasHub preset directory, with which KerasHub alone generates what the model does."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import ExportArgumentError, ExportError, ModelArgumentError, ModelError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.files import temporary
from kerasgen.files.path_arguments import path_argument

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

# Nats by which two runs of one float32 model may differ at a token, when only the order of additions changed.
TOLERANCE = {"float32": 1e-4, "float16": 5e-2}
_PROBED_LENGTH = 16  # of a prompt, around which the proof chooses others
_PROMPTS = 3
_WRITE = "write the preset"
# Texts of which KerasHub's tokenizer gives the ids that the exact one does, and what it writes otherwise: runs of
# blanks, and an apostrophe after one.
TEXTS = (
    "昨夜雨疏风骤，浓睡不消残酒。",
    "Once upon a time there was a small house by the river,",
    "it's 10, I don't. 🚀 é ६",
)
BLANKS = (" two  spaces\n\nand a blank line", "don 't")


@dataclass(frozen=True)
class PresetExporter(Exporter):
    """Write a directory that `keras_hub.models.CausalLM.from_preset` loads, tokenizer and all, with a report in it.

    Before it is handed over, a fresh process in which there is KerasHub, on the backend that runs here, generates from
    it by KerasHub's own `generate`.

    Args:
        dtype: what the weights are stored as; `"float16"` halves the files and rounds each weight to 11 bits.
    """

    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in TOLERANCE:
            raise ExportArgumentError(f"dtype must be 'float32' or 'float16'. Received: {self.dtype!r}.")

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write the preset, let a fresh process of KerasHub read and generate, and compare; see `Exporter`."""
        path = path_argument(path, ExportArgumentError)
        from kerasgen.exporters import masked_models, progress
        from kerasgen.models.base import MaskedLanguageModel

        if isinstance(model, MaskedLanguageModel):
            return masked_models.export(model, path, "preset", self.dtype, overwrite=overwrite)
        from kerasgen.exporters.parity import comparison
        from kerasgen.exporters.staging import staged, write_report
        from kerasgen.exporters.validation import require_held, require_plain
        from kerasgen.models import architectures, licences, preset_tokenizers
        from kerasgen.models.saving import save_preset
        from kerasgen.tokens.bpe import ByteLevelBPE
        from kerasgen.tokens.pretrained import PretrainedTokenizer

        require_plain(model, "preset")
        if model.causal_lm is None:
            raise ExportArgumentError(
                f"KerasHub has no preset of this {model.kind}: {model.hub_reason} Pipeline.save keeps it for kerasgen; "
                "the exporters 'transformers', 'saved_model' and 'tflite' write it for other programs."
            )
        family = architectures.byte_level_tokens(type(model.backbone).__name__)
        keras_hub_tokenizer = getattr(model.tokenizer, "keras_hub_tokenizer", None)
        if isinstance(model.tokenizer, (ByteLevelBPE, PretrainedTokenizer)) and keras_hub_tokenizer is None:
            difference: str | None = "its tokenizer of this family may cut a text otherwise"
            if family is not None and isinstance(model.tokenizer, ByteLevelBPE):
                difference = preset_tokenizers.keras_hub_difference(model.tokenizer, family)
            if difference is not None:
                raise ExportArgumentError(
                    f"KerasHub alone can't generate what this model does, for {difference}. Use the exporter "
                    "'transformers', or Pipeline.save, which keeps the tokenizer for kerasgen."
                )
        else:
            require_held(model.tokenizer, "preset", added_tokens=False, end_tokens=False)
        comparison.require_positions(model.max_sequence_length)
        comparison.require_finite(model)
        with staged(path, overwrite=overwrite, exporter="preset") as stage:
            progress.plan(_WRITE, comparison.GENERATE, comparison.COMPARE)
            progress.begin(_WRITE)
            try:
                save_preset(model, stage, dtype=self.dtype)
                figures = self._prove(model, stage)
            except ModelArgumentError as cause:
                raise ExportArgumentError(str(cause)) from cause
            except ModelError as cause:
                raise ExportError(f"{cause} Nothing was kept.") from cause
            report = write_report(
                stage, {"dtype": self.dtype, **licences.said(model), "parity": figures}, exporter="preset"
            )
        return Artefact(path=path, exporter="preset", report=report)

    def _prove(self, model: LanguageModel, directory: Path) -> dict[str, Any]:
        """Compare what a fresh process of KerasHub does with the directory with what the model does."""
        import numpy as np

        from kerasgen import backend
        from kerasgen.exporters import progress
        from kerasgen.exporters.parity import comparison, worker
        from kerasgen.models.loading import preset_tokenizer

        tokenizer, positions = model.tokenizer, model.max_sequence_length
        start = [] if tokenizer.start_token_id is None else [tokenizer.start_token_id]
        chunk = _PROBED_LENGTH if positions is None else min(_PROBED_LENGTH, max(positions // 4, 1))
        prompts = comparison.prompts(tokenizer, chunks=(chunk,), longest=positions or 4 * _PROBED_LENGTH)[:_PROMPTS]
        longest = len(start) + max(map(len, prompts)) + comparison.NEW_TOKENS
        longest = longest if positions is None else min(longest, positions)
        counts = [
            longest - len(start) - len(prompt) for prompt in prompts
        ]  # KerasHub's texts of a batch end at one place
        read = start + comparison.probe(tokenizer, longest - len(start))
        with temporary.folder() as folder:
            job: dict[str, Any] = {
                "path": str(directory),
                "backend": backend.running(),
                "texts": comparison.encodable(tokenizer, TEXTS + BLANKS),
                "read": read,
                "prompts": prompts,
                "max_length": longest,
                "folder": folder,
            }
            progress.begin(comparison.GENERATE)
            answer = worker.run("kerasgen.exporters.preset.worker", job)
            progress.begin(comparison.COMPARE)
            written = np.load(Path(folder) / "logits.npy")[:, : tokenizer.vocabulary_size]
        unrounded = comparison.reader(model, longest)
        rounded = unrounded if self.dtype == "float32" else comparison.reader(_rounded(model, self.dtype), longest)
        chosen = comparison.likeliest(rounded, tokenizer, prompts, answer["together"], counts)
        figures = {
            **comparison.distances(comparison.logits(model, read), written, read),
            "new_tokens": counts,
            "prompt_lengths": list(map(len, prompts)),
            **comparison.variety(answer["together"]),
            "packed_equal": answer["packed"] == [start + prompt for prompt in prompts],
            "tokenizer_equal": preset_tokenizer(str(directory), model.causal_lm).digest() == tokenizer.digest(),
            **comparison.compared("together", answer["together"], chosen),
            **comparison.compared("alone", answer["alone"], chosen[-1:]),
            "tokens_per_second": counts[-1] / answer["seconds"],
            "load_seconds": answer["load_seconds"],
            "peak_bytes": answer["peak_bytes"],
            "modules": answer["modules"],
            "keras_hub": answer["version"],
        }
        encoded = dict(zip(job["texts"], answer["encoded"], strict=True))
        figures["encoded_equal"] = all(
            encoded[text] == tokenizer.encode(text) for text in encoded if text not in BLANKS
        )
        figures["blanks_encoded_alike"] = all(
            encoded[text] == tokenizer.encode(text) for text in encoded if text in BLANKS
        )
        figures["greedy_equal"] = figures["alone_equal"] and figures["together_equal"]
        if self.dtype != "float32":
            own = comparison.likeliest(unrounded, tokenizer, prompts, answer["together"], counts)
            figures["like_the_unrounded_model"] = answer["together"] == own
        comparison.require(figures, "KerasHub alone does otherwise than the model", tolerance=TOLERANCE[self.dtype])
        return figures


def _rounded(model: LanguageModel, dtype: str) -> LanguageModel:
    """Return a second model with the weights rounded as a file of this type rounds them."""
    import numpy as np

    from kerasgen.models.loading import load_directory
    from kerasgen.models.saving import save_preset

    with temporary.folder() as folder:
        rounded = load_directory(save_preset(model, Path(folder) / "preset"), source=model.source)
    for variable in rounded.causal_lm.weights:
        variable.assign(np.asarray(variable).astype(dtype).astype(np.float32))
    return rounded
