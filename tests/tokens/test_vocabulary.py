"""Vocabularies fitted to texts: any text still encodes, and every id is one that a text can reach."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import GPT2_END, OPT_END, OPT_PAD, tiny_vocabulary

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens import vocabulary
from kerasgen.tokens.bpe import ByteLevelBPE

LARGE, LARGE_MERGES = tiny_vocabulary(800)
TOKENIZER = ByteLevelBPE(LARGE, LARGE_MERGES, end_token=GPT2_END)
OPT_LIKE = ByteLevelBPE(
    *tiny_vocabulary(800, first=("<s>", OPT_PAD, OPT_END), last=("madeupword0000",)),
    start_token=OPT_END,
    end_token=OPT_END,
    pad_token=OPT_PAD,
)
POEMS = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。", "春風春雨春花"] * 40
ENGLISH = ["the rain and the other thing", "he ran home then", "\n\nand another one"] * 40
any_texts = st.lists(st.text(max_size=30) | st.sampled_from([*POEMS, *ENGLISH]), min_size=1, max_size=12)
tokenizers = st.sampled_from([TOKENIZER, OPT_LIKE])


def assert_sound(adapted: vocabulary.AdaptedVocabulary, old: ByteLevelBPE) -> None:
    """Ids without holes, all bytes and special tokens, every other token reached, and every row's origin known."""
    tokenizer = adapted.tokenizer
    ids = tokenizer.vocabulary
    assert sorted(ids.values()) == list(range(tokenizer.vocabulary_size))
    assert tokenizer.special_tokens.keys() == old.special_tokens.keys()
    assert {tokenizer.token_bytes(n) for n in range(len(ids)) if len(tokenizer.token_bytes(n)) == 1} == {
        bytes([byte]) for byte in range(256)
    }
    for token, token_id in ids.items():
        if token not in tokenizer.special_tokens:
            assert tokenizer.encode_symbols(token) == [token_id]
    assert len(adapted.sources) == len(ids)
    for token, token_id in ids.items():
        assert b"".join(map(old.token_bytes, adapted.sources[token_id])) == tokenizer.token_bytes(token_id)
        assert (token in old.vocabulary) == (token_id < adapted.first_added)
        assert (token in old.vocabulary) <= (adapted.sources[token_id] == (old.vocabulary.get(token),))


@settings(deadline=None, max_examples=60)
@given(any_texts, any_texts, tokenizers)
def test_trimming_keeps_the_pieces_of_its_texts_and_reads_all_others(
    texts: list[str], others: list[str], tokenizer: ByteLevelBPE
) -> None:
    adapted = vocabulary.trim(tokenizer, vocabulary.use_of(texts, tokenizer))
    assert_sound(adapted, tokenizer)
    assert adapted.first_added == adapted.tokenizer.vocabulary_size
    for text in texts:
        old, new = tokenizer.encode(text), adapted.tokenizer.encode(text)
        assert [tokenizer.token_bytes(n) for n in old] == [adapted.tokenizer.token_bytes(n) for n in new]
    for text in others:
        assert adapted.tokenizer.decode(adapted.tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=30)
@given(any_texts, any_texts, tokenizers)
def test_extending_reads_any_text(texts: list[str], others: list[str], tokenizer: ByteLevelBPE) -> None:
    adapted = vocabulary.extend(tokenizer, lambda: texts)
    assert_sound(adapted, tokenizer)
    for text in [*texts, *others]:
        assert adapted.tokenizer.decode(adapted.tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=30)
@given(any_texts)
def test_trimming_twice_is_trimming_once(texts: list[str]) -> None:
    once = vocabulary.trim(TOKENIZER, vocabulary.use_of(texts, TOKENIZER)).tokenizer
    assert vocabulary.trim(once, vocabulary.use_of(texts, once)).tokenizer == once


@pytest.mark.parametrize("tokenizer", [TOKENIZER, OPT_LIKE], ids=["gpt2", "opt"])
def test_each_frequent_character_is_one_token_in_any_text(tokenizer: ByteLevelBPE) -> None:
    adapted = vocabulary.extend(tokenizer, lambda: POEMS).tokenizer
    for character in set("".join(POEMS)):
        assert len(adapted.encode(character)) == 1
    assert len(adapted.encode("a 眠x曉!少")) == len("a 眠x曉!少")
    assert vocabulary.use_of(POEMS, adapted).tokens_per_character <= 1.0
    assert vocabulary.use_of(POEMS, tokenizer).tokens_per_character > 1.5


def test_frequent_neighbours_become_one_piece() -> None:
    lines = ["白雲千里", "千里白雲", "白雲"] * 100
    adapted = vocabulary.extend(TOKENIZER, lambda: lines).tokenizer
    assert len(adapted.encode("白雲")) == 1
    assert len(adapted.encode("里白")) == 2


def test_special_tokens_of_opt_keep_their_ids_and_unused_words_go() -> None:
    adapted = vocabulary.trim(OPT_LIKE, vocabulary.use_of(ENGLISH, OPT_LIKE)).tokenizer
    assert {name: adapted.vocabulary[name] for name in ("<s>", OPT_PAD, OPT_END)} == {"<s>": 0, OPT_PAD: 1, OPT_END: 2}
    assert (adapted.start_token, adapted.end_token, adapted.pad_token) == (OPT_END, OPT_END, OPT_PAD)
    assert "madeupword0000" not in adapted.vocabulary


def test_the_use_of_ids_is_counted() -> None:
    use = vocabulary.use_of(ENGLISH, TOKENIZER)
    ids = [n for text in ENGLISH for n in TOKENIZER.encode(text)]
    np.testing.assert_array_equal(use.counts, np.bincount(ids, minlength=TOKENIZER.vocabulary_size))
    assert use.characters == sum(map(len, ENGLISH))
    assert use.used == len(set(ids))


def test_counts_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(TokenArgumentError, match="Count it"):
        vocabulary.trim(TOKENIZER, vocabulary.VocabularyUse(np.zeros(3, np.int64), 0))


def test_keras_hub_reads_what_extending_makes() -> None:
    """Its eager tokenizer, on texts without the blank lines that it reads in its own way."""
    import keras_hub

    adapted = vocabulary.extend(TOKENIZER, lambda: POEMS).tokenizer
    theirs = keras_hub.tokenizers.GPT2Tokenizer(vocabulary=adapted.vocabulary, merges=adapted.merges)
    for text in (POEMS[0], "花落 and the rain", "眠x曉"):
        assert [int(n) for n in np.asarray(theirs(text))] == adapted.encode(text)


@pytest.mark.slow
def test_transformers_reads_what_trimming_and_extending_make(tmp_path) -> None:  # type: ignore[no-untyped-def]
    transformers = pytest.importorskip("transformers")
    for name, adapted in (
        ("trim", vocabulary.trim(TOKENIZER, vocabulary.use_of(ENGLISH, TOKENIZER))),
        ("extend", vocabulary.extend(TOKENIZER, lambda: POEMS)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        adapted.tokenizer.save(folder)
        (folder / "tokenizer.json").write_text(adapted.tokenizer.to_tokenizer_json(), encoding="utf-8")
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        for text in (*POEMS[:3], *ENGLISH[:3], "眠x曉 ñ 😀"):
            assert theirs(text)["input_ids"] == adapted.tokenizer.encode(text)
        # The `tokenizer.json` puts no start token before a text, as GPT-2's own doesn't.
        read = ByteLevelBPE.from_directory(folder, start_token=adapted.tokenizer.start_token)
        assert read == adapted.tokenizer
