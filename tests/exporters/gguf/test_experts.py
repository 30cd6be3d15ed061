"""Mixtures of experts in GGUF files: llama.cpp computes what the model does, and the file is the model again."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contained import Contained
from described import CONFIGS

import kerasgen as kg
from kerasgen.decoder.config import DecoderConfig
from kerasgen.errors import ExportArgumentError
from kerasgen.models.gguf import Gguf
from kerasgen.models.gguf_file import GgufFile

pytest.importorskip("gguf")
pytestmark = pytest.mark.one_backend

AS_PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral": ("mixtral", {}),
    "qwen2_moe": ("qwen2_moe_held", {"normalize": False}),
    "qwen3_moe": ("qwen3_moe_held", {"normalize": True, "layers": ()}),
}
needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="it runs llama.cpp: pip install 'kerasgen[llamacpp]'"
)


def mixture(name: str, **changes: Any) -> DecoderConfig:
    """The description of a tiny mixture with other traits of its experts."""
    config = CONFIGS[name]
    assert config.feedforward.experts is not None
    experts = replace(config.feedforward.experts, **changes)
    return replace(config, feedforward=replace(config.feedforward, experts=experts))


def logits(model: kg.LanguageModel, ids: list[int]) -> Any:
    return np.asarray(model.network({"token_ids": np.asarray([ids]), "padding_mask": np.ones((1, len(ids)), "int32")}))


@needs_llama_cpp
@pytest.mark.slow
@pytest.mark.parametrize("name", list(AS_PUBLISHED))
def test_llama_cpp_computes_the_mixture_and_the_file_is_it_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, changes = AS_PUBLISHED[name]
    monkeypatch.setitem(CONFIGS, described, mixture(described, **changes))
    model = Contained(described).load()
    artefact = kg.GgufExporter(max_sequence_length=48).export(model, tmp_path / "x.gguf")
    found = artefact.report["parity"]["llama_cpp"]
    assert found["ids_equal"]
    assert found["same_likeliest"] == 1
    assert found["kl_nats_per_token"] < 1e-9
    again, ids = Gguf(str(artefact.path)).load(), [5, 9, 2, 7, 30, 4]
    wanted = logits(model, ids)
    size = again.tokenizer.vocabulary_size
    np.testing.assert_allclose(logits(again, ids), wanted[..., :size], atol=1e-4 * np.abs(wanted).max())


@needs_llama_cpp
@pytest.mark.slow
def test_routers_are_not_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rounded router takes other experts, so it stays float32, as llama.cpp's own quantizer leaves it."""
    wide = replace(mixture("mixtral"), hidden_dim=32)
    wide = replace(wide, feedforward=replace(wide.feedforward, intermediate_dim=64))
    wide = replace(wide, attention=replace(wide.attention, head_dim=8))
    monkeypatch.setitem(CONFIGS, "mixtral", wide)
    artefact = kg.GgufExporter(dtype="Q8_0", max_sequence_length=48).export(
        Contained("mixtral").load(), tmp_path / "x.gguf"
    )
    assert artefact.report["parity"]["llama_cpp"]["ids_equal"]
    with GgufFile(artefact.path) as file:
        kinds = {name: tensor.kind for name, tensor in file.tensors.items()}
    assert kinds["blk.0.ffn_gate_inp.weight"] == "F32"
    assert kinds["blk.0.ffn_down_exps.weight"] == "Q8_0"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen2_moe_held", {"normalize": True}, r"experts.normalize=True \(not False\)"),
        ("qwen3_moe_held", {"normalize": False, "layers": ()}, r"experts.normalize=False \(not True\)"),
        ("qwen3_moe_held", {"normalize": True}, r"layers=\(True, False\) \(not \(\)\)"),
        ("gpt_oss", {}, r"YaRN.*to whole dimensions"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_said_before_any_work(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, name, mixture(name, **changes))
    model = Contained(name).load()
    with pytest.raises(ExportArgumentError, match=message):
        kg.GgufExporter().export(model, tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [("mixtral", {}, "intermediate_dim=20"), ("qwen2_moe_held", {"normalize": False}, "shared_dim of an expert=16")],
)
def test_blocks_need_widths_of_experts_that_they_divide(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, name, mixture(name, **changes))
    with pytest.raises(ExportArgumentError, match=message):
        kg.GgufExporter(dtype="Q8_0").export(Contained(name).load(), tmp_path / "x.gguf")
