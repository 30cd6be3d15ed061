"""`fill` gives the tokens in the order of transformers' probabilities, and texts with them in their places."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest

import kerasgen as kg
from kerasgen.errors import GenerateArgumentError
from kerasgen.masked.filling import put_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoders.write("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return kg.Pipeline(model=str(folder))


def texts(pipe: Any) -> list[str]:
    ids, _ = encoders.example(pipe.model.vocabulary_size)
    names = {token_id: token for token, token_id in pipe.tokenizer.vocabulary.items()}
    return [" ".join(names[token_id] for token_id in row[1:-1].tolist()) for row in ids]


@pytest.mark.slow
def test_each_mask_has_the_tokens_and_probabilities_of_transformers(pipe: Any) -> None:
    logits, _ = encoders.logits_and_loss("bert")
    _, labels = encoders.example(pipe.model.vocabulary_size)
    for row, found in enumerate(pipe.fill(texts(pipe), top=90, joint=False)):
        places = np.flatnonzero(labels[row] >= 0)
        assert len(found) == len(places)
        for place, ways in zip(places, found, strict=True):
            theirs = np.exp(logits[row, place]) / np.exp(logits[row, place]).sum()
            assert [way.probability for way in ways] == sorted((way.probability for way in ways), reverse=True)
            for way in ways:
                assert way.probability == pytest.approx(theirs[way.token_ids[0]], rel=1e-3, abs=1e-6)


@pytest.mark.slow
def test_the_joint_probability_is_that_of_filling_one_after_another(pipe: Any) -> None:
    text = f"a b {pipe.model.mask_token} c {pipe.model.mask_token}"
    best, *others = pipe.fill(text, top=4)
    assert len(others) == 3
    assert best.probability >= others[0].probability
    for way in (best, *others):
        assert way.probability == pytest.approx(math.prod(way.probabilities))
        # Whichever came first, its probability is of the text as it was, and the other's is given it.
        orders = []
        for first, second in ((0, 1), (1, 0)):
            alone = pipe.fill(text, top=96, joint=False)[first]
            start = next(each.probability for each in alone if each.token_ids[0] == way.token_ids[first])
            tokens = [pipe.model.mask_token, pipe.model.mask_token]
            tokens[first] = way.tokens[first]
            rest = pipe.fill(f"a b {tokens[0]} c {tokens[1]}", top=96)
            orders.append(start * next(each.probability for each in rest if each.token_ids[0] == way.token_ids[second]))
        assert any(way.probability == pytest.approx(order, rel=1e-4) for order in orders)


def test_texts_hold_the_tokens_in_their_places(pipe: Any) -> None:
    (way,) = pipe.fill("a [MASK] c", top=1)
    assert way.text == f"a {way.tokens[0]} c"
    assert pipe.fill(["a [MASK]", "[MASK] b"], top=1)[1][0].text.endswith(" b")


@pytest.mark.parametrize(
    ("before", "token", "after"),
    [
        ("is [MASK].", " Paris", "is Paris."),
        ("walk [MASK] on", "ing", "walking on"),
        ("[MASK] is", " The", "The is"),
        ("春眠不[MASK]曉", "覺", "春眠不覺曉"),
        ("春\n[MASK]", "花", "春\n花"),
        ("a\n[MASK]", " b", "a\nb"),
    ],
)
def test_a_token_brings_its_space_or_takes_one_away(pipe: Any, before: str, token: str, after: str) -> None:
    assert put_in(pipe.model, before, [token.encode()]) == after


def test_a_character_of_several_tokens_is_whole_in_masks_side_by_side(tmp_path: Path) -> None:
    model = kg.Pipeline(model=str(encoders.write("roberta", tmp_path))).model
    mask, character = model.mask_token, "龘".encode()
    pieces = [character[:1], character[1:2], character[2:]]
    assert put_in(model, f"春{mask * 3}。", pieces) == "春龘。"
    assert put_in(model, f"{mask}{mask} {mask}", pieces) == f"{character[:2].decode('utf-8', 'replace')}\ufffd"
    assert put_in(model, f"{mask}a{mask}", [b"x"], 1) == f"{mask}ax"


def test_more_ways_than_a_vocabulary_has_are_found_in_bounded_time(pipe: Any) -> None:
    mask, size = pipe.model.mask_token, pipe.model.vocabulary_size
    ways = pipe.fill(f"a {mask} {mask}", top=10 * size)
    assert len(ways) == len({way.token_ids for way in ways}) == size
    assert [way.probability for way in ways] == sorted((way.probability for way in ways), reverse=True)
    some = pipe.fill(f"a {mask} {mask}", top=3)
    assert some[0].token_ids == ways[0].token_ids


def test_a_text_without_a_mask_is_refused_with_how_the_mask_is_written(pipe: Any) -> None:
    with pytest.raises(GenerateArgumentError, match=r"This model's mask is written '\[MASK\]', and not '<mask>'"):
        pipe.fill("a <mask> c")


@pytest.mark.parametrize("wrong", [{"top": 0}, {"joint": 1}, {"batch_size": 0}])
def test_wrong_arguments_are_refused(pipe: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(kg.KerasgenError, match=next(iter(wrong))):
        pipe.fill("a [MASK]", **wrong)


def test_a_text_longer_than_the_model_is_refused(pipe: Any) -> None:
    with pytest.raises(GenerateArgumentError, match="longer than the model's 32 positions"):
        pipe.fill("a " * 40 + "[MASK]")


@pytest.mark.parametrize("call", ["stream", "prompt"])
def test_calls_without_meaning_are_refused_before_the_model_is_loaded(folder: Path, call: str) -> None:
    unloaded = kg.Pipeline(model=str(folder))
    with pytest.raises(GenerateArgumentError, match="is for causal models"):
        getattr(unloaded, call)("a")
    assert unloaded._model is None


def test_conversations_are_refused_with_the_template_that_a_masked_model_can_read(pipe: Any) -> None:
    from kerasgen.errors import ChatTemplateError
    from kerasgen.models import chat

    before = dict(pipe.model.metadata)
    with pytest.raises(ChatTemplateError, match=r"conversations are for causal models.*chat_template='alpaca'"):
        chat.give(pipe.model, "chatml", seed=0)
    assert pipe.model.metadata == before


def test_a_causal_model_fills_nothing_and_is_not_loaded_for_it() -> None:
    pipe = kg.Pipeline(model="starter")
    with pytest.raises(GenerateArgumentError, match="needs a masked language model"):
        pipe.fill("床前明月<mask>")
    assert pipe._model is None


def test_scores_are_the_log_probabilities_of_each_token_masked_by_itself(pipe: Any) -> None:
    score = pipe.score("a b c")
    for place, word in enumerate("abc"):
        words = list("abc")
        words[place] = "[MASK]"
        ways = pipe.fill(" ".join(words), top=96)
        found = next(way.probability for way in ways if way.tokens == (word,))
        assert math.exp(score.token_log_probabilities[place]) == pytest.approx(found, rel=1e-4)
    assert score.end_log_probability == 0.0
    assert score.bits_per_character == pytest.approx(-sum(score.token_log_probabilities) / math.log(2) / 5)
