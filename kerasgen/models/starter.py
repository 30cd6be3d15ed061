"""`Starter`: the small model that ships inside the package, so that everything works without a download."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasgen.errors import ModelUnavailableError
from kerasgen.models.base import LanguageModel, ModelSource

DIRECTORY = Path(__file__).resolve().parent / "starter_preset"
CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Starter(ModelSource):
    """Bring the GPT-2-shaped model that ships with kerasgen: a few million weights that write classical Chinese verse.

    Its model card, with its data, training figures and licence, lies beside the weights and comes as
    `metadata["model_card"]`.
    """

    def __str__(self) -> str:
        return "starter, a small model of classical Chinese verse that ships with the package"

    def about(self) -> Mapping[str, Any]:
        """Return what its model card says."""
        return {"name": "the starter of kerasgen", "license": "apache-2.0", "languages": ["zh"]}

    def load(self) -> LanguageModel:
        """Return the model with float32 weights and its tokenizer; no network is used.

        Raises:
            ModelUnavailableError: this installation lacks the model's files.
            ModelFormatError: the files are damaged.
        """
        if not (DIRECTORY / "config.json").is_file():
            raise ModelUnavailableError(
                f"The starter model is not part of this installation: no preset lies at {str(DIRECTORY)!r}. Install a "
                "released kerasgen, or name another model: a KerasHub preset such as 'gpt2_base_en', or a directory."
            )
        from kerasgen.models import loading

        card = DIRECTORY / CARD
        metadata = {"model_card": card.read_text(encoding="utf-8")} if card.is_file() else {}
        return loading.load_directory(DIRECTORY, source="starter", metadata=metadata)

    def directory(self) -> Path | None:
        """Return the directory in the package."""
        return DIRECTORY
