"""`saved_model`: a TensorFlow SavedModel with tokenizer, decoding loop and samplers in its graph, for any server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kerasgen.errors import ExportArgumentError, MissingDependencyError
from kerasgen.exporters.base import Artefact, Exporter

if TYPE_CHECKING:
    from kerasgen.models.base import LanguageModel

SAMPLERS = ("greedy", "top_k", "top_p", "min_p", "beam")
# A prompt's length around which the proof chooses others; the whole prompt is read at once.
_PROBED_LENGTH = 16
# What `import tensorflow` itself brings into a process.
_ALLOWED = ("tensorflow", "keras", "jax")


@dataclass(frozen=True)
class SavedModelExporter(Exporter):
    """Write a directory that `tensorflow` alone loads and serves: text in, text out, and ids in, ids out.

    For each sampler there are two signatures, such as `top_k` (of texts) and `top_k_ids`. The seed, the temperature and
    what the sampler takes besides are inputs, as are `max_new_tokens` and the end token; the batch is of any size.

    Args:
        samplers: which to hold, of `greedy`, `top_k`, `top_p`, `min_p` and `beam`.
        num_beams: texts that `beam` keeps at each step.
        length_penalty: of `beam`.
        dtype: what the weights are stored as; `"float16"` halves the files. It is computed in float32.
    """

    samplers: tuple[str, ...] = SAMPLERS
    num_beams: int = 4
    length_penalty: float = 1.0
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if isinstance(self.samplers, (str, list)):
            one = isinstance(self.samplers, str)
            object.__setattr__(self, "samplers", (self.samplers,) if one else tuple(self.samplers))
        wrong = [name for name in self.samplers if name not in SAMPLERS]
        if wrong or not self.samplers:
            raise ExportArgumentError(
                f"samplers must be some of {', '.join(SAMPLERS)}. Received: samplers={self.samplers!r}."
            )
        if not isinstance(self.num_beams, int) or isinstance(self.num_beams, bool) or self.num_beams < 1:
            raise ExportArgumentError(f"num_beams must be a whole number of at least 1. Received: {self.num_beams!r}.")
        penalty = self.length_penalty
        if not isinstance(penalty, (int, float)) or isinstance(penalty, bool) or not math.isfinite(penalty):
            raise ExportArgumentError(f"length_penalty must be a finite number. Received: {penalty!r}.")
        if self.dtype not in ("float32", "float16"):
            raise ExportArgumentError(f"dtype must be 'float32' or 'float16'. Received: {self.dtype!r}.")

    def export(self, model: LanguageModel, path: Path, *, overwrite: bool = False) -> Artefact:
        """Write the SavedModel, let a fresh process generate from it, and compare with the model; see `Exporter`.

        Raises:
            MissingDependencyError: TensorFlow is not installed.
        """
        from kerasgen.exporters.proving import prove_ids
        from kerasgen.exporters.writing import check_target, staged, write_report
        from kerasgen.models.families import family_of, names
        from kerasgen.runtime import metadata
        from kerasgen.tokens.bpe import ByteLevelBPE

        path = Path(path)
        check_target(path, overwrite=overwrite)
        family = family_of(model.causal_lm)
        if family is None:
            raise ExportArgumentError(
                f"saved_model can't write a {type(model.backbone).__name__} yet; it knows {', '.join(names())}. Use "
                "the exporter `preset`, which writes any model of KerasHub's."
            )
        if not isinstance(model.tokenizer, ByteLevelBPE):
            raise ExportArgumentError(
                f"saved_model holds its tokenizer in the graph, and can only hold a ByteLevelBPE. Received: "
                f"{type(model.tokenizer).__name__}."
            )
        if find_spec("tensorflow") is None:
            raise MissingDependencyError(
                "A SavedModel is written with TensorFlow: pip install 'kerasgen[tensorflow]'.",
                package="tensorflow",
                extra="tensorflow",
            )
        shape = family.shape(model.causal_lm)
        about: dict[str, Any] = {
            "model": model.source,
            "samplers": list(self.samplers),
            "num_beams": self.num_beams,
            "length_penalty": self.length_penalty,
            "dtype": self.dtype,
            "max_sequence_length": shape.max_sequence_length,
            "tokenizer": metadata.tokenizer_settings(model.tokenizer),
        }
        with staged(path, overwrite=overwrite) as stage:
            about["signatures"] = self._save(family.weights(model.causal_lm), shape, model.tokenizer, stage)
            metadata.tokenizer_path(stage).write_text(model.tokenizer.to_tokenizer_json(), encoding="utf-8")
            write_report(stage, about, exporter="saved_model")
            drawing = [name for name in self.samplers if name not in ("greedy", "beam")]
            about["parity"] = prove_ids(
                model,
                stage,
                chunk=min(_PROBED_LENGTH, shape.max_sequence_length // 4),
                longest=shape.max_sequence_length,
                beams=self.num_beams if "beam" in self.samplers and self.length_penalty == 1 else None,
                seeded=drawing[0] if drawing else None,
                allowed_modules=_ALLOWED,
            )
            report = write_report(stage, about, exporter="saved_model")
        return Artefact(path=path, exporter="saved_model", report=report)

    def _save(self, weights: Any, shape: Any, tokenizer: Any, path: Path) -> list[str]:
        import tensorflow as tf

        from kerasgen.exporters.saved_model_graph import DecoderGraph
        from kerasgen.exporters.saved_model_signatures import TextGenerator

        decoder = DecoderGraph(weights, shape, dtype=self.dtype, pad_token_id=tokenizer.pad_token_id)
        module = TextGenerator(
            decoder,
            tokenizer,
            max_sequence_length=shape.max_sequence_length,
            num_beams=self.num_beams,
            length_penalty=float(self.length_penalty),
        )
        signatures = module.signatures(self.samplers)
        names = sorted(signatures)
        # What a server calls when nobody names a signature.
        signatures["serving_default"] = signatures[self.samplers[0]]
        tf.saved_model.save(module, str(path), signatures=signatures)
        return names
