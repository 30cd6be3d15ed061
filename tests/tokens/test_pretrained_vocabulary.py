"""Vocabularies of each kind fitted to texts: the library that reads the written file cuts texts as it did before."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_texts import drawn, posts

from kerasgen.errors import TokenArgumentError
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.pretrained_vocabulary import editable, extend, trim
from kerasgen.tokens.sentencepiece_codec import SentencePieceCodec
from kerasgen.tokens.vocabulary import AdaptedVocabulary, VocabularyUse, use_of

pytestmark = pytest.mark.one_backend

FAMILIES = ("qwen3", "gpt_neox", "falcon", "llama", "mistral", "phi3", "gemma", "llama_model", "gemma_model")
MADE = ("unigram_model", "unigram_model_without_bytes", "unigram_json", "llama_model_with_further")
KINDS = (*FAMILIES, *MADE)
LOSSY = ("unigram_model_without_bytes", "unigram_json")  # an unknown character is lost
POEMS = ["春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。", "白雲千里千里白雲"] * 60
ENGLISH = ["the river and the rain", " two  spaces\n\nand 123 it's", "a b c"]


def trained(**settings: Any) -> bytes:
    """A Unigram of SentencePiece with its own normalization, NFKC."""
    import sentencepiece

    written = io.BytesIO()
    lines = ["the river and the rain are here", "he ran home then", "another story of a king", "ﬁne ① Å"] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=written,
        model_type="unigram",
        character_coverage=1.0,
        hard_vocab_limit=False,
        minloglevel=2,
        user_defined_symbols=["<turn>"],
        **settings,
    )
    return written.getvalue()


def unigram_json() -> str:
    """A Unigram of `tokenizers` as T5's and XGLM's files have it, with tokens added beyond its pieces."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    rust = Tokenizer(models.Unigram())
    rust.normalizer = normalizers.NFKC()
    rust.pre_tokenizer = pre_tokenizers.Metaspace()
    rust.decoder = decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    rust.train_from_iterator([*ENGLISH * 20, "he ran home then" * 10, *posts_or_none()], trainer)
    rust.add_special_tokens([AddedToken("<turn>", special=True, normalized=False)])
    rust.add_tokens([AddedToken("<think>", normalized=False)])
    return str(rust.to_str())


def posts_or_none() -> Iterable[str]:
    return ["once upon a time there was a king who ruled over the land"] * 20


@pytest.fixture(scope="module")
def tokenizer_of(families: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], PretrainedTokenizer]:
    place = tmp_path_factory.mktemp("kinds")
    ends = {"eos_token": "</s>"}
    made: dict[str, tuple[bytes, dict[str, Any]]] = {
        "unigram_model": (trained(vocab_size=330, byte_fallback=True), {"eos_token": "</s>", "bos_token": "<s>"}),
        "unigram_model_without_bytes": (trained(vocab_size=64), ends),
        "unigram_json": (unigram_json().encode(), ends),
        "llama_model_with_further": (
            (families / "llama_model" / "tokenizer.model").read_bytes(),
            {"eos_token": "<|end|>", "added_tokens_decoder": {"705": {"content": "<|end|>", "special": True}}},
        ),
    }
    for name, (content, settings) in made.items():
        (place / name).mkdir()
        file = "tokenizer.json" if name.endswith("json") else "tokenizer.model"
        (place / name / file).write_bytes(content)
        (place / name / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")

    return cache(lambda kind: PretrainedTokenizer.from_directory((place if kind in made else families) / kind))


def library_ids(tokenizer: PretrainedTokenizer, texts: list[str], directory: Path) -> list[list[int]]:
    """What the library makes of texts by the file that is written, with special tokens' names as text."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(directory)
    if isinstance(tokenizer.codec, SentencePieceCodec):
        from sentencepiece import SentencePieceProcessor

        model = SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
        return [model.encode(text, out_type=int) for text in texts]
    from tokenizers import Tokenizer

    rust = Tokenizer.from_file(str(directory / "tokenizer.json"))
    rust.encode_special_tokens = True
    return [rust.encode(text, add_special_tokens=False).ids for text in texts]


def special_stay(adapted: AdaptedVocabulary, old: PretrainedTokenizer) -> None:
    new = adapted.tokenizer
    assert isinstance(new, PretrainedTokenizer)
    assert (new.start_token, new.end_token, new.pad_token) == (old.start_token, old.end_token, old.pad_token)
    assert [adapted.sources[n][0] for n in new.end_token_ids] == list(old.end_token_ids)
    assert new.special_tokens.keys() == old.special_tokens.keys()
    assert new.added_tokens == old.added_tokens
    for name, token_id in new.special_tokens.items():
        assert adapted.sources[token_id] == (old.special_tokens[name],)
        text = f"a{name} b"
        kept = [adapted.sources[n] for n in new.encode_with_special(text, {name})]
        if all(len(parts) == 1 for parts in kept) and "a" in new.vocabulary:
            assert token_id in new.encode_with_special(text, {name})


@pytest.mark.parametrize("kind", KINDS)
def test_a_trimmed_vocabulary_cuts_its_texts_alike_and_writes_all_others(
    kind: str, tokenizer_of: Callable[[str], PretrainedTokenizer], tmp_path: Path
) -> None:
    old = tokenizer_of(kind)
    texts = [*ENGLISH, *drawn(60, [*old.special_tokens, *(token.content for token in old.added_tokens)])]
    adapted = trim(old, use_of(texts, old))
    new = adapted.tokenizer
    assert isinstance(new, PretrainedTokenizer)
    assert adapted.first_added == new.vocabulary_size < old.vocabulary_size
    assert sorted(new.vocabulary.values()) == list(range(new.vocabulary_size)) == list(range(len(adapted.sources)))
    before, after = library_ids(old, texts, tmp_path / "old"), library_ids(new, texts, tmp_path / "new")
    for text, was, found in zip(texts, before, after, strict=True):
        assert [adapted.sources[n][0] for n in found] == was, text
        assert new.encode(text) == found
        assert new.decode(found) == old.decode(was)
    for name, token_id in new.vocabulary.items():
        assert adapted.sources[token_id] == (old.vocabulary[name],)
        assert new.token_bytes(token_id) == old.token_bytes(old.vocabulary[name])
    for other in ("Zürich, 昨夜雨疏风骤 🚀", "yonder quick brown fox!"):
        assert new.decode(new.encode(other)) == old.decode(old.encode(other))
    special_stay(adapted, old)
    again = trim(new, use_of(texts, new))
    assert again.tokenizer == new


@pytest.mark.parametrize("kind", KINDS)
def test_an_extended_vocabulary_has_new_characters_and_cuts_other_texts_alike(
    kind: str, tokenizer_of: Callable[[str], PretrainedTokenizer], tmp_path: Path
) -> None:
    old = tokenizer_of(kind)
    texts = [*POEMS, *ENGLISH, *drawn(40)]
    adapted = extend(old, lambda: texts)
    new = adapted.tokenizer
    assert isinstance(new, PretrainedTokenizer)
    added = {name: n for name, n in new.vocabulary.items() if name not in old.vocabulary}
    assert added
    assert min(added.values()) == adapted.first_added
    if kind != "unigram_json":
        assert sorted(added.values()) == list(range(adapted.first_added, new.vocabulary_size))
    assert sorted(new.vocabulary.values()) == list(range(len(adapted.sources)))
    found = library_ids(new, texts, tmp_path / "new")
    assert new.encode_batch(texts) == found
    for name, token_id in new.vocabulary.items():
        if name in old.vocabulary:
            assert adapted.sources[token_id] == (old.vocabulary[name],)
        elif kind not in LOSSY:
            assert b"".join(map(old.token_bytes, adapted.sources[token_id])) == new.token_bytes(token_id)
    if kind != "falcon":  # which cuts some characters' bytes apart
        for character in set("".join(POEMS)) - set("，"):
            assert new.encode(f"{character}{character}")[-1] in {*added.values(), new.vocabulary.get(character)}
        assert use_of(POEMS, new).tokens_per_character <= 1.2
        assert len(new.encode("白雲千里")) < len(new.encode("里雲千白"))
    spelled = [new.token_bytes(token_id) for token_id in added.values()]
    normalized = editable(new).normalized
    unlike = [text for text in texts if not any(new in normalized(text).replace("▁", " ").encode() for new in spelled)]
    assert len(unlike) >= 5
    for text, was in zip(unlike, library_ids(old, unlike, tmp_path / "old"), strict=True):
        assert [adapted.sources[n][0] for n in new.encode(text)] == was
    special_stay(adapted, old)


def test_real_posts_are_cut_alike_by_the_trimmed_vocabulary(
    tokenizer_of: Callable[[str], PretrainedTokenizer], shared_data: Path, tmp_path: Path
) -> None:
    texts = posts(shared_data, 20)
    for kind in ("qwen3", "gemma", "llama_model"):
        old = tokenizer_of(kind)
        adapted = trim(old, use_of(texts, old))
        assert isinstance(adapted.tokenizer, PretrainedTokenizer)
        ids = library_ids(adapted.tokenizer, texts, tmp_path / kind)
        assert [[adapted.sources[n][0] for n in one] for one in ids] == old.encode_batch(texts)


def test_without_bytes_all_characters_stay(tokenizer_of: Callable[[str], PretrainedTokenizer]) -> None:
    for kind in LOSSY:
        old = tokenizer_of(kind)
        new = trim(old, use_of(["a"], old)).tokenizer
        single = {name for name in old.vocabulary if len(name) == 1}
        assert len(single) > 15
        assert single <= new.vocabulary.keys()


def test_transformers_reads_what_extending_makes(
    tokenizer_of: Callable[[str], PretrainedTokenizer], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    for kind in ("qwen3", "gemma", "phi3", "unigram_json"):
        new = extend(tokenizer_of(kind), lambda: [*POEMS, *ENGLISH]).tokenizer
        (tmp_path / kind).mkdir()
        new.save(tmp_path / kind)
        theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / kind, split_special_tokens=True)
        start = [] if new.start_token_id is None else [new.start_token_id]
        for text in (POEMS[0], *ENGLISH):
            assert theirs(text)["input_ids"] == [*start, *new.encode(text)]


def test_what_can_not_be_changed_is_named(tokenizer_of: Callable[[str], PretrainedTokenizer], tmp_path: Path) -> None:
    old = tokenizer_of("qwen3")
    with pytest.raises(TokenArgumentError, match="Count it"):
        trim(old, VocabularyUse(np.zeros(3, np.int64), 0))
    content = json.loads(old.to_tokenizer_json())
    content["model"]["end_of_word_suffix"] = "</w>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}', encoding="utf-8")
    with pytest.raises(TokenArgumentError, match="end_of_word_suffix='</w>' can't be changed"):
        extend(PretrainedTokenizer.from_directory(tmp_path), lambda: POEMS)
    words = io.BytesIO()
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH * 9), model_writer=words, model_type="char", vocab_size=20, minloglevel=2
    )
    codec = SentencePieceCodec(words.getvalue(), tmp_path / "tokenizer.model")
    with pytest.raises(TokenArgumentError, match="of the kind 'char' can't be changed"):
        editable(PretrainedTokenizer(codec, end_tokens=["</s>"]))


def test_names_of_special_tokens_stay_text(tokenizer_of: Callable[[str], PretrainedTokenizer]) -> None:
    """A name that the changed file holds in its vocabulary is still found only where it is allowed."""
    old = tokenizer_of("qwen3")
    new = extend(old, lambda: POEMS).tokenizer
    assert new.vocabulary["<|im_start|>"] not in new.encode("<|im_start|>user")
    assert new.encode_with_special("<|im_start|>", "all") == [new.vocabulary["<|im_start|>"]]
