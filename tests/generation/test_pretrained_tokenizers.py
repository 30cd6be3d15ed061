"""A model over a tokenizer that is no byte-level BPE of one cut: scores, texts, streams, forms and special tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hub_tokenizers import sentence_piece_proto
from tiny import tiny_gpt2

import kerasgen as kg
from kerasgen.errors import GenerateArgumentError
from kerasgen.evaluation.perplexity import score_texts
from kerasgen.generation import generate, stream
from kerasgen.generation.encoding import encode_prompts
from kerasgen.models.base import LanguageModel
from kerasgen.models.loading import load_directory
from kerasgen.models.saving import save_preset
from kerasgen.tokens.pretrained import PretrainedTokenizer
from kerasgen.tokens.sentencepiece_codec import SentencePieceCodec

ENDS = (1, 3)  # `<eos>` and `<unk>`


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Random weights over a SentencePiece model that puts a space before a text and falls back to bytes."""
    codec = SentencePieceCodec(sentence_piece_proto(dummy_prefix=True), Path("tokenizer.model"))
    tokenizer = PretrainedTokenizer(codec, end_tokens=["<eos>", "<unk>"], start_token="<bos>")
    return replace(tiny_gpt2(tokenizer.vocabulary_size), tokenizer=tokenizer)


@pytest.mark.nightly
def test_scores_are_the_model_s_log_probabilities(model: LanguageModel) -> None:
    """Of a text that gets a space before it, and of one whose bytes the tokens don't write: a lone surrogate."""
    for text in ("the moon", " the moon", "昨 the", "a\ud83db", ""):
        (score,) = score_texts(model, [text])
        ids = [model.tokenizer.start_token_id, *model.tokenizer.encode(text), model.tokenizer.end_token_id]
        inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), bool)}
        logits = np.asarray(model.causal_lm(inputs)).astype(np.float64)[0]
        log_p = (
            logits
            - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
            - logits.max(-1, keepdims=True)
        )
        expected = log_p[np.arange(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose([*score.token_log_probabilities, score.end_log_probability], expected, atol=1e-4)
        assert len(score.character_log_probabilities) == len(text)
        np.testing.assert_allclose(sum(score.character_log_probabilities), expected[:-1].sum(), atol=1e-4)


@pytest.mark.parametrize("prompt", ["", "the", "the moon "])
def test_streams_join_to_what_generate_returns(model: LanguageModel, prompt: str) -> None:
    settings = {"sampler": kg.Random(), "max_new_tokens": 12, "seed": 5}
    (whole,) = generate(model, [prompt], **settings)
    assert "".join(stream(model, prompt, **settings)) == whole
    (found,) = generate(model, [prompt], return_logprobs=True, return_prompt=False, **settings)
    ids = [*model.tokenizer.encode(prompt), *found.token_ids]
    assert whole == model.tokenizer.decode(ids, skip_special_tokens=True)


def test_each_of_several_end_tokens_ends_a_text(model: LanguageModel) -> None:
    assert model.tokenizer.end_token_ids == ENDS
    found = generate(model, ["the"] * 40, sampler=kg.Random(), max_new_tokens=40, return_logprobs=True, seed=1)
    ended = {one.token_ids[-1] for one in found if one.finished}
    assert ended <= set(ENDS)
    assert all(not set(ENDS) & set(one.token_ids[:-1]) for one in found)


@pytest.mark.parametrize("prompt", ["", "the ri"])
def test_a_form_is_one_of_the_text_that_is_shown(model: LanguageModel, prompt: str) -> None:
    constraint = kg.Regex("the [a-z]{4,8} 昨{2}")
    (text,) = generate(model, [prompt], sampler=kg.Random(), max_new_tokens=24, constraint=constraint)
    assert constraint.matches(text)


def test_special_tokens_of_a_prompt_are_found_where_they_are_allowed(model: LanguageModel) -> None:
    settings = {"sampler": kg.Greedy(), "max_new_tokens": 4, "return_prompt": False}
    plain = generate(model, ["<eos>the"], **settings)
    allowed = generate(model, ["<eos>the"], allowed_special={"<eos>"}, **settings)
    assert allowed == generate(model, ["<eos>the"], allowed_special="all", **settings)
    ids = [ENDS[0], *model.tokenizer.encode_with_special("<eos>the", "all")[1:]]
    assert model.tokenizer.encode_with_special("<eos>the", "all") == ids
    assert plain != allowed or model.tokenizer.encode("<eos>the") != ids
    # A start token that the prompt has already is not put there twice.
    bare = model.tokenizer.encode_with_special("<bos>the", "all")
    assert bare[0] == model.tokenizer.start_token_id
    assert encode_prompts(model.tokenizer, ["<bos>the"], "all") == [bare[1:]]
    with pytest.raises(GenerateArgumentError, match="'<nobody>' is no special token"):
        generate(model, ["a"], allowed_special=["<nobody>"], **settings)


def test_a_saved_model_has_the_same_tokenizer(model: LanguageModel, tmp_path: Path) -> None:
    again = load_directory(save_preset(model, tmp_path / "preset"), source="again")
    assert again.tokenizer == model.tokenizer
    assert (tmp_path / "preset" / "assets" / "tokenizer" / "tokenizer.model").is_file()
    settings = {"sampler": kg.Greedy(), "max_new_tokens": 5}
    assert generate(again, ["the", ""], **settings) == generate(model, ["the", ""], **settings)
