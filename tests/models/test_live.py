"""A KerasHub model that a person holds in memory goes into a pipeline, and one of a pipeline comes out of it whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
from tiny import GPT2_END, tiny_gpt2, tiny_opt, tiny_vocabulary

import kerasgen as kg
from kerasgen.errors import ModelArgumentError, ModelError, ModelFormatError, TuneArgumentError
from kerasgen.models.preprocessing import attach_preprocessor, preprocessor_of
from kerasgen.tuners import adapters

TEXTS = [f"the {a} and the {b}\n\n {a}" for a in ("sea", "hill", "春", "moon") for b in ("wind", "rain", "stars")]
# At a constant rate, so that runs of any length share what is compiled.
TUNER = kg.FullTuner(max_steps=2, batch_size=4, sequence_length=32, precision="float32", schedule="constant")
LORA = kg.LoraTuner(rank=2, max_steps=2, batch_size=4, sequence_length=32, precision="float32", learning_rate=0.05)


def live(sequence_length: int | None = None, *, family: Any = tiny_gpt2, **settings: Any) -> Any:
    """A task as a person builds it: with its preprocessor, compiled by KerasHub's default."""
    made = family(**{"num_layers": 1} | settings)
    preprocessor = preprocessor_of(made)
    if sequence_length is not None:
        preprocessor.sequence_length = sequence_length
    return type(made.causal_lm)(backbone=made.backbone, preprocessor=preprocessor)


@pytest.mark.parametrize("family", [tiny_gpt2, tiny_opt])
def test_the_tokenizer_is_the_exact_one_of_its_preprocessors_vocabulary(family: Any) -> None:
    assert kg.Pipeline(model=live(family=family)).tokenizer.digest() == family().tokenizer.digest()


def test_a_preprocessor_without_a_start_token_gives_none() -> None:
    causal_lm = live()
    causal_lm.preprocessor.add_start_token = False
    assert kg.Pipeline(model=causal_lm).tokenizer.start_token_id is None


def test_the_model_itself_is_tuned_and_what_it_was_compiled_with_stays(tmp_path: Path) -> None:
    """A preprocessor of fewer positions than the backbone is no limit of the pipeline."""
    causal_lm = live(sequence_length=8)
    optimizer, loss = keras.optimizers.SGD(0.125), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    causal_lm.compile(optimizer=optimizer, loss=loss, sampler="greedy")
    sampler, preprocessor, before = causal_lm.sampler, causal_lm.preprocessor, causal_lm.get_weights()
    pipe = kg.Pipeline(TEXTS, causal_lm, tuner=TUNER, held_out=0.3)
    report = pipe.fit(verbose=0)
    assert pipe.model.causal_lm is causal_lm
    assert any((a != b).any() for a, b in zip(before, causal_lm.get_weights(), strict=True))
    assert (causal_lm.optimizer, causal_lm.loss) == (optimizer, loss)
    assert float(causal_lm.optimizer.learning_rate) == 0.125
    assert (causal_lm.sampler, causal_lm.preprocessor) == (sampler, preprocessor)
    assert causal_lm.dtype_policy.name == "float32"
    assert report.bits_per_character == pytest.approx(pipe.evaluate().bits_per_character, rel=1e-5)
    text = pipe.generate("the", max_new_tokens=12, sampler="greedy")
    again = kg.Pipeline.load(pipe.save(tmp_path / "saved"))
    assert again.generate("the", max_new_tokens=12, sampler="greedy") == text
    causal_lm.fit(["the sea"] * 4, batch_size=2, epochs=1, shuffle=False, verbose=0)  # as it did before


def test_layers_that_a_person_froze_stay_frozen() -> None:
    causal_lm = live()
    causal_lm.backbone.token_embedding.trainable = False
    table = np.array(causal_lm.backbone.token_embedding.embeddings)
    report = kg.Pipeline(TEXTS, causal_lm, tuner=TUNER).fit(verbose=0)
    assert (np.array(causal_lm.backbone.token_embedding.embeddings) == table).all()
    assert report.trainable_parameters < report.parameters
    causal_lm.trainable = False
    with pytest.raises(TuneArgumentError, match=r"frozen.*causal_lm\.trainable = True"):
        kg.Pipeline(TEXTS, causal_lm, tuner=TUNER).fit(verbose=0)


def test_adapters_that_it_carries_are_tuned_further_and_saved_within_the_whole(tmp_path: Path) -> None:
    causal_lm = live()
    causal_lm.backbone.enable_lora(2)
    for layer in causal_lm.backbone._flatten_layers():
        if getattr(layer, "lora_enabled", False):
            layer.lora_alpha = 16.0
    thin = adapters.current(kg.Pipeline(model=causal_lm).model)
    pipe = kg.Pipeline(TEXTS, causal_lm, tuner=LORA)
    pipe.fit(verbose=0)
    assert adapters.current(pipe.model) == thin
    saved = pipe.save(tmp_path / "saved")
    assert not (saved / "adapters").exists()
    again = kg.Pipeline.load(saved)
    assert again.score("the sea").token_log_probabilities == pytest.approx(
        pipe.score("the sea").token_log_probabilities, abs=1e-4
    )


@pytest.mark.one_backend
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`:UserWarning")  # of Keras's, on each layer
def test_a_quantized_one_generates_and_is_not_tuned() -> None:
    made = tiny_gpt2(num_layers=1)
    attach_preprocessor(made)
    causal_lm = made.causal_lm
    causal_lm.quantize("int8")
    pipe = kg.Pipeline(TEXTS, causal_lm, tuner=TUNER)
    assert pipe.generate("the", max_new_tokens=3, sampler="greedy").startswith("the")
    for tuner in (TUNER, LORA):
        pipe.tuner = tuner
        with pytest.raises(TuneArgumentError, match=r"quantized \(int8\).*before it is quantized"):
            pipe.fit(verbose=0)


class Doubled(keras_hub.models.GPT2CausalLM):  # type: ignore[misc]
    """A person's own task, whose logits are not its backbone's table's."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        return 2.0 * super().call(inputs, training=training, mask=mask)


def test_a_persons_own_task_is_scored_by_its_own_logits() -> None:
    stock = live()
    own = Doubled(backbone=stock.backbone, preprocessor=stock.preprocessor)
    pipe = kg.Pipeline(TEXTS, own, tuner=TUNER)
    text = "the sea"
    ids = [pipe.tokenizer.start_token_id, *pipe.tokenizer.encode(text)]
    logits = np.asarray(
        own({"token_ids": np.array([ids], np.int32), "padding_mask": np.ones((1, len(ids)), np.int32)}), np.float64
    )[0, :-1]
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = logprobs[np.arange(len(ids) - 1), ids[1:]]
    assert pipe.score(text).token_log_probabilities == pytest.approx(expected, abs=1e-4)
    assert pipe.fit(verbose=0).steps == 2


class TestRefused:
    def test_a_backbone_with_the_task_to_put_it_into(self) -> None:
        made = live()
        with pytest.raises(ModelArgumentError, match=r"keras_hub\.models\.GPT2CausalLM\(backbone=backbone, preproc"):
            kg.Pipeline(model=made.backbone)
        task = keras_hub.models.GPT2CausalLM(
            backbone=made.backbone,
            preprocessor=keras_hub.models.GPT2CausalLMPreprocessor(made.preprocessor.tokenizer, sequence_length=64),
        )
        assert kg.Pipeline(model=task).tokenizer.encode("the") == tiny_gpt2().tokenizer.encode("the")

    def test_a_model_without_a_tokenizer_until_it_has_one(self) -> None:
        made = live()
        tokenizer, made.preprocessor = made.preprocessor.tokenizer, None
        with pytest.raises(ModelArgumentError, match=r"causal_lm\.preprocessor = .*GPT2CausalLMPreprocessor\(tokeni"):
            kg.Pipeline(model=made)
        made.preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=64)
        assert kg.Pipeline(model=made).generate("the", max_new_tokens=1)

    def test_a_keras_model_that_continues_no_text(self) -> None:
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
        with pytest.raises(ModelArgumentError, match=r"Sequential is no keras_hub\.models\.CausalLM.*from_preset"):
            kg.Pipeline(model=model)
        with pytest.raises(ModelArgumentError, match="not its class"):
            kg.Pipeline(model=keras_hub.models.GPT2CausalLM)

    def test_weights_that_are_no_float32(self) -> None:
        made = live()
        backbone = keras_hub.models.GPT2Backbone.from_config(made.backbone.get_config() | {"dtype": "bfloat16"})
        causal_lm = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=made.preprocessor)
        with pytest.raises(ModelArgumentError, match=r"weights in bfloat16.*dtype='float32'"):
            kg.Pipeline(model=causal_lm)

    def test_a_tokenizer_of_more_ids_than_the_model(self) -> None:
        vocabulary, merges = tiny_vocabulary(310)
        tokenizer = keras_hub.tokenizers.GPT2Tokenizer(vocabulary, [" ".join(pair) for pair in merges])
        preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=64)
        causal_lm = keras_hub.models.GPT2CausalLM(backbone=tiny_gpt2(300).backbone, preprocessor=preprocessor)
        with pytest.raises(ModelFormatError, match="310 ids and its backbone only 300"):
            _ = kg.Pipeline(model=causal_lm).model

    def test_a_task_that_nobody_could_load_again(self, tmp_path: Path) -> None:
        stock = live()
        own = Doubled(backbone=stock.backbone, preprocessor=stock.preprocessor)
        with pytest.raises(ModelError, match="register_keras_serializable"):
            kg.Pipeline(model=own).save(tmp_path / "saved")


def greedy(causal_lm: Any, prompt: str) -> str:
    causal_lm.compile(sampler="greedy")
    text: str = causal_lm.generate(prompt, max_length=24)
    return text


@pytest.mark.parametrize("vocabulary", ["keep", "extend"])
def test_a_model_out_of_a_pipeline_generates_by_itself(vocabulary: str, tmp_path: Path) -> None:
    """Also after its vocabulary changed: its tokenizer is the new one, whose ids end where the model's do."""
    causal_lm = live(family=tiny_gpt2, seed=3)
    directory = tmp_path / "preset"
    causal_lm.save_to_preset(str(directory))
    tuner = dataclasses.replace(TUNER, max_steps=1, vocabulary=vocabulary)
    pipe = kg.Pipeline(TEXTS, directory, tuner=tuner)
    pipe.fit(verbose=0)
    out = pipe.model.causal_lm
    assert out.preprocessor.tokenizer.vocabulary_size() == pipe.tokenizer.vocabulary_size
    text = pipe.generate("the sea", max_length=24, sampler="greedy", valid_utf8=False)
    assert greedy(out, "the sea") == text.removesuffix(GPT2_END)
