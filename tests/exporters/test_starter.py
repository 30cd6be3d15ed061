"""The starter through the formats whose other tests use tiny models: what leaves writes what the pipeline writes."""

from __future__ import annotations

from pathlib import Path

import pytest

import kerasgen as kg

pytestmark = [pytest.mark.slow, pytest.mark.one_backend]

PROMPTS = ["春", "昨夜雨疏风骤", "明月"]
GREEDILY = {"sampler": "greedy", "max_new_tokens": 48}


@pytest.fixture(scope="module")
def pipe() -> kg.Pipeline:
    return kg.Pipeline(corpus="sample", model="starter")


@pytest.mark.nightly
def test_a_preset_is_a_model_again(pipe: kg.Pipeline, tmp_path: Path) -> None:
    artefact = pipe.export(tmp_path / "poet")
    assert artefact.report["parity"]["greedy_equal"]
    again = kg.Pipeline(model=artefact.path)
    assert again.generate(PROMPTS, **GREEDILY) == pipe.generate(PROMPTS, **GREEDILY)


@pytest.mark.parametrize("quantize", ["float32", "float16"])
@pytest.mark.nightly
def test_a_tflite_file_writes_its_texts(pipe: kg.Pipeline, tmp_path: Path, quantize: str) -> None:
    pytest.importorskip("litert_quantizer", reason="the exporter is an extra: kerasgen[export]")
    artefact = pipe.export(tmp_path / "poet.tflite", quantize=quantize)
    assert not artefact.report["parity"]["is_degenerate"]
    written = [kg.load_artefact(artefact.path).generate(prompt, **GREEDILY) for prompt in PROMPTS]
    wanted = pipe.generate(PROMPTS, **GREEDILY)
    assert written == wanted or quantize == "float16"
    assert sum(one[:8] == other[:8] for one, other in zip(written, wanted, strict=True)) >= 2
