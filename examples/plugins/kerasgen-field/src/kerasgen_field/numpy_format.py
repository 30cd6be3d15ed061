"""`numpy`: a safetensors file that NumPy alone runs, and the runtime that opens it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from kerasgen.errors import ExportArgumentError, ModelFormatError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig
from kerasgen.models.base import LanguageModel
from kerasgen.runtime.base import Runtime

NAME = "numpy"


@dataclass(frozen=True)
class NumpyExporter(Exporter):
    """Write any model that kerasgen describes as one safetensors file, and prove it in a fresh process.

    Where weights are rounded to 16 bits, the proof holds the file to the rounded model, and tells whether the texts are
    still those of the model itself.

    Args:
        dtype: of the weights in the file; they are computed with in 32 bits.
    """

    contract_version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".numpy.safetensors",)
    runtime: ClassVar[str | None] = f"{__name__}:NumpyRuntime"

    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16"):
            raise ExportArgumentError(f"dtype must be 'float32' or 'float16'. Received: dtype={self.dtype!r}.")

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write beside the place, prove in a fresh process, and move what was written to its place."""
        target = path_argument(path, ExportArgumentError)
        import numpy as np
        from kerasgen.decoder import config_json, numpy, weights
        from kerasgen.exporters.parity.ids import prove_ids
        from kerasgen.exporters.staging import BESIDE, staged, write_report
        from kerasgen.exporters.validation import description_of, json_tokenizer, text_length
        from kerasgen.models.described import weights_of
        from kerasgen.runtime import metadata
        from safetensors.numpy import save_file

        config, tokenizer = description_of(model, NAME), json_tokenizer(model, NAME)
        arrays = {name: np.asarray(array, self.dtype) for name, array in weights.flat(weights_of(model)).items()}
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ExportArgumentError("A weight is infinite in 16 bits. Export with dtype='float32'.")
        rounded = None
        if self.dtype == "float16":
            held = {name: array.astype(np.float32) for name, array in arrays.items()}
            rounded = numpy.reader(config, weights.nested(held), tokenizer.vocabulary_size)
        about: dict[str, Any] = {
            "config": config_json.to_json(config),
            "dtype": self.dtype,
            "tokenizer": metadata.tokenizer_settings(tokenizer),
        }
        with staged(target, overwrite=overwrite, exporter=NAME, beside=BESIDE) as stage:
            text = metadata.tokenizer_text(tokenizer)
            metadata.tokenizer_path(stage).write_text(text, encoding="utf-8")
            save_file(arrays, stage)
            write_report(stage, about, exporter=NAME)
            longest = text_length(model, None)
            figures = prove_ids(model, stage, chunks=(8,), longest=longest, rounded=rounded)
            report = write_report(stage, about | {"parity": figures}, exporter=NAME)
        return Artefact(path=target, exporter=NAME, report=report)


class NumpyRuntime(Runtime):
    """The model of a file, which NumPy computes: it streams, holds every sampler, and heeds constraints.

    Args:
        path: what the exporter wrote.
        description: the JSON beside it.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        import numpy as np
        from kerasgen.decoder import config_json, weights
        from kerasgen.decoder.numpy import NumpyEngine
        from kerasgen.runtime import metadata
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        metadata.check_sizes(path.parent, description)
        self.tokenizer = metadata.read_tokenizer(path, description["tokenizer"])
        config = config_json.from_json(description["config"])
        try:
            arrays = {name: array.astype(np.float32) for name, array in load_file(path).items()}
        except (OSError, SafetensorError) as cause:
            raise ModelFormatError(f"{path} is damaged: {cause}. Copy or export it again.") from cause
        if {name: array.shape for name, array in arrays.items()} != weights.shapes(config):
            raise ModelFormatError(f"{path} holds other arrays than its JSON says. Copy or export it again.")
        self.engine = NumpyEngine(config, weights.nested(arrays), self.tokenizer)
        self.max_sequence_length = self.engine.max_sequence_length

    def generate_checked(
        self, prompts: Sequence[Sequence[int]], config: GenerationConfig, *, end_token_id: int | None
    ) -> list[list[int]]:
        """Return the ids after each prompt; see `Runtime.generate_ids`."""
        from kerasgen.generation import generate_ids

        engine = self.engine if end_token_id is None else self.engine.ending_at(end_token_id)
        written = generate_ids(engine, prompts, config, logprobs=False)
        return [list(texts[0].token_ids) for texts in written]
