"""Masked language models write texts: of a length, in a form, by a seed, with the sampler that is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import encoders
import numpy as np
import pytest

import kerasgen as kg
from kerasgen.errors import GenerateArgumentError
from kerasgen.models import kinds
from kerasgen.tokens.encoder_tokenizers import Special, word_piece

pytestmark = pytest.mark.one_backend

HAN = "春眠不覺曉處聞啼鳥夜來風雨聲花落知多少床前明月光疑是地上霜舉頭望低思故鄉白日依山盡黃河入海流"


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return kg.Pipeline(model=str(encoders.write("roberta", tmp_path_factory.mktemp("roberta"))))


@pytest.fixture(scope="module")
def poet(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model whose tokens are Han characters, punctuation and a line break."""
    folder = encoders.write("roberta", tmp_path_factory.mktemp("poet"))
    special = Special("<s>", "</s>", "<pad>", "<mask>", "<unk>")
    characters = list(dict.fromkeys(HAN + "，。？！"))
    vocabulary = [special.start, special.pad, special.end, special.unknown, *characters, special.mask]
    (folder / "tokenizer.json").write_text(word_piece(vocabulary, special, lowercase=False))
    return kg.Pipeline(model=str(folder))


def tokens(pipe: Any, text: str) -> list[int]:
    return list(pipe.tokenizer.encode(text))


def best(pipe: Any, ways: list[Any]) -> Any:
    """Return the likeliest way that fills in no special token, of which no text is written."""
    special = set(pipe.tokenizer.special_tokens.values())
    return next(way for way in ways if way.token_ids[0] not in special)


@pytest.mark.parametrize("sampler", ["mask_predict:iterations=3", "gibbs:sweeps=1", "top_k:k=3", "greedy"])
def test_a_text_goes_on_from_its_prompt_with_so_many_tokens(pipe: Any, sampler: str) -> None:
    text = pipe.generate("a b", sampler=sampler, max_new_tokens=6)
    assert text.startswith("a b")
    assert len(tokens(pipe, text)) == 2 + 6
    assert not set(tokens(pipe, text)) & set(pipe.tokenizer.special_tokens.values())


@pytest.mark.parametrize("sampler", ["mask_predict:iterations=4,k=5", "gibbs:sweeps=2"])
def test_a_seed_gives_the_same_text_alone_and_among_others(pipe: Any, sampler: str) -> None:
    settings: dict[str, Any] = {"sampler": sampler, "max_new_tokens": 5}
    alone = pipe.generate("a b", seed=5, **settings)
    assert pipe.generate(["c", "a b", "d e f"], seed=5, **settings)[1] == alone
    assert pipe.generate("a b", seed=6, **settings) != alone
    (several,) = pipe.generate(["a b"], seed=5, num_return_sequences=3, **settings)
    assert several[0] == alone
    assert len(set(several)) == 3


def test_one_iteration_takes_the_likeliest_token_of_every_place(pipe: Any) -> None:
    text = pipe.generate("a b", sampler="mask_predict:iterations=1", max_new_tokens=3, return_logprobs=True)
    mask = pipe.model.mask_token
    ways = [best(pipe, of_mask) for of_mask in pipe.fill(f"a b {mask} {mask} {mask}", top=8, joint=False)]
    assert text.token_ids == tuple(way.token_ids[0] for way in ways)
    assert np.exp(text.logprobs) == pytest.approx([way.probability for way in ways], rel=1e-4)


def test_later_iterations_predict_the_unsurest_tokens_from_the_others(pipe: Any) -> None:
    """Two of three tokens are masked again after the first of three iterations, and one after the second."""
    mask, words = pipe.model.mask_token, ["a", "b"]
    slots = [mask] * 3
    for left in (2, 1, 0):
        open_places = [n for n, slot in enumerate(slots) if slot == mask]
        ways = [best(pipe, of_mask) for of_mask in pipe.fill(" ".join([*words, *slots]), top=8, joint=False)]
        if left == 2:
            sure = [0.0] * 3
        for n, way in zip(open_places, ways, strict=True):
            slots[n], sure[n] = way.tokens[0], way.probability
        for n in sorted(range(3), key=lambda n: sure[n])[:left]:
            slots[n] = mask
    text = pipe.generate("a b", sampler="mask_predict:iterations=3", max_new_tokens=3)
    assert text == " ".join([*words, *slots])


def test_gibbs_draws_from_the_distribution_given_all_others(pipe: Any) -> None:
    """Of a text of one token, each draw is from what `fill` says of its mask."""
    (texts,) = pipe.generate(
        ["a b"], sampler="gibbs:sweeps=1", max_new_tokens=1, num_return_sequences=400, return_prompt=False
    )
    ways = pipe.fill(f"a b {pipe.model.mask_token}", top=91)
    special = set(pipe.tokenizer.special_tokens.values())
    ways = [way for way in ways if way.token_ids[0] not in special]
    total = sum(way.probability for way in ways)
    for way in ways[:3]:
        share = sum(text.strip() == way.tokens[0] for text in texts) / len(texts)
        assert share == pytest.approx(way.probability / total, abs=0.08)


@pytest.mark.parametrize("sampler", ["mask_predict:iterations=5,k=3", "gibbs:sweeps=1"])
def test_a_poem_keeps_its_form(poet: Any, sampler: str) -> None:
    form = kg.VerseForm("五言絕句", between="")
    for prompt in ("", "春眠不"):
        poem = poet.generate(prompt, sampler=sampler, constraint=form)
        assert form.matches(poem)
        assert poem.startswith(prompt)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sampler": "beam"}, "search from left to right"),
        ({"sampler": kg.TopK(bad_words=("a",))}, "bad_words"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens"),
        ({"engine": "litert"}, "computed by Keras"),
    ],
)
def test_what_has_no_meaning_is_refused_before_the_model_is_loaded(
    pipe: Any, settings: dict[str, Any], said: str
) -> None:
    unloaded = kg.Pipeline(model=str(pipe.model_source))
    with pytest.raises(GenerateArgumentError, match=said):
        unloaded.generate("a", **settings)
    assert unloaded._model is None
    assert kinds.is_masked(unloaded.model_source)


def test_a_text_longer_than_the_model_is_refused(pipe: Any) -> None:
    with pytest.raises(GenerateArgumentError, match="30 positions"):
        pipe.generate("a b", max_new_tokens=40)


def test_a_causal_model_writes_by_no_mask_predict() -> None:
    with pytest.raises(GenerateArgumentError, match="for masked language models"):
        kg.Pipeline(model="starter").generate("春", sampler="mask_predict", max_new_tokens=2)


@pytest.mark.parametrize("wrong", ["mask_predict:iterations=0", "mask_predict:k=0", "gibbs:sweeps=0", "gibbs:k=-1"])
def test_wrong_settings_are_refused(wrong: str) -> None:
    with pytest.raises(kg.KerasgenError, match=wrong.partition(":")[2].partition("=")[0]):
        kg.samplers.create(wrong)


@pytest.mark.slow
def test_texts_of_a_run_and_an_evaluation_fit_between_start_and_end(tmp_path: Any, monkeypatch: Any) -> None:
    """What a call writes without being told a length has room for the end token of a masked model too."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = str(encoders.write("roberta", tmp_path / "roberta"))
    words = ("a b c d", "e f g a", "c a f e", "g b e d")
    texts = [f"{first} {second} {words[0]}" for first in words for second in words]
    tuner = kg.FullTuner(max_steps=2, batch_size=4, sample_every=1)
    pipe = kg.Pipeline(corpus=texts, model=folder, tuner=tuner, held_out=0.2, sampler="mask_predict:iterations=1")
    assert [sample.step for sample in pipe.fit(verbose=0, sample_prompt="a b").samples] == [1, 2]
    found = pipe.evaluate(texts=2, prompt="a b", self_bleu=False)
    assert found.writing is not None
    assert found.writing.texts == 2
    assert "pseudo-log-likelihood" in str(found)
    assert "pseudo-log-likelihood" in Path(pipe.report(tmp_path / "figures.html")).read_text(encoding="utf-8")
    shown = pipe.report(tmp_path / "run.html", texts="a b c").read_text(encoding="utf-8")
    assert all(f'id="{section}"' in shown for section in ("curves", "samples", "surprise", "evaluation", "settings"))
    with pytest.raises(kg.errors.ArgumentError, match="no room for a new token"):
        pipe.evaluate(texts=1, prompt="a " * 28)
