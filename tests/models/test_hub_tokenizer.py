"""Tokenizers of KerasHub families other than GPT-2 and OPT, made small, keep the contract of the exact tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_texts import drawn
from hub_tokenizers import LLAMA3_SPECIAL, SENTENCES, gemma_tokenizer, keras_hub, llama3_tokenizer
from tiny import byte_symbols, roughen, undrawn
from tokenizers import Tokenizer as RustTokenizer

from kerasgen.errors import ModelFormatError
from kerasgen.models.base import LanguageModel
from kerasgen.models.hub import Hub
from kerasgen.models.hub_tokenizer import KerasHubTokenizer
from kerasgen.models.saving import save_preset
from kerasgen.testing.models import ModelContract
from kerasgen.testing.tokenizers import TokenizerContract

pytestmark = pytest.mark.one_backend


class TestByteLevelTokens(TokenizerContract):
    @pytest.fixture
    def tokenizer(self) -> KerasHubTokenizer:
        return KerasHubTokenizer(llama3_tokenizer())

    def load(self, directory: Path) -> KerasHubTokenizer:
        return KerasHubTokenizer.from_directory(directory)


class TestSentencePieceFamily(TokenizerContract):
    lossless = False  # a lone surrogate becomes U+FFFD

    @pytest.fixture
    def tokenizer(self) -> KerasHubTokenizer:
        return KerasHubTokenizer(gemma_tokenizer())

    def load(self, directory: Path) -> KerasHubTokenizer:
        return KerasHubTokenizer.from_directory(directory)


def saved(causal_lm: Any, tokenizer: Any, directory: Path, *, seed: int) -> Hub:
    """The preset of a model whose weights are drawn from the seed."""
    roughen(causal_lm.backbone, seed)
    model = LanguageModel(causal_lm, KerasHubTokenizer(tokenizer), source=f"a tiny {type(causal_lm).__name__}")
    return Hub(str(save_preset(model, directory / "preset")))


@pytest.fixture(scope="module")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    models = keras_hub().models
    with undrawn():
        backbone = models.Llama3Backbone(
            vocabulary_size=300,
            num_layers=2,
            num_query_heads=4,
            num_key_value_heads=2,
            hidden_dim=16,
            intermediate_dim=32,
            dtype="float32",
        )
    causal_lm = models.Llama3CausalLM(backbone=backbone, preprocessor=None)
    return saved(causal_lm, llama3_tokenizer(), tmp_path_factory.mktemp("llama3"), seed=1)


class TestLlama3FromDisk(ModelContract):
    @pytest.fixture
    def source(self, llama3: Hub) -> Hub:
        return llama3

    def test_rotary_positions_have_no_limit(self, model: LanguageModel) -> None:
        assert model.max_sequence_length is None


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    models = keras_hub().models
    with undrawn():
        backbone = models.GemmaBackbone(
            vocabulary_size=340,
            num_layers=2,
            num_query_heads=2,
            num_key_value_heads=1,
            hidden_dim=16,
            intermediate_dim=32,
            head_dim=8,
            dtype="float32",
        )
    causal_lm = models.GemmaCausalLM(backbone=backbone, preprocessor=None)
    return saved(causal_lm, gemma_tokenizer(), tmp_path_factory.mktemp("gemma"), seed=2)


class TestGemmaFromDisk(ModelContract):
    @pytest.fixture
    def source(self, gemma: Hub) -> Hub:
        return gemma


@pytest.mark.parametrize("text", ["the spring wind", " two  spaces", "昨夜雨疏风骤", "a\n\nb", "👩🏽\u200d🚀"])
@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_sentence_piece_text_comes_back_with_and_without_an_added_space(text: str, dummy_prefix: bool) -> None:
    """Llama 2 puts a space before every text and Gemma does not; neither shows it to the reader."""
    tokenizer = KerasHubTokenizer(gemma_tokenizer(dummy_prefix=dummy_prefix))
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([tokenizer.start_token_id, *ids], skip_special_tokens=True) == text
    decoder = tokenizer.decoder()
    assert "".join(map(decoder.push, ids)) + decoder.finish() == text


def test_sentence_piece_ids_are_the_library_s_own() -> None:
    """The adapter chooses nothing: KerasHub's Python path, which is the sentencepiece library's, gives the same ids."""
    original = gemma_tokenizer()
    adapted = KerasHubTokenizer(original)
    for text in SENTENCES:
        assert adapted.encode(text) == np.asarray(original(text)).tolist()


def test_llama3_ids_are_keras_hub_s_on_plain_text() -> None:
    """Both cut as Llama 3's own tokenizer does; they differ only where a text holds a special token's name."""
    original = llama3_tokenizer()
    adapted = KerasHubTokenizer(original)
    for text in ("the other hand and the moon", "in 12345 days\n\nthe rain", "春 42"):
        assert adapted.encode(text) == np.asarray(original(text)).tolist()


def test_llama3_cuts_numbers_by_three_and_qwen_by_one() -> None:
    """The merge of two digits is reachable where a family keeps digits together, and nowhere else."""
    symbols = byte_symbols()
    tokens = [*symbols, "12", *LLAMA3_SPECIAL, "<|endoftext|>"]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    tokenizers = keras_hub().tokenizers
    llama = KerasHubTokenizer(tokenizers.Llama3Tokenizer(vocabulary=vocabulary, merges=["1 2"]))
    qwen = KerasHubTokenizer(tokenizers.QwenTokenizer(vocabulary=vocabulary, merges=["1 2"]))
    assert llama.encode("12") == [vocabulary["12"]]
    assert qwen.encode("12") == [vocabulary["1"], vocabulary["2"]]
    assert qwen.start_token_id is None
    assert llama.digest() != qwen.digest()


@pytest.mark.parametrize(
    ("family", "kind"),
    [("bloom", "Bloom"), ("falcon", "Falcon"), ("gpt_neox", "GPTNeoX"), ("qwen3", "Qwen")],
)
def test_a_family_cuts_as_its_published_tokenizer_does(family: str, kind: str, families: Path) -> None:
    """Which a KerasHub preset does not say: only the class does."""
    file = families / family / "tokenizer.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = dict(found["model"]["vocab"])
    vocabulary |= {entry["content"]: entry["id"] for entry in found["added_tokens"]}
    merges = [" ".join(pair) for pair in found["model"]["merges"]]
    made = getattr(keras_hub().tokenizers, f"{kind}Tokenizer")(vocabulary=vocabulary, merges=merges)
    rust = RustTokenizer.from_file(str(file))
    rust.encode_special_tokens = True
    added = [entry["content"] for entry in found["added_tokens"] if not entry["special"]]  # which KerasHub doesn't find
    texts = [text for text in drawn(200) if not any(token in text for token in added)]
    assert len(texts) > 30
    expected = [encoding.ids for encoding in rust.encode_batch(texts, add_special_tokens=False)]
    tokenizer = KerasHubTokenizer(made)
    assert tokenizer.encode_batch(texts) == expected
    pretrained = tokenizer.as_pretrained()  # which exporters write
    assert pretrained.encode_batch(texts) == expected
    assert pretrained.end_token_ids == tokenizer.end_token_ids
    assert pretrained.special_tokens == tokenizer.special_tokens


def test_a_byte_that_a_vocabulary_lacks_is_left_out() -> None:
    """As the tokenizers library and llama.cpp do: SmolLM2's lacks bytes that no text has."""
    vocabulary = {token: n for n, token in enumerate(["a", "b", "ab", *LLAMA3_SPECIAL])}
    incomplete = KerasHubTokenizer(keras_hub().tokenizers.Llama3Tokenizer(vocabulary=vocabulary, merges=["a b"]))
    assert incomplete.encode("abc a") == [2, 0]


@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_what_goes_on_a_text_keeps_its_first_space(dummy_prefix: bool) -> None:
    tokenizer = KerasHubTokenizer(gemma_tokenizer(dummy_prefix=dummy_prefix))
    prompt, whole = tokenizer.encode("the"), tokenizer.encode("the moon 昨")
    assert whole[: len(prompt)] == prompt
    decoder = tokenizer.continuation_decoder(skip_special_tokens=True)
    assert "".join(map(decoder.push, whole[len(prompt) :])) + decoder.finish() == " moon 昨"


def test_a_word_piece_tokenizer_is_refused() -> None:
    """It can't say which bytes a token stands for."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    with pytest.raises(ModelFormatError, match="BertTokenizer"):
        KerasHubTokenizer(keras_hub().tokenizers.BertTokenizer(vocabulary=vocabulary))
