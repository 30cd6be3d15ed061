"""What every tokenizer must do: inherit `TokenizerContract`, say how to make yours, and run pytest."""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from pathlib import Path

import pytest

from kerasgen.errors import TokenArgumentError
from kerasgen.testing.values import renamed
from kerasgen.tokens.base import Tokenizer

AWKWARD_TEXTS = (
    "",
    " ",
    "a",
    "a\n\nb",
    "\n \n\t\t x",
    "   three spaces before, three behind   ",
    "don't, we'll, I'VE",
    "in 12345 days",
    "६ and ١٢٣ and ½",
    "昨夜雨疏风骤,浓睡不消残酒。",
    "𠮷野家",
    "한국어",
    "👩🏽\u200d🚀 and 🇳🇿",
    "e\u0301 and é",
    "\x00 NUL \x7f",
    "\ufeffBOM",
    "\ufffd and \uffff",
    "\r\n\x0b\x0c\x1c\x85\u2028\u3000",
    "א\u05b0 \u202eright to left",
    "a" * 3000,
    "\ud83d a lone surrogate",
    "\ude00\ud83d",
)
"""Texts on which tokenizers have disagreed."""


class TokenizerContract:
    """The tests that every `Tokenizer` passes.

    ```python
    class TestMine(TokenizerContract):
        @pytest.fixture
        def tokenizer(self):
            return MyTokenizer(...)

        def load(self, directory):
            return MyTokenizer.from_directory(directory)
    ```

    Attributes:
        lossless: whether any text comes back from its ids; set it to False for one that, say, normalizes.
    """

    lossless = True

    @abstractmethod
    def load(self, directory: Path) -> Tokenizer:
        """Return the tokenizer that `save` wrote to a directory."""

    @pytest.fixture
    def tokenizer(self) -> Tokenizer:
        """The tokenizer under test; override this."""
        if hasattr(self, "make_tokenizer"):
            made: Tokenizer = self.make_tokenizer()
            return made
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `tokenizer`.")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "make_tokenizer" in vars(cls):
            renamed(f"{cls.__name__}.make_tokenizer()", "a fixture `tokenizer` that returns the tokenizer")

    @pytest.mark.parametrize("text", AWKWARD_TEXTS, ids=ascii)
    def test_any_text_comes_back(self, tokenizer: Tokenizer, text: str) -> None:
        """Ids lie inside the vocabulary, are the same each time, and decode to the text that they came from."""
        ids = tokenizer.encode(text)
        assert isinstance(ids, list)
        assert all(type(n) is int and 0 <= n < tokenizer.vocabulary_size for n in ids)
        assert tokenizer.encode(text) == ids
        if self.lossless:
            assert tokenizer.decode(ids) == text

    def test_nothing_is_added_to_a_text(self, tokenizer: Tokenizer) -> None:
        """Start and end tokens are the caller's to add."""
        assert tokenizer.encode("") == []
        assert not {tokenizer.start_token_id, tokenizer.end_token_id} & set(tokenizer.encode("some text"))

    def test_a_special_tokens_name_in_a_text_stays_text(self, tokenizer: Tokenizer) -> None:
        """A document can't end itself by holding the end token's name."""
        for special in _special_ids(tokenizer):
            name = tokenizer.token_bytes(special).decode()
            ids = tokenizer.encode(f"before {name} after{name}")
            assert special not in ids
            if self.lossless:
                assert tokenizer.decode(ids, skip_special_tokens=True) == f"before {name} after{name}"

    def test_many_texts_become_what_each_becomes(self, tokenizer: Tokenizer) -> None:
        """However many threads encode a batch, its texts don't meet."""
        texts = [*AWKWARD_TEXTS, *reversed(AWKWARD_TEXTS)]
        assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
        assert tokenizer.encode_batch([]) == []

    def test_special_tokens_can_be_left_out(self, tokenizer: Tokenizer) -> None:
        """Skipping the end token leaves the text on both sides of it, joined."""
        ids = [*tokenizer.encode("one"), tokenizer.end_token_id, *tokenizer.encode("two")]
        name = tokenizer.token_bytes(tokenizer.end_token_id).decode()
        two = " two" if tokenizer.strips_first_space else "two"  # whose space is taken away at the beginning alone
        assert tokenizer.decode(ids, skip_special_tokens=True) == f"one{two}"
        assert tokenizer.decode(ids) == f"one{name}{two}"
        assert _joined(tokenizer, ids, skip_special_tokens=True) == f"one{two}"

    def test_a_special_tokens_name_becomes_it_where_that_is_allowed(self, tokenizer: Tokenizer) -> None:
        """What stands on both sides of it is encoded as the text that it is; a name that is none is refused."""
        with pytest.raises(TokenArgumentError, match="is no special token"):
            tokenizer.encode_with_special("one", {"no such token"})
        for name, token_id in tokenizer.special_tokens.items():
            for allowed in ("all", {name}):
                ids = tokenizer.encode_with_special(f"one{name}", allowed)
                assert ids == [*tokenizer.encode("one"), token_id]
            assert token_id not in tokenizer.encode_with_special(f"one{name}", set())

    def test_tokens_are_laid_beside_the_characters_that_they_begin_in(self, tokenizer: Tokenizer) -> None:
        """Scores by character rest on it."""
        text = "昨夜 in 12345 days 👩🏽"
        ids, starts = tokenizer.encode_with_starts(text)
        assert ids == tokenizer.encode(text)
        assert starts == sorted(starts)
        assert starts[0] == 0
        assert starts[-1] < len(text)

    def test_what_goes_on_a_text_keeps_its_first_space(self, tokenizer: Tokenizer) -> None:
        """A continuation is shown as it stands in the whole text."""
        whole = tokenizer.encode("one two")
        first = next(n for n in range(len(whole)) if tokenizer.decode(whole[: n + 1]) == "one")
        decoder = tokenizer.continuation_decoder()
        assert "".join(map(decoder.push, whole[first + 1 :])) + decoder.finish() == " two"

    def test_special_ids_lie_inside_the_vocabulary(self, tokenizer: Tokenizer) -> None:
        """There is an end and a padding; a start is not needed."""
        for special in _special_ids(tokenizer):
            assert 0 <= special < tokenizer.vocabulary_size

    def test_decoding_as_ids_come_gives_what_decoding_at_the_end_gives(self, tokenizer: Tokenizer) -> None:
        """For any ids, even such as no text becomes: half characters, lone continuation bytes, special tokens."""
        ids = _known_ids(tokenizer)
        rng = random.Random(0)
        for length in (1, 2, 3, 5, 8, 40) * 20:
            chosen = rng.choices(ids, k=length)
            for skip in (False, True):
                assert _joined(tokenizer, chosen, skip) == tokenizer.decode(chosen, skip_special_tokens=skip)

    @pytest.mark.parametrize("text", ["昨夜雨疏风骤", "👩🏽\u200d🚀", "naïve 𠮷"])
    def test_half_a_character_is_never_shown(self, tokenizer: Tokenizer, text: str) -> None:
        """What is shown so far is always a beginning of the text, so U+FFFD never flashes up."""
        if not self.lossless:
            pytest.skip("texts need not come back from this tokenizer")
        decoder = tokenizer.decoder()
        shown = ""
        for token_id in tokenizer.encode(text):
            shown += decoder.push(token_id)
            assert text.startswith(shown)
        assert shown == text
        assert decoder.finish() == ""

    def test_finishing_starts_anew(self, tokenizer: Tokenizer) -> None:
        """A decoder can be used for the next text, and nothing of the last is left in it."""
        decoder = tokenizer.decoder()
        whole = tokenizer.encode("é")
        for token_id in whole[:1]:
            decoder.push(token_id)
        decoder.finish()
        assert "".join(map(decoder.push, whole)) + decoder.finish() == tokenizer.decode(whole)

    def test_the_bytes_of_tokens_join_to_the_text(self, tokenizer: Tokenizer) -> None:
        """What each token stands for is all that decoding looks at."""
        ids = tokenizer.encode("昨夜 in 12345 days 👩🏽")
        spelled = b"".join(map(tokenizer.token_bytes, ids)).decode()
        assert (spelled.removeprefix(" ") if tokenizer.strips_first_space else spelled) == tokenizer.decode(ids)

    def test_an_unknown_id_is_refused(self, tokenizer: Tokenizer) -> None:
        """An id from another vocabulary is a mistake, and never decodes to some other token's text."""
        for unknown in (tokenizer.vocabulary_size, -1):
            with pytest.raises(TokenArgumentError, match=re.escape(str(unknown))):
                tokenizer.decode([unknown])
            with pytest.raises(TokenArgumentError):
                tokenizer.token_bytes(unknown)
            with pytest.raises(TokenArgumentError):
                tokenizer.decoder().push(unknown)

    def test_saved_and_loaded_it_is_the_same(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        """Its digest, special ids and every id come back from its files."""
        tokenizer.save(tmp_path)
        loaded = self.load(tmp_path)
        assert re.fullmatch("[0-9a-f]{64}", tokenizer.digest())
        assert loaded.digest() == tokenizer.digest()
        assert loaded.vocabulary_size == tokenizer.vocabulary_size
        assert _special_ids(loaded) == _special_ids(tokenizer)
        assert loaded.start_token_id == tokenizer.start_token_id
        assert loaded.encode_batch(AWKWARD_TEXTS) == tokenizer.encode_batch(AWKWARD_TEXTS)


def _special_ids(tokenizer: Tokenizer) -> list[int]:
    ids = (tokenizer.start_token_id, tokenizer.end_token_id, tokenizer.pad_token_id)
    return [token_id for token_id in ids if token_id is not None]


def _known_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids of the vocabulary, which may have holes."""
    known = []
    for token_id in range(tokenizer.vocabulary_size):
        try:
            tokenizer.token_bytes(token_id)
        except TokenArgumentError:
            continue
        known.append(token_id)
    return known


def _joined(tokenizer: Tokenizer, ids: list[int], skip_special_tokens: bool) -> str:
    decoder = tokenizer.decoder(skip_special_tokens=skip_special_tokens)
    return "".join(map(decoder.push, ids)) + decoder.finish()
