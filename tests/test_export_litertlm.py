"""A LiteRT-LM bundle generates the model's text in LiteRT-LM itself."""

from __future__ import annotations

import pytest
from tiny import tiny_gpt2

import kerasgen as kg

pytestmark = pytest.mark.one_backend


def test_a_wrong_setting_is_said_at_once():
    with pytest.raises(kg.errors.ExportArgumentError, match="int3"):
        kg.LiteRtLmExporter(quantize="int3")


@pytest.mark.slow
def test_the_starter_from_end_to_end(tmp_path):
    for package in ("litert_lm", "litert_lm_builder", "ai_edge_litert", "tensorflow"):
        pytest.importorskip(package)
    model = kg.Pipeline(corpus="sample", model="starter").model
    path = tmp_path / "poet.litertlm"
    artefact = kg.LiteRtLmExporter().export(model, path)
    assert artefact.report["parity"]["text_equal"]
    assert not artefact.report["parity"]["is_degenerate"]
    assert artefact.report["parity"]["modules"] == []
    names = {entry.name for entry in tmp_path.iterdir()}
    assert names == {path.name, f"{path.name}.json", f"{path.name}.md", f"{path.name}.tokenizer.json"}
    tokenizer = tmp_path / f"{path.name}.tokenizer.json"
    whole = tokenizer.read_text(encoding="utf-8")
    tokenizer.write_text(tiny_gpt2().tokenizer.to_tokenizer_json(), encoding="utf-8")
    with pytest.raises(kg.errors.ModelFormatError, match="not the tokenizer"):
        kg.load_artefact(path)
    tokenizer.write_text(whole, encoding="utf-8")
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(kg.errors.ModelFormatError, match="cut off"):
        kg.load_artefact(path)


@pytest.mark.slow
def test_a_vocabulary_fitted_to_chinese_is_read_by_litert_lm(tmp_path):
    """A fresh process of its own engine writes the model's text, from the adapted vocabulary and merges."""
    for package in ("litert_lm", "litert_lm_builder", "ai_edge_litert", "tensorflow"):
        pytest.importorskip(package)
    from kerasgen.tuners.vocabulary import adapt

    poems = [f"{a}{b}花落知多少" for a in "春夏秋冬" for b in "風雨雲月"]
    model = tiny_gpt2(400, num_layers=1, hidden_dim=32, max_sequence_length=64)
    adapt(model, lambda: poems, None, asked="extend")
    artefact = kg.LiteRtLmExporter().export(model, tmp_path / "poet.litertlm")
    assert artefact.report["parity"]["text_equal"]
    assert kg.load_artefact(artefact.path).tokenizer.digest() == model.tokenizer.digest()
