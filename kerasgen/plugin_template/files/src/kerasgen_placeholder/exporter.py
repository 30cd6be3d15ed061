"""An exporter of a format, and the runtime that opens it: arrays in NumPy's archive, run by NumPy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kerasgen.errors import ExportArgumentError, ModelFormatError
from kerasgen.exporters.base import Artefact, Exporter
from kerasgen.files.path_arguments import path_argument
from kerasgen.generation.config import GenerationConfig
from kerasgen.models.base import LanguageModel
from kerasgen.runtime.base import Runtime

NAME = "placeholder"  # as pyproject.toml registers the exporter


@dataclass(frozen=True)
class PlaceholderExporter(Exporter):
    """Write a model's weights as one archive of NumPy's, and prove that they generate as the model does."""

    contract_version: ClassVar[int] = 1
    suffixes: ClassVar[tuple[str, ...]] = (".placeholder",)
    runtime: ClassVar[str | None] = f"{__name__}:PlaceholderRuntime"

    def export(self, model: LanguageModel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Artefact:
        """Write beside the place, prove in a fresh process, and move what was written to its place."""
        target = path_argument(path, ExportArgumentError)
        import numpy as np
        from kerasgen.decoder import config_json, weights
        from kerasgen.exporters.parity.ids import prove_ids
        from kerasgen.exporters.staging import BESIDE, staged, write_report
        from kerasgen.exporters.validation import description_of, json_tokenizer, text_length
        from kerasgen.models.described import weights_of
        from kerasgen.runtime import metadata

        config, tokenizer = description_of(model, NAME), json_tokenizer(model, NAME)
        about: dict[str, Any] = {
            "config": config_json.to_json(config),
            "tokenizer": metadata.tokenizer_settings(tokenizer),
        }
        with staged(target, overwrite=overwrite, exporter=NAME, beside=BESIDE) as stage:
            text = metadata.tokenizer_text(tokenizer)
            metadata.tokenizer_path(stage).write_text(text, encoding="utf-8")
            with stage.open("wb") as file:
                np.savez(file, **weights.flat(weights_of(model)))
            write_report(stage, about, exporter=NAME)
            figures = prove_ids(model, stage, chunks=(8,), longest=text_length(model, None))
            report = write_report(stage, about | {"parity": figures}, exporter=NAME)
        return Artefact(path=target, exporter=NAME, report=report)


class PlaceholderRuntime(Runtime):
    """The model of an archive, which NumPy computes.

    Args:
        path: what the exporter wrote.
        description: the JSON beside it.
    """

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        import numpy as np
        from kerasgen.decoder import config_json, weights
        from kerasgen.decoder.numpy import NumpyEngine
        from kerasgen.runtime import metadata

        metadata.check_sizes(path.parent, description)
        self.tokenizer = metadata.read_tokenizer(path, description["tokenizer"])
        config = config_json.from_json(description["config"])
        with np.load(path) as written:
            arrays = {name: written[name] for name in written.files}
        if {name: array.shape for name, array in arrays.items()} != weights.shapes(config):
            raise ModelFormatError(f"{path} holds other arrays than its JSON says. Export it again.")
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
