"""A Llama goes to a transformers directory and comes back, with transformers' own logits and ids."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import byte_level
import numpy as np
import pytest
from llamas import LONGEST, TOKENS, llama

import kerasgen as kg
from kerasgen.exporters.transformers import exporter as transformers
from kerasgen.exporters.validation import byte_level as as_byte_level
from kerasgen.models import transformers_tokenizers
from kerasgen.models.base import CHAT_TEMPLATE, SPECIAL_TOKENS
from kerasgen.models.loading import load_directory


@pytest.fixture
def without_transformers(monkeypatch):
    monkeypatch.setattr(transformers, "_prove_in_transformers", lambda *arguments: None)


@pytest.mark.one_backend
@pytest.mark.nightly
def test_what_was_written_reads_back_equal(tmp_path, without_transformers) -> None:
    model = llama("llama3")
    model = replace(model, metadata={**model.metadata, CHAT_TEMPLATE: "{{ messages }}\n"})
    artefact = kg.TransformersExporter().export(model, tmp_path / "hf")
    assert artefact.report["parity"]["greedy_equal"]
    written = load_directory(artefact.path, source="test")
    assert written.tokenizer == model.tokenizer
    special = {"bos_token": "<|begin_of_text|>"}
    special |= dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|end_of_text|>")
    assert written.metadata == {**model.metadata, SPECIAL_TOKENS: special}
    for said, template in (
        ([{"name": "tools", "template": "x"}, {"name": "default", "template": "y"}], "y"),
        (3, None),
    ):
        place = artefact.path / "tokenizer_config.json"
        settings = {**json.loads(place.read_text(encoding="utf-8")), "chat_template": said}
        place.write_text(json.dumps(settings), encoding="utf-8")
        assert transformers_tokenizers.chat_template(str(artefact.path)) == template
    (artefact.path / "chat_template.jinja").write_text("春\n", encoding="utf-8")
    assert transformers_tokenizers.chat_template(str(artefact.path)) == "春\n"
    # `tests/support/write_llama_logits.py` has let transformers read such a directory.
    theirs = np.load(Path(__file__).parent / "llama_logits.npy")
    assert theirs.std() > 1
    inputs = {"token_ids": np.asarray([TOKENS]), "padding_mask": np.ones((1, len(TOKENS)), "int32")}
    for one in (written, model):
        logits = np.asarray(one.causal_lm(inputs))[0, :, ::8]
        np.testing.assert_allclose(logits, theirs, atol=2e-4 * np.abs(theirs).max())
    said = json.loads((artefact.path / "config.json").read_text(encoding="utf-8"))
    assert said["max_position_embeddings"] == LONGEST
    assert (said["rms_norm_eps"], said["rope_theta"], said["tie_word_embeddings"]) == (1e-4, 1000.0, False)
    assert said["rope_scaling"]["rope_type"] == "llama3"


# A model with a head of its own and one without. What the other vocabularies cut, `test_pretokenization.py` compares
# with the tokenizers library, and that halves are written as such, `test_exporter.py` shows of GPT-2.
SLOW = [("llama3", "float32"), ("smollm2", "float32")]
NIGHTLY = [
    ("llama3", "bfloat16"),
    *((kind, "float32") for kind in byte_level.KINDS if kind not in ("llama3", "smollm2")),
]


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
        *(pytest.param(*case, marks=pytest.mark.nightly) for case in NIGHTLY),
    ],
)
@pytest.mark.essential
def test_transformers_has_the_ids_and_the_logits(kind: str, dtype, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("transformers")
    model = llama(kind, tied=kind == "smollm2")
    artefact = kg.TransformersExporter(dtype=dtype, max_sequence_length=128).export(model, tmp_path / "hf")
    found = artefact.report["parity"]["transformers"]
    for name in ("ids_equal", "text_equal", "greedy_equal", "alone_equal", "together_equal"):
        assert found[name]
    theirs = library.AutoModelForCausalLM.from_pretrained(artefact.path).float().eval()
    assert theirs.config.max_position_embeddings == 128
    written = load_directory(artefact.path, source="test")
    own = as_byte_level(written.tokenizer)
    assert own is not None
    assert own == model.tokenizer
    ids = np.random.default_rng(0).integers(0, 390, (1, 100))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(ids)).logits.numpy()
    assert expected.std() > 1
    logits = np.asarray(written.causal_lm({"token_ids": ids, "padding_mask": np.ones_like(ids)}))
    np.testing.assert_allclose(logits, expected, atol=2e-4 * np.abs(expected).max())
