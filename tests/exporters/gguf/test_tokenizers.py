"""The tokenizer of each family in a GGUF file: llama.cpp, reading it, gives the ids of the family's own file."""

from __future__ import annotations

import importlib.util
import json
import logging
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from described import CONFIGS
from described import drawn as weights_of
from drawn_texts import drawn, posts
from tiny import tiny_llama

import kerasgen as kg
from kerasgen.errors import ExportArgumentError
from kerasgen.exporters.gguf import file_format
from kerasgen.models import architectures, gguf_tokenizer_writing
from kerasgen.tokens import tokenizer_json
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.json_codec import JsonCodec
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.pretrained_vocabulary import extend, trim
from kerasgen.tokens.vocabulary import use_of

pytest.importorskip("gguf")
pytestmark = pytest.mark.one_backend

FAMILIES = ("qwen3", "gpt_neox", "bloom", "llama", "mistral", "phi3", "gemma", "llama_model", "gemma_model", "smollm3")
AT_ONCE = ("qwen3", "gemma", "smollm3")
POEMS = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。"] * 60
needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="it runs llama.cpp: pip install 'kerasgen[llamacpp]'"
)


def tokenizer_of(directory: Path) -> Any:
    file = directory / "tokenizer.json"
    if file.is_file() and tokenizer_json.is_byte_level(file):
        return ByteLevelBPE.from_directory(directory)
    return PretrainedTokenizer.from_directory(directory)


def changed(tokenizer: PretrainedTokenizer, **changes: Any) -> PretrainedTokenizer:
    content = json.dumps({**json.loads(tokenizer.to_tokenizer_json()), **changes})
    return PretrainedTokenizer(JsonCodec(content, Path("tokenizer.json")), end_tokens=[tokenizer.end_token])


def is_llama_cpp_s(tokenizer: Any, texts: list[str], path: Path) -> None:
    """Write a file of a tiny Llama with this tokenizer, and compare what it gives there and here."""
    from kerasgen.exporters.gguf.server import LlamaCpp

    written = gguf_tokenizer_writing.of(tokenizer)
    config = replace(CONFIGS["llama"], vocabulary_size=tokenizer.vocabulary_size, max_sequence_length=64)
    architecture = architectures.named("llama")
    assert architecture is not None
    file_format.write(path, architecture, config, weights_of(config), written.tokenizer, dtype="F32")
    again = file_format.read(path)[3].tokenizer()
    server = LlamaCpp(str(path), longest=64, texts=1, threads=1)
    before = " " if tokenizer.strips_first_space else ""
    for text in map(written.normalize, texts):
        ids = tokenizer.encode(text)
        assert server.tokenize(text, start=False) == ids, text
        assert again.encode(text) == ids, text
        assert server.detokenize(ids).removeprefix(before) == tokenizer.decode(ids), text


@needs_llama_cpp
@pytest.mark.parametrize("family", [pytest.param(f, marks=[] if f in AT_ONCE else pytest.mark.slow) for f in FAMILIES])
def test_llama_cpp_gives_the_ids_of_the_family_s_file(family: str, families: Path, tmp_path: Path) -> None:
    texts = [text for text in drawn(300) if "\0" not in text]
    if family == "gemma_model":  # its pieces of blanks are user-defined, as `differences` says
        texts = [text for text in texts if "▁" not in text]
    is_llama_cpp_s(tokenizer_of(families / family), texts, tmp_path / "x.gguf")


@needs_llama_cpp
@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gemma", "llama_model"])
def test_llama_cpp_gives_real_posts_the_ids_of_the_family_s_file(
    family: str, families: Path, tmp_path: Path, shared_data: Path
) -> None:
    is_llama_cpp_s(tokenizer_of(families / family), posts(shared_data), tmp_path / "x.gguf")


@needs_llama_cpp
@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gemma", "llama", "gemma_model"])
@pytest.mark.parametrize("change", ["trim", "extend"])
def test_llama_cpp_reads_a_changed_vocabulary(family: str, change: str, families: Path, tmp_path: Path) -> None:
    old = tokenizer_of(families / family)
    texts = [*POEMS, "the river and the rain, 12", *(text for text in drawn(40) if not {"\0", "▁"} & set(text))]
    adapted = trim(old, use_of(texts, old)) if change == "trim" else extend(old, lambda: texts)
    is_llama_cpp_s(adapted.tokenizer, [*texts[-41:], *POEMS[:2], "yonder 🚀"], tmp_path / "x.gguf")


def test_what_llama_cpp_does_otherwise_is_told(families: Path) -> None:
    found = gguf_tokenizer_writing.of(tokenizer_of(families / "qwen3"))
    assert "does not bring a text into the form NFC" in found.differences[0]
    assert found.normalize("e\u0301") == "é"
    assert found.tokenizer.encode("e\u0301") != tokenizer_of(families / "qwen3").encode("e\u0301")
    assert (
        "leaves blanks beside special tokens"
        in gguf_tokenizer_writing.of(tokenizer_of(families / "phi3")).differences[0]
    )
    assert not gguf_tokenizer_writing.of(tokenizer_of(families / "gemma")).differences


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("falcon", {}, "Only byte-level BPE that cuts text by one regular expression"),
        ("qwen3", {"normalizer": {"type": "NFKC"}}, r"llama\.cpp normalizes no text, and it does \(NFKC\)"),
        ("gemma", {"normalizer": {"type": "NFC"}}, r"normalizes \(NFC\)"),
        ("gemma", {"pre_tokenizer": {"type": "Digits", "individual_digits": True}}, r"cuts \(Digits\)"),
    ],
)
def test_what_llama_cpp_has_not_is_refused(family: str, changes: dict[str, Any], said: str, families: Path) -> None:
    tokenizer = tokenizer_of(families / family)
    with pytest.raises(ExportArgumentError, match=said):
        gguf_tokenizer_writing.of(changed(tokenizer, **changes) if changes else tokenizer)


def test_merges_that_no_scores_give_are_refused(families: Path) -> None:
    tokenizer = tokenizer_of(families / "gemma")
    model = json.loads(tokenizer.to_tokenizer_json())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    by_piece: dict[str, list[tuple[str, str]]] = {}
    for merge in merges:
        by_piece.setdefault("".join(merge), []).append(merge)
    several = next(found for found in by_piece.values() if len(found) > 1)
    fewer = [merge for merge in merges if merge != several[-1]]
    with pytest.raises(ExportArgumentError, match="Not all pairs of pieces that make"):
        gguf_tokenizer_writing.of(changed(tokenizer, model={**model, "merges": fewer}))
    with pytest.raises(ExportArgumentError, match="in an order that no scores of pieces give"):
        gguf_tokenizer_writing.of(changed(tokenizer, model={**model, "merges": [*fewer, several[-1]]}))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gemma"])
def test_an_exported_model_says_what_differs(
    family: str, families: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = tokenizer_of(families / family)
    model = replace(tiny_llama(tokenizer.vocabulary_size, num_layers=1), tokenizer=tokenizer)
    with caplog.at_level(logging.WARNING):
        artefact = kg.GgufExporter(max_sequence_length=64).export(model, tmp_path / "x.gguf")
    assert artefact.report["parity"]["ids_equal"]
    assert ("NFC" in caplog.text) == (family == "qwen3") == ("tokenizer_differences" in artefact.report)
    text = unicodedata.normalize("NFC", "the river é")
    assert artefact.runtime.tokenizer.encode(text) == tokenizer.encode(text)
