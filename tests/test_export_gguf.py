"""A GGUF file holds the model under llama.cpp's names."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_gpt2, tiny_opt

import kerasgen as kg
from kerasgen.exporters.gguf import read

pytestmark = pytest.mark.one_backend

gguf = pytest.importorskip("gguf")


def test_the_file_says_what_llama_cpp_asks(tmp_path):
    model = tiny_gpt2()
    kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")

    def value(key):
        return reader.fields[key].contents()

    assert value("general.architecture") == "gpt2"
    assert value("gpt2.context_length") == 128
    assert value("gpt2.block_count") == 2
    assert value("gpt2.attention.head_count") == 2
    assert value("tokenizer.ggml.model") == "gpt2"
    assert value("tokenizer.ggml.pre") == "gpt-2"
    assert value("tokenizer.ggml.add_bos_token") is True
    assert value("tokenizer.ggml.eos_token_id") == model.tokenizer.end_token_id
    assert value("tokenizer.ggml.token_type")[model.tokenizer.end_token_id] == gguf.TokenType.CONTROL
    # GGUF names the fastest axis first: a kernel from 32 to 96 features.
    shapes = {tensor.name: list(tensor.shape) for tensor in reader.tensors}
    assert shapes["blk.0.attn_qkv.weight"] == [32, 96]
    assert shapes["blk.1.ffn_down.weight"] == [64, 32]
    assert "output.weight" not in shapes


def test_float32_holds_every_weight_and_generates_the_same(tmp_path):
    model = tiny_gpt2()
    artefact = kg.GgufExporter().export(model, tmp_path / "tiny.gguf")
    weights, tokens, _ = read(artefact.path)
    np.testing.assert_array_equal(weights.token_embedding, np.asarray(model.backbone.token_embedding.embeddings))
    assert {token: token_id for token_id, token in enumerate(tokens)} == model.tokenizer.vocabulary
    assert artefact.report["parity"]["greedy_equal"]
    assert artefact.report["parity"]["weights_equal"]


def test_fewer_bits_take_less_room(tmp_path):
    model = tiny_gpt2(hidden_dim=128)
    sizes = [
        kg.GgufExporter(dtype=dtype).export(model, tmp_path / f"{dtype}.gguf").path.stat().st_size
        for dtype in ("F32", "F16", "Q8_0")
    ]
    assert sizes[1] < 0.65 * sizes[0]
    assert sizes[2] < 0.65 * sizes[1]


def test_what_llama_cpp_can_not_run_is_said_before_any_work(tmp_path):
    with pytest.raises(kg.errors.ExportArgumentError, match=r"llama\.cpp runs no OPT"):
        kg.GgufExporter().export(tiny_opt(), tmp_path / "opt.gguf")
    with pytest.raises(kg.errors.ExportArgumentError, match="32 divides"):
        kg.GgufExporter(dtype="Q8_0").export(tiny_gpt2(hidden_dim=24), tmp_path / "odd.gguf")
    with pytest.raises(kg.errors.ExportArgumentError, match="Q3_K"):
        kg.GgufExporter(dtype="Q3_K")
    assert list(tmp_path.iterdir()) == []


def test_a_cut_file_is_no_model(tmp_path):
    path = kg.GgufExporter().export(tiny_gpt2(), tmp_path / "tiny.gguf").path
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(kg.errors.ExportError, match=r"tiny\.gguf"):
        read(path)


@pytest.mark.parametrize("dtype", ["F32", "Q8_0"])
def test_the_starter_from_end_to_end(dtype, tmp_path):
    pipe = kg.Pipeline(corpus="sample", model="starter")
    parity = pipe.export(tmp_path / "starter.gguf", exporter="gguf", dtype=dtype).report["parity"]
    assert not parity["is_degenerate"]
    assert parity["greedy_equal"] or dtype != "F32"


def test_a_vocabulary_fitted_to_chinese_is_read_back(tmp_path):
    from kerasgen.tokens.bpe import ByteLevelBPE
    from kerasgen.tuners.vocabulary import adapt

    poems = [f"{a}{b}花落知多少" for a in "春夏秋冬" for b in "風雨雲月"]
    model = tiny_gpt2(400, num_layers=1, hidden_dim=16)
    assert adapt(model, lambda: poems, None, asked="extend")["first_added"] < model.tokenizer.vocabulary_size
    artefact = kg.GgufExporter().export(model, tmp_path / "poet.gguf")
    assert artefact.report["parity"]["greedy_equal"]
    weights, tokens, _ = read(artefact.path)
    assert len(weights.token_embedding) == len(tokens) == model.tokenizer.vocabulary_size
    merges = gguf.GGUFReader(artefact.path).fields["tokenizer.ggml.merges"].contents()
    again = ByteLevelBPE(
        {token: n for n, token in enumerate(tokens)},
        [tuple(merge.split(" ")) for merge in merges],
        start_token=model.tokenizer.start_token,
        end_token=model.tokenizer.end_token,
        pad_token=model.tokenizer.pad_token,
    )
    for text in (*poems, "the rain, 六 🚀\n\n"):
        assert again.encode(text) == model.tokenizer.encode(text)
    assert len(again.encode("花")) == 1
