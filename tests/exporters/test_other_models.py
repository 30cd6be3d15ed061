"""Models that were tuned before they are written, and models of other families, over their own `generate_step`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tiny import tiny_gpt2
from toys import texts, tiny_gemma, tiny_qwen

import kerasgen as kg
from kerasgen.errors import ExportArgumentError, ExportError
from kerasgen.generation import generate, generate_ids
from kerasgen.models.base import LanguageModel
from kerasgen.tokens import vocabulary

pytest.importorskip(
    "tensorflow", reason="SavedModel and TFLite are written with TensorFlow, an extra: kerasgen[export]"
)
pytestmark = [pytest.mark.tensorflow, pytest.mark.one_backend]

EXPORTERS = {
    "saved_model": kg.SavedModelExporter(samplers=("greedy",)),
    "tflite": kg.TFLiteExporter(cache_length=64, prefill_lengths=(8,), decode_lengths=(), beams=0),
    "preset": kg.PresetExporter(),
    "gguf": kg.GgufExporter(),
    "transformers": kg.TransformersExporter(),
}


def with_adapters() -> LanguageModel:
    """A GPT-2 whose adapters do something: what is exported without them would be another model."""
    model = tiny_gpt2(num_layers=1, intermediate_dim=64)
    plain = generate_ids(model, [[5]], sampler="greedy", max_new_tokens=12)
    model.backbone.enable_lora(2)
    roughen_adapters(model)
    model = LanguageModel(model.causal_lm, model.tokenizer, "with adapters")
    assert generate_ids(model, [[5]], sampler="greedy", max_new_tokens=12) != plain
    return model


def roughen_adapters(model: LanguageModel) -> None:
    for variable in model.causal_lm.weights:
        if "lora_kernel" in variable.path:
            variable.assign(variable * 0 + 0.4)


def with_another_vocabulary() -> LanguageModel:
    from kerasgen.models.vocabulary import adapt

    model = tiny_gpt2(num_layers=1, intermediate_dim=64)
    adapted = vocabulary.extend(model.tokenizer, lambda: texts(40))
    adapt(model, adapted, record={"vocabulary": "extend"})
    assert model.tokenizer.vocabulary_size != 300
    return model


@pytest.mark.parametrize("make", [with_adapters, with_another_vocabulary])
@pytest.mark.parametrize(
    "name",
    [
        "tflite",
        pytest.param("saved_model", marks=pytest.mark.slow),
        pytest.param("preset", marks=pytest.mark.slow),
        "gguf",
    ],
)
def test_what_was_tuned_is_what_is_written(tmp_path, make, name):
    """Each exporter compares what it wrote with the model as it generates now."""
    model = make()
    ending = {"gguf": ".gguf", "tflite": ".tflite"}.get(name, "")
    artefact = EXPORTERS[name].export(model, tmp_path / f"model{ending}")
    if name in ("tflite", "saved_model"):
        wanted = [list(one[0].token_ids) for one in generate_ids(model, [[5, 6]], sampler="greedy", max_new_tokens=12)]
        assert artefact.runtime.generate_ids([[5, 6]], max_new_tokens=12) == wanted


@pytest.mark.nightly
def test_another_family_is_saved_over_its_own_step(tmp_path):
    model = tiny_gemma()
    exporter = kg.SavedModelExporter(samplers=("greedy", "top_k", "beam"))
    artefact = exporter.export(model, tmp_path / "other")
    parity = artefact.report["parity"]
    assert artefact.report["decoder"] == "generate_step"
    assert all(parity[f"{what}_equal"] for what in ("alone", "together"))
    assert not {"keras_hub", "tensorflow_text"} & set(parity["modules"])
    prompts = model.tokenizer.encode_batch(["the and", "昨夜雨疏风骤", ""])
    for sampler in ("top_k:k=5,temperature=0.8", "beam:num_beams=4"):
        wanted = generate_ids(model, prompts, sampler=sampler, max_new_tokens=20, seed=7)
        found = artefact.runtime.generate_ids(prompts, sampler=sampler, max_new_tokens=20, seed=7)
        assert found == [list(several[0].token_ids) for several in wanted]
    program = """
import json, sys
import tensorflow as tf
poet = tf.saved_model.load(sys.argv[1])
answer = poet.signatures["greedy"](
    prompts=tf.constant(["the", ""]), max_new_tokens=tf.constant(9), end_token_id=tf.constant(-1))
print(json.dumps([[text.decode() for text in answer["texts"].numpy()], "keras_hub" in sys.modules]))
"""
    command = [sys.executable, "-c", program, str(artefact.path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    assert json.loads(said) == [artefact.runtime.generate(["the", ""], max_new_tokens=9, return_prompt=False), False]


@pytest.mark.nightly
def test_a_layer_that_was_changed_in_memory_and_has_no_place_in_files_is_noticed(tmp_path):
    """The epsilon of one norm: no configuration of KerasHub's has it, so that what is written is another model."""
    with pytest.raises(ExportError, match="does not generate what the model does"):
        kg.SavedModelExporter(samplers=("greedy",)).export(tiny_qwen(), tmp_path / "other")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.nightly
def test_a_tokenizer_that_no_graph_can_hold_stays_outside(tmp_path):
    from hub_tokenizers import gemma_tokenizer

    from kerasgen.models.hub_tokenizer import KerasHubTokenizer

    model = LanguageModel(tiny_gemma(340).causal_lm, KerasHubTokenizer(gemma_tokenizer()), "tiny gemma")
    artefact = kg.SavedModelExporter(samplers=("greedy",)).export(model, tmp_path / "gemma")
    assert "encode" not in artefact.report["signatures"]
    prompt = model.tokenizer.encode("the")
    wanted = generate_ids(model, [prompt], sampler="greedy", max_new_tokens=8)
    assert artefact.runtime.generate_ids([prompt], max_new_tokens=8) == [list(wanted[0][0].token_ids)]
    (text,) = generate(model, ["the"], sampler="greedy", max_new_tokens=8)
    assert artefact.runtime.generate("the", max_new_tokens=8) == text


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.nightly
def test_a_preset_of_another_family_is_proved_by_keras_hub(tmp_path, dtype):
    """A model without a limit of its own, with a tokenizer of SentencePiece."""
    from hub_tokenizers import gemma_tokenizer

    from kerasgen.models.hub_tokenizer import KerasHubTokenizer

    model = LanguageModel(tiny_gemma(340).causal_lm, KerasHubTokenizer(gemma_tokenizer()), "tiny gemma")
    parity = kg.PresetExporter(dtype=dtype).export(model, tmp_path / "gemma").report["parity"]
    assert parity["greedy_equal"]
    assert parity["encoded_equal"]
    assert min(parity["new_tokens"]) == 128


def test_what_another_family_cannot_be_written_as_is_said_before_any_work(tmp_path):
    model = tiny_gemma()
    with pytest.raises(ExportArgumentError, match="float32 only"):
        kg.SavedModelExporter(dtype="float16").export(model, tmp_path / "gemma")
    for name in ("tflite", "gguf", "transformers"):
        with pytest.raises(ExportArgumentError, match="preset"):
            EXPORTERS[name].export(model, tmp_path / "gemma.gguf")
    assert list(tmp_path.iterdir()) == []
