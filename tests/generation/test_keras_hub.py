"""Specs inside KerasHub's own generate, and KerasHub's own samplers inside ours."""

from __future__ import annotations

import numpy as np
import pytest
from letters import shared_model

from kerasgen.errors import GenerateArgumentError
from kerasgen.generation import generate, generate_ids
from kerasgen.models.base import LanguageModel
from kerasgen.samplers.base import SamplerSpec
from kerasgen.samplers.lookahead import Beam, Contrastive
from kerasgen.samplers.sampling import Greedy, Random, TopP


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return shared_model()


def prompts_of(model: LanguageModel, prompts: list[str], length: int) -> tuple[dict[str, np.ndarray], list[int]]:
    framed = [[model.tokenizer.start_token_id, *model.tokenizer.encode(prompt)] for prompt in prompts]
    token_ids = np.full((len(prompts), length), model.tokenizer.pad_token_id, dtype="int32")
    for row, ids in enumerate(framed):
        token_ids[row, : len(ids)] = ids
    lengths = [len(ids) for ids in framed]
    return {"token_ids": token_ids, "padding_mask": np.arange(length)[None] < np.array(lengths)[:, None]}, lengths


@pytest.mark.parametrize(
    "spec",
    [
        Greedy(repetition_penalty=1.5, no_repeat_ngram_size=2),
        Random(seed=3),
        TopP(0.7, temperature=1.3),
        Beam(3, num_return_sequences=2),
        Beam(2, 0.0, early_stopping=True, no_repeat_ngram_size=2),
        Contrastive(k=3),
    ],
    ids=lambda spec: type(spec).__name__,
)
def test_a_compiled_spec_writes_what_kerasgen_writes_and_again(model: LanguageModel, spec: SamplerSpec) -> None:
    """One prompt comes twice and they differ in length; KerasHub's own seeded samplers change at the second call."""
    prompts = ["ab", "", "ab", "dcdcdc"]
    inputs, lengths = prompts_of(model, prompts, 18)
    model.causal_lm.compile(sampler=spec)
    wanted = generate_ids(model, model.tokenizer.encode_batch(prompts), sampler=spec, max_length=18)
    for _ in range(2):
        outputs = model.causal_lm.generate({**inputs}, stop_token_ids=(model.tokenizer.end_token_id,))
        for row, (length, (best, *_)) in enumerate(zip(lengths, wanted, strict=True)):
            whole = np.asarray(outputs["token_ids"])[row, length : length + len(best.token_ids)]
            assert tuple(whole.tolist()) == best.token_ids
            assert np.asarray(outputs["padding_mask"])[row].sum() == length + len(best.token_ids)


def test_a_compiled_spec_without_stop_tokens_fills_the_length(model: LanguageModel) -> None:
    inputs, _ = prompts_of(model, ["ab", "c"], 12)
    for spec in (Random(), Beam(2)):
        model.causal_lm.compile(sampler=spec)
        outputs = model.causal_lm.generate({**inputs}, stop_token_ids=None)
        assert np.asarray(outputs["padding_mask"]).all()


def test_bad_words_are_refused_where_there_is_no_tokenizer(model: LanguageModel) -> None:
    model.causal_lm.compile(sampler=Greedy(bad_words=("x",)))
    inputs, _ = prompts_of(model, ["ab"], 12)
    with pytest.raises(Exception, match=r"bad_words.* are strings"):  # TensorFlow wraps what its tracing raises
        model.causal_lm.generate(inputs, stop_token_ids=None)


def test_keras_hubs_greedy_sampler_writes_what_ours_does_and_leaves_the_model_alone(model: LanguageModel) -> None:
    import keras
    import keras_hub

    optimizer = keras.optimizers.AdamW(1e-3)
    mine = keras_hub.samplers.RandomSampler(seed=1)
    model.causal_lm.compile(optimizer=optimizer, loss="mse", sampler=mine)
    prompts = ["ab", "", "ab"]
    found = generate(model, prompts, sampler=keras_hub.samplers.GreedySampler(), max_new_tokens=8)
    assert found == generate(model, prompts, sampler=Greedy(), max_new_tokens=8)
    assert model.causal_lm.optimizer is optimizer
    assert model.causal_lm.sampler is mine
    assert model.causal_lm.loss == "mse"


def test_keras_hubs_beams_score_unequal_prompts_as_alone(model: LanguageModel) -> None:
    """In one batch of unequal prompts they would not: they are put into batches of equal ones."""
    import keras_hub

    prompts = ["a", "abcd", "dcba"]
    sampler = keras_hub.samplers.BeamSampler(num_beams=3)
    together = generate(model, prompts, sampler=sampler, max_new_tokens=5)
    assert together == [generate(model, [prompt], sampler=sampler, max_new_tokens=5)[0] for prompt in prompts]


def test_keras_hubs_draws_change_with_its_own_seed_generator(model: LanguageModel) -> None:
    import keras_hub

    def write() -> list[str]:
        sampler = keras_hub.samplers.TopKSampler(k=4, seed=4, temperature=3.0)
        return [generate(model, ["ab"], sampler=sampler, max_new_tokens=12)[0] for _ in range(2)]

    first, second = write()
    assert first != second
    assert [first, second] == write()


def test_a_changed_temperature_is_heeded(model: LanguageModel) -> None:
    """KerasHub's own generate goes on with the old one."""
    import keras_hub

    sampler = keras_hub.samplers.RandomSampler(seed=4)
    hot = [generate(model, ["a"], sampler=sampler, max_new_tokens=10) for _ in range(8)]
    sampler.temperature = 1e-4
    cold = [generate(model, ["a"], sampler=sampler, max_new_tokens=10) for _ in range(4)]
    assert len({text for (text,) in hot}) > 1
    assert cold == [generate(model, ["a"], sampler=Greedy(), max_new_tokens=10)] * 4


def test_all_of_keras_hubs_beams_at_once_are_refused(model: LanguageModel) -> None:
    import keras_hub

    with pytest.raises(GenerateArgumentError, match="num_return_sequences"):
        generate(model, ["a"], sampler=keras_hub.samplers.BeamSampler(return_all_beams=True), max_new_tokens=3)
