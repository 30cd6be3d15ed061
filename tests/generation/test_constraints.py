"""What must not be written is not written, whatever the sampler and wherever the tokens are cut."""

from __future__ import annotations

import pytest
from letters import shared_model
from tiny import tiny_gpt2

from kerasgen.generation import generate, generate_ids
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.bad_words import BadWords
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.sampling import Greedy, Random

pytestmark = pytest.mark.one_backend


@pytest.fixture(scope="module")
def gpt2() -> LanguageModel:
    return tiny_gpt2()


def test_a_token_is_excluded_where_it_would_complete_a_word(gpt2: LanguageModel) -> None:
    """By the bytes: inside a token, across tokens, and across bytes of one character."""
    tokenizer = gpt2.tokenizer
    words = BadWords(("the", "春"), tokenizer)
    for text in ("", "t", "xt", "th", "thx", " t", "春", "a", "th th"):
        mask = words.excluded(tokenizer.encode(text))
        for token_id in range(tokenizer.vocabulary_size):
            if token_id == tokenizer.end_token_id:
                assert not mask[token_id]
                continue
            added = tokenizer.token_bytes(token_id)
            whole = text.encode() + added
            completes = any(
                whole.find(word, max(0, len(text.encode()) - len(word) + 1)) >= 0 for word in (b"the", "春".encode())
            )
            assert mask[token_id] == completes, (text, added)
    half = tokenizer.encode("春")[:1]
    begun = b"".join(map(tokenizer.token_bytes, half))
    rest = "春".encode()[len(begun) :]
    if rest:
        assert words.excluded(half)[[tokenizer.token_bytes(n) for n in range(tokenizer.vocabulary_size)].index(rest)]


@pytest.mark.parametrize("spec", [Greedy, Random, Beam, Contrastive])
def test_no_bad_word_is_completed_not_even_one_that_the_prompt_begins(spec: type) -> None:
    model = shared_model()
    words = ("aa", "bc", "dab", "cc", "db")
    for seed in range(3):
        for prompt in ("d", "ab", "dda"):
            sampler = spec(bad_words=words)
            (text,) = generate(model, [prompt], sampler=sampler, max_new_tokens=20, seed=seed)
            assert text.startswith(prompt)
            assert not any(word in text for word in words)


def test_where_every_letter_is_bad_the_text_ends(gpt2: LanguageModel) -> None:
    model = shared_model()
    for sampler in (
        Random(bad_words=tuple("abcd")),
        Beam(bad_words=tuple("abcd")),
        Contrastive(bad_words=tuple("abcd")),
    ):
        ((found,),) = generate_ids(model, [[0]], sampler=sampler, max_new_tokens=5)
        assert found.token_ids == (4,)
        assert found.finished


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_of_the_text_is_repeated(size: int) -> None:
    model = shared_model()
    for seed in range(3):
        prompt = [0, 1, 2]
        ((found,),) = generate_ids(
            model, [prompt], sampler=Random(no_repeat_ngram_size=size), max_new_tokens=40, seed=seed
        )
        text = [*prompt, *(token for token in found.token_ids if token != 4)]
        ngrams = [tuple(text[n : n + size]) for n in range(len(text) - size + 1)]
        assert len(ngrams) == len(set(ngrams))


def test_a_repetition_penalty_writes_more_different_tokens(gpt2: LanguageModel) -> None:
    def different(penalty: float) -> int:
        sampler = Greedy(repetition_penalty=penalty)
        found = generate_ids(gpt2, [[]], sampler=sampler, max_new_tokens=60)
        return len(set(found[0][0].token_ids))

    assert different(5.0) > different(1.0)
