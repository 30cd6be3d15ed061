"""Frequent characters are one token each, wherever they stand."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasgen.errors import TokenArgumentError
from kerasgen.testing.tokenizers import TokenizerContract
from kerasgen.tokens.bpe import ByteLevelBPE
from kerasgen.tokens.characters import whole_character_bpe

pytestmark = pytest.mark.one_backend

POEM = "春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。"
CHARACTERS = list("éßΩяאعअ६春夏秋冬月朋。，한글😀😁🚀𠮷𠀀")
# Neighbours of every class that GPT-2's regular expression knows, and characters that share bytes with the above.
contexts = st.text(
    st.one_of(
        st.sampled_from(
            [*CHARACTERS, *" \n\ta1!'", "\u3000", "\x00", "昦", "昤", "阿", "😂", "𠀁", "ê", "\ud83d", "\udfbf"]
        ),
        st.characters(),
    ),
    max_size=20,
)


class TestContract(TokenizerContract):
    @pytest.fixture
    def tokenizer(self) -> ByteLevelBPE:
        return whole_character_bpe([POEM, "😀é"], vocabulary_size=320, minimum_count=1)

    load = staticmethod(ByteLevelBPE.from_directory)


@settings(max_examples=1000, deadline=None)
@given(contexts)
def test_a_frequent_character_is_one_token_in_any_text(text: str) -> None:
    """The pieces that the regular expression cuts and the order of merges never take a character apart."""
    tokenizer = FREQUENT
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    counts = Counter(ids)
    for character in CHARACTERS:
        (token_id,) = tokenizer.encode(character)
        assert counts[token_id] == text.count(character)


@settings(max_examples=500, deadline=None)
@given(contexts)
def test_no_token_reaches_across_characters(text: str) -> None:
    """A text is encoded as its characters are, one by one."""
    assert FREQUENT.encode(text) == [token_id for character in text for token_id in FREQUENT.encode(character)]


FREQUENT = whole_character_bpe(["".join(CHARACTERS)], vocabulary_size=1000, minimum_count=1)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(CHARACTERS), max_size=60), st.integers(257, 330))
def test_the_more_frequent_character_wins(text: str, vocabulary_size: int) -> None:
    """Where there is no room for all, no character is one token while a more frequent one is not."""
    tokenizer = whole_character_bpe([text], vocabulary_size=vocabulary_size, minimum_count=1)
    assert tokenizer.vocabulary_size <= vocabulary_size
    counts = Counter(text)
    whole = [n for character, n in counts.items() if len(tokenizer.encode(character)) == 1]
    broken = [n for character, n in counts.items() if len(tokenizer.encode(character)) > 1]
    assert min(whole, default=len(text)) >= max(broken, default=0)
    if broken:  # the next character would need at most three ids more
        assert tokenizer.vocabulary_size > vocabulary_size - 3


def test_ids_are_gpt2s_bytes_then_merges_then_the_end_token() -> None:
    tokenizer = whole_character_bpe(["春春", "é"], vocabulary_size=300, minimum_count=1)
    assert tokenizer.encode("!") == [0]
    assert tokenizer.encode("a") == [64]
    assert tokenizer.encode(" ") == [220]
    assert tokenizer.encode("春é") == [257, 258]
    assert tokenizer.token_bytes(256) == "春".encode()[:2]
    assert tokenizer.end_token_id == tokenizer.pad_token_id == tokenizer.start_token_id == 259
    assert tokenizer.vocabulary_size == 260


def test_equally_frequent_characters_win_by_code_point_whatever_their_order() -> None:
    """The same corpus read in another order gives the same vocabulary."""
    forwards = whole_character_bpe([POEM], vocabulary_size=290, minimum_count=1)
    backwards = whole_character_bpe(reversed(POEM), vocabulary_size=290, minimum_count=1)
    assert forwards.digest() == backwards.digest()


def test_a_rare_character_falls_to_bytes() -> None:
    tokenizer = whole_character_bpe(["春春春夏夏"], vocabulary_size=300, minimum_count=3)
    assert len(tokenizer.encode("春")) == 1
    assert len(tokenizer.encode("夏")) == 3


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    with pytest.raises(TokenArgumentError, match="at least 257"):
        whole_character_bpe([POEM], vocabulary_size=256)
    assert whole_character_bpe([POEM], vocabulary_size=257).vocabulary_size == 257


def test_a_real_corpus_fits(shared_data) -> None:
    """The common characters of real Tang poems are one token each, and any poem comes back."""
    import json
    import tarfile

    with tarfile.open(shared_data / "chinese-poetry.tang.tar.xz") as archive:
        member = next(m for m in archive if "poet.tang." in m.name)
        poems = ["".join(poem["paragraphs"]) for poem in json.load(archive.extractfile(member))]
    tokenizer = whole_character_bpe(poems, vocabulary_size=4096, minimum_count=3)
    counts = Counter("".join(poems))
    assert tokenizer.vocabulary_size <= 4096
    for character, count in counts.most_common(2000):
        assert len(tokenizer.encode(character)) == 1, (character, count)
    for poem, ids in zip(poems, tokenizer.encode_batch(poems), strict=True):
        assert tokenizer.decode(ids) == poem
