"""Tokenizers of encoders give transformers' ids, from the files in which models are published and from saved ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import pytest
from drawn_texts import drawn

from kerasgen.errors import TokenizerError
from kerasgen.models import encoders as architectures
from kerasgen.models import masked_tokenizers
from kerasgen.tokens.encoder_tokenizers import Special, word_piece
from kerasgen.tokens.pretrained import PretrainedTokenizer

pytestmark = pytest.mark.one_backend
FAMILIES = ("roberta", "bert", "distilbert", "albert", "xlm-roberta", "deberta-v2")


def read(family: str, folder: Path, *, saved: bool = False) -> Any:
    architecture = architectures.named(family)
    assert architecture is not None
    return masked_tokenizers.of_transformers(str(encoders.tokenizer_folder(family, folder, saved=saved)), architecture)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_transformers(family: str, saved: bool, tmp_path: Path) -> None:
    tokenizer = read(family, tmp_path, saved=saved)
    assert tokenizer.encode_batch(drawn(encoders.TOGETHER)) == encoders.ids_of(family)["first"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_ids_of_ten_thousand_drawn_texts_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    tokenizer = read(family, tmp_path)
    ids = tokenizer.encode_batch(drawn(encoders.TEXTS))
    parts = [ids[at : at + encoders.TOGETHER] for at in range(0, len(ids), encoders.TOGETHER)]
    assert [encoders.crc(part) for part in parts] == encoders.ids_of(family)["crc"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_in_a_text_is_the_mask_token_where_it_is_allowed(family: str, tmp_path: Path) -> None:
    tokenizer = read(family, tmp_path)
    assert tokenizer.mask_token is not None
    text = f"a b {tokenizer.mask_token} c"
    ids = tokenizer.encode_with_special(text, {tokenizer.mask_token})
    assert [tokenizer.start_token_id, *ids, tokenizer.end_token_id] == encoders.ids_of(family)["masked"]
    if tokenizer.codec.model_kind != "Unigram":  # whose vocabulary holds the mask as a piece of any text
        assert tokenizer.mask_token_id not in tokenizer.encode(text)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_tokenizer_is_the_same_one(family: str, tmp_path: Path) -> None:
    tokenizer = read(family, tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    tokenizer.save(tmp_path / "ours")
    again = PretrainedTokenizer.from_directory(tmp_path / "ours")
    assert again == tokenizer
    assert (again.mask_token_id, again.start_token_id) == (tokenizer.mask_token_id, tokenizer.start_token_id)


def test_word_pieces_decode_to_words_and_chinese_characters_without_spaces(tmp_path: Path) -> None:
    tokenizer = read("bert", tmp_path)
    text = "the river 昨夜雨 it's"
    assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == text.replace(" ", "")
    assert "昨夜雨" in tokenizer.decode(tokenizer.encode("昨夜雨"))


def test_a_vocabulary_without_a_mask_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"\[MASK\]"):
        word_piece(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], Special("[CLS]", "[SEP]", "[PAD]", "[MASK]", "[UNK]"), lowercase=True
        )
